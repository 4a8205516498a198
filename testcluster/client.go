package testcluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"quorate/internal/jsonhttp"
)

// Client talks to the HTTP API of one replica, or of any of several.
//
// With one address every call is one request. With several a call that found
// nobody, or was answered 503, is repeated at the next replica under the same
// request id until the context ends: the replicas recognise what was done
// already, so this is safe for writes too.
type Client struct {
	addresses []func() string // base URLs, with or without a trailing slash
	http      *http.Client
	token     string
	patience  time.Duration // with one try, 0 is without bound
	ledger    *Ledger       // gets what was acknowledged; may be nil
}

// StatusError is an answer that is not 2xx. Msg is the text of the answer.
type StatusError struct {
	Method, Path string
	Status       int
	Msg          string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s %s: status %d: %s", e.Method, e.Path, e.Status, e.Msg)
}

// StatusOf is the HTTP status in err's chain, or 0.
func StatusOf(err error) int {
	var s *StatusError
	if errors.As(err, &s) {
		return s.Status
	}
	return 0
}

// NewClient makes a client for the given base URLs. A nil transport means one of
// the client's own; Close releases it.
func NewClient(transport http.RoundTripper, token string, urls ...string) *Client {
	c := &Client{
		http:  &http.Client{Transport: transport, CheckRedirect: jsonhttp.StayHere},
		token: token,
	}
	if transport == nil {
		c.http.Transport = &http.Transport{MaxIdleConnsPerHost: 64}
	}
	for _, u := range urls {
		c.addresses = append(c.addresses, func() string { return u })
	}
	return c
}

// WithPatience makes a client that waits at most d for one answer before it asks
// the next replica.
func (c *Client) WithPatience(d time.Duration) *Client {
	patient := *c
	patient.patience = d
	return &patient
}

// Close releases idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// maxAnswer bounds what is read of an answer: a dump of 100,000 shards is 80 MB.
const maxAnswer = 1 << 30

// retryPause is the wait before a call is repeated; failovers take tens of
// milliseconds. What has not helped eagerTries times takes longer than those, and
// calls that are repeated all the time only keep everybody busy.
const (
	retryPause = 10 * time.Millisecond
	eagerTries = 50
	calmPause  = 250 * time.Millisecond
)

// Call sends one request with a JSON body, unless it is nil, and decodes the
// answer into out, unless that is nil.
func (c *Client) Call(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	request := hex.EncodeToString(id[:])
	for try := 0; ; try++ {
		address := strings.TrimSuffix(c.addresses[try%len(c.addresses)](), "/")
		err := c.once(ctx, address,
			&exchange{method: method, path: path, request: request, body: body, out: out})
		if err == nil || len(c.addresses) == 1 || !retryable(err) {
			return err
		}
		pause := retryPause
		if try >= eagerTries {
			pause = calmPause
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		}
	}
}

// retryable tells whether another replica, or the same one a moment later, may
// answer better.
func retryable(err error) bool {
	status := StatusOf(err)
	return status == 0 || status == http.StatusServiceUnavailable
}

type exchange struct {
	method, path, request string
	body                  []byte
	out                   any
}

func (c *Client) once(ctx context.Context, address string, x *exchange) error {
	if c.patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.patience)
		defer cancel()
	}
	r := jsonhttp.Request{
		Method: x.method, URL: address + x.path, Token: c.token, Limit: maxAnswer,
		Header: http.Header{"X-Request-Id": {x.request}},
	}
	if x.body != nil {
		r.Body = json.RawMessage(x.body)
	}
	a, err := jsonhttp.Do(ctx, c.http, r)
	switch {
	case err != nil:
		return fmt.Errorf("%s %s: %w", x.method, x.path, err)
	case !a.OK():
		return &StatusError{
			Method: x.method, Path: x.path, Status: a.Status, Msg: message(&a),
		}
	case x.out == nil:
		return nil
	}
	if err := a.Decode(x.out); err != nil {
		return fmt.Errorf("%s %s: answer: %w", x.method, x.path, err)
	}
	return nil
}

func message(a *jsonhttp.Answer) string {
	if msg, _ := a.Message(); msg != "" {
		return msg
	}
	return string(a.Body[:min(len(a.Body), 200)])
}
