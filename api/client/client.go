package client

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

// Options are the settings of a Client. Only Address is required.
type Options struct {
	// Address is the base URL for a try of a call, which is counted from 0. It may
	// end with a slash. See At.
	Address func(try int) string

	// Token is sent as a bearer token; empty: none.
	Token string

	// Transport sends the requests. Nil means one of the client's own.
	Transport http.RoundTripper

	// TryTimeout bounds one try; 0: only the context does.
	TryTimeout time.Duration

	// Retry says whether and when a call that failed is tried again. Nil: never.
	// See RetryUnavailable.
	Retry Retry

	// FollowRedirects makes the client go where an answer sends it. The token goes
	// along only to the same host.
	FollowRedirects bool
}

// At is for Options.Address: the try of a call that follows another one asks the
// next of the base URLs. It panics without any.
func At(urls ...string) func(try int) string {
	if len(urls) == 0 {
		panic("client: no address")
	}
	return func(try int) string { return urls[try%len(urls)] }
}

// Client calls a storage controller. It is safe for concurrent use.
type Client struct {
	http *http.Client
	opts Options
}

// idleConns is how many connections to one replica are kept.
const idleConns = 64

// New makes a Client.
func New(opts Options) *Client {
	c := &Client{http: &http.Client{Transport: opts.Transport}, opts: opts}
	if opts.Transport == nil {
		c.http.Transport = &http.Transport{MaxIdleConnsPerHost: idleConns}
	}
	if !opts.FollowRedirects {
		c.http.CheckRedirect = jsonhttp.StayHere
	}
	return c
}

// WithTryTimeout returns a client that shares the connections of c and waits at
// most d for the answer to one try.
func (c *Client) WithTryTimeout(d time.Duration) *Client {
	other := *c
	other.opts.TryTimeout = d
	return &other
}

// Tenants are the calls about whole tenants.
func (c *Client) Tenants() Tenants { return Tenants{c} }

// Shards are the calls about single shards.
func (c *Client) Shards() Shards { return Shards{c} }

// Timelines are the calls about the timelines of tenants.
func (c *Client) Timelines() Timelines { return Timelines{c} }

// Nodes are the calls about pageservers.
func (c *Client) Nodes() Nodes { return Nodes{c} }

// Safekeepers are the calls about safekeepers.
func (c *Client) Safekeepers() Safekeepers { return Safekeepers{c} }

// Cluster are the calls about the controller itself and about its replicas.
func (c *Client) Cluster() Cluster { return Cluster{c} }

// Debug are the calls that look into the controller, and those of tests.
func (c *Client) Debug() Debug { return Debug{c} }

// Upcalls are the calls that pageservers make.
func (c *Client) Upcalls() Upcalls { return Upcalls{c} }

// Close closes the connections that are not in use. Calls under way end with their
// contexts.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// StatusError is an answer other than 2xx.
type StatusError struct {
	Method, Path string
	Status       int    // of HTTP
	Msg          string // the controller's text, or the head of another answer

	// RetryAfter is how long the controller asks to wait before the next try; 0
	// when it does not say.
	RetryAfter time.Duration
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s %s: status %d: %s", e.Method, e.Path, e.Status, e.Msg)
}

// StatusOf is the HTTP status of a StatusError in err's chain. It is 0 for other
// errors and for nil.
func StatusOf(err error) int {
	var s *StatusError
	if errors.As(err, &s) {
		return s.Status
	}
	return 0
}

// caller makes calls: a Client.
type caller interface {
	Call(ctx context.Context, method, path string, in, out any) error
}

// maxAnswer bounds an answer in bytes: a dump of 100,000 shards is 80 MB.
const maxAnswer = 1 << 30

// Call makes a call for which there is no method here. The path begins with a slash
// and has the query. in is the body, encoded as JSON; nil: no body. The answer is
// decoded into out; nil: it is read and not looked at.
func (c *Client) Call(ctx context.Context, method, path string, in, out any) error {
	r := jsonhttp.Request{
		Method: method, Token: c.opts.Token, Limit: maxAnswer, Header: headers(ctx, method),
	}
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		r.Body = json.RawMessage(text)
	}
	for try := 0; ; try++ {
		r.URL = strings.TrimSuffix(c.opts.Address(try), "/") + path
		err := c.try(ctx, path, r, out)
		if err == nil || c.opts.Retry == nil {
			return err
		}
		pause, again := c.opts.Retry(Failure{Tries: try + 1, Err: err})
		if !again {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		}
	}
}

type (
	requestIDKey      struct{}
	idempotencyKeyKey struct{}
)

// WithRequestID has the calls made with a context carry an id of the caller's, by which they
// are found in the logs. Many calls may have the same. Without it every call has its own.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// WithIdempotencyKey names the one call that is made with a context, by 1 to 255 printable
// characters. If the same call is made again under the same key, by whichever client, it is
// answered as done when it was done, whatever has changed since. See the package's words
// about trying again.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, idempotencyKeyKey{}, key)
}

// headers are those of all tries of a call.
func headers(ctx context.Context, method string) http.Header {
	id, ok := ctx.Value(requestIDKey{}).(string)
	if !ok {
		id = newID()
	}
	h := http.Header{"X-Request-Id": {id}}
	if method == http.MethodGet {
		return h
	}
	key, ok := ctx.Value(idempotencyKeyKey{}).(string)
	if !ok {
		key = newID()
	}
	h["Idempotency-Key"] = []string{key}
	return h
}

func newID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

func (c *Client) try(ctx context.Context, path string, r jsonhttp.Request, out any) error {
	if c.opts.TryTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.opts.TryTimeout)
		defer cancel()
	}
	a, err := jsonhttp.Do(ctx, c.http, r)
	switch {
	case err != nil:
		return fmt.Errorf("%s %s: %w", r.Method, path, err)
	case !a.OK():
		return statusError(r.Method, path, &a)
	case out == nil:
		return nil
	}
	if err := a.Decode(out); err != nil {
		return fmt.Errorf("%s %s: answer: %w", r.Method, path, err)
	}
	return nil
}

// longestMsg bounds what an error repeats of an answer that is not the controller's.
const longestMsg = 200

func statusError(method, path string, a *jsonhttp.Answer) *StatusError {
	e := &StatusError{Method: method, Path: path, Status: a.Status}
	if e.Msg, _ = a.Message(); e.Msg == "" {
		e.Msg = string(a.Body[:min(len(a.Body), longestMsg)])
	}
	e.RetryAfter = retryAfter(a.Header)
	return e
}
