package safekeeper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"quorate/api/neon"
)

// Addr is where a safekeeper is reached.
type Addr struct {
	ID        neon.NodeID
	Host      string
	HTTPPort  int
	HTTPSPort int // 0: none
}

// String prints `<id> (<host>)`, as error texts name a safekeeper.
func (a Addr) String() string { return a.ID.String() + " (" + a.Host + ")" }

// Call is one finished call, for metrics.
type Call struct {
	Node     neon.NodeID
	Path     string // label such as create_timeline
	Method   string // of HTTP
	Status   int    // 0 without an answer
	Duration time.Duration
}

// Options are the settings of a Client.
type Options struct {
	// Transport sends all requests but heartbeats, which go through Heartbeats: they
	// are to prove that a safekeeper accepts connections, so that it should keep
	// none. Neither may be nil.
	Transport, Heartbeats http.RoundTripper

	Token    string // bearer token with scope safekeeperdata; empty: none
	UseHTTPS bool

	// Observe is called after every call, possibly by many goroutines at once; nil:
	// nobody is told.
	Observe func(Call)
}

// Client calls safekeepers. It is safe for concurrent use.
type Client struct {
	pooled, fresh *http.Client
	opts          Options
}

// New makes a Client.
func New(opts Options) *Client {
	if opts.Observe == nil {
		opts.Observe = func(Call) {}
	}
	// A safekeeper does not redirect, and the token must not leave.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{
		pooled: &http.Client{Transport: opts.Transport, CheckRedirect: stay},
		fresh:  &http.Client{Transport: opts.Heartbeats, CheckRedirect: stay},
		opts:   opts,
	}
}

// BaseURL is how other safekeepers are told to reach this one.
func (c *Client) BaseURL(to Addr) string {
	u := c.url(to)
	return u.String()
}

func (c *Client) url(to Addr) url.URL {
	scheme, port := "http", to.HTTPPort
	if c.opts.UseHTTPS {
		scheme, port = "https", to.HTTPSPort
	}
	return url.URL{Scheme: scheme, Host: net.JoinHostPort(to.Host, strconv.Itoa(port))}
}

// maxAnswer bounds an answer, in bytes: a tenant's deletion lists its timelines.
const maxAnswer = 16 << 20

// request is one call.
type request struct {
	label   string
	method  string
	path    string // from the leading slash
	body    any    // nil sends none
	timeout time.Duration
	fresh   bool // on a connection of its own
}

// do makes the call and decodes the answer into the value, unless that is nil.
func (c *Client) do(ctx context.Context, to Addr, r request, into any) error {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	begin := time.Now()
	status, body, err := c.exchange(ctx, to, r)
	c.opts.Observe(Call{
		Node: to.ID, Path: r.label, Method: r.method, Status: status, Duration: time.Since(begin),
	})
	switch {
	case err != nil:
		return err
	case status/100 != 2:
		return statusError(to, status, body)
	case into == nil:
		return nil
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("safekeeper %s: error decoding body: %w", to, err)
	}
	return nil
}

func (c *Client) exchange(
	ctx context.Context, to Addr, r request,
) (status int, body []byte, err error) {
	u := c.url(to)
	if to.HTTPSPort == 0 && c.opts.UseHTTPS {
		return 0, nil, &TransportError{Node: to.String(), Err: errors.New("it has no https port")}
	}
	u.Path = r.path
	var text io.Reader
	if r.body != nil {
		b, err := json.Marshal(r.body)
		if err != nil {
			return 0, nil, fmt.Errorf("safekeeper %s: encode %s: %w", to, r.label, err)
		}
		text = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), text)
	if err != nil {
		return 0, nil, fmt.Errorf("safekeeper %s: %w", to, err)
	}
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.opts.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.opts.Token)
	}
	client := c.pooled
	if r.fresh {
		client = c.fresh
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, transportError(ctx, to, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return 0, nil, transportError(ctx, to, err)
	}
	return resp.StatusCode, body, nil
}

// StatusError is an answer other than 2xx.
type StatusError struct {
	Node   string // `<id> (<host>)`
	Status int
	Msg    string // the `msg` of the body, or the text of the status
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("safekeeper %s: %d %s: %s", e.Node, e.Status, http.StatusText(e.Status),
		e.Msg)
}

// HTTPStatus is the status of the answer. It serves consumers that do not import
// this package: they ask errors.As for an interface.
func (e *StatusError) HTTPStatus() int { return e.Status }

func statusError(to Addr, status int, body []byte) *StatusError {
	var v struct {
		Msg *string `json:"msg"`
	}
	e := &StatusError{Node: to.String(), Status: status, Msg: http.StatusText(status)}
	if json.Unmarshal(body, &v) == nil && v.Msg != nil {
		e.Msg = *v.Msg
	}
	return e
}

// TransportError is a request without an answer.
type TransportError struct {
	Node string
	Err  error
}

func (e *TransportError) Error() string {
	return fmt.Sprintf("safekeeper %s: error sending request: %v", e.Node, e.Err)
}

func (e *TransportError) Unwrap() error { return e.Err }

// transportError drops the URL that net/http puts around an error, and names the
// context's reason, which net/http does not always.
func transportError(ctx context.Context, to Addr, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if cause := ctx.Err(); cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return &TransportError{Node: to.String(), Err: err}
}
