package pageserver

import (
	"bytes"
	"context"
	"crypto/tls"
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

// Addr is where a pageserver is reached.
type Addr struct {
	ID        neon.NodeID
	HTTPHost  string
	HTTPPort  int
	HTTPSPort int // 0: none
}

// String prints `<id> (<host>)`, as error texts name a pageserver.
func (a Addr) String() string { return a.ID.String() + " (" + a.HTTPHost + ")" }

// Call is one finished call, for metrics.
type Call struct {
	Node        neon.NodeID
	Path        string // label such as location_config, without ids
	Method      string // get, put, post, delete, other
	Status      int    // 0 without an answer
	Duration    time.Duration
	Passthrough bool // Path and Method follow the passthrough metrics' own rules
}

// Options are the settings of a Client.
type Options struct {
	// Transport sends all requests but heartbeats. Nil means NewTransport(nil, nil).
	Transport http.RoundTripper

	// Heartbeats sends the utilization requests. They are to prove that a
	// pageserver accepts connections, so that it should keep none. Nil means a
	// copy of Transport without keep-alive, or Transport itself if it is no
	// *http.Transport.
	Heartbeats http.RoundTripper

	Token    string // bearer token with scope pageserverapi; empty: none
	UseHTTPS bool

	// Observe is called after every call, possibly by many goroutines at once.
	Observe func(Call)
}

// Client calls pageservers. It is safe for concurrent use.
type Client struct {
	pooled, fresh *http.Client
	opts          Options
}

// idlePerNode is how many connections to one pageserver are kept: as many as the
// reconciler's calls to one node, and a few for API requests.
const idlePerNode = 96

// idleTime is how long an unused connection is kept: long enough for the calls of
// one piece of work, and no longer. A pageserver or safekeeper that is told to stop
// waits for connections which have not carried a request yet, without a bound, and a
// transport dials such connections whenever another one becomes free meanwhile.
const idleTime = time.Second

// NewTransport makes a transport for many calls to few hosts. dial and conf may be
// nil. No proxy is used and no answer is compressed.
func NewTransport(
	dial func(ctx context.Context, network, address string) (net.Conn, error), conf *tls.Config,
) *http.Transport {
	return &http.Transport{
		DialContext:         dial,
		TLSClientConfig:     conf,
		MaxIdleConnsPerHost: idlePerNode,
		IdleConnTimeout:     idleTime,
		DisableCompression:  true,
	}
}

// New makes a Client.
func New(opts Options) *Client {
	if opts.Transport == nil {
		opts.Transport = NewTransport(nil, nil)
	}
	if opts.Heartbeats == nil {
		opts.Heartbeats = opts.Transport
		if t, ok := opts.Transport.(*http.Transport); ok {
			t = t.Clone()
			t.DisableKeepAlives = true
			opts.Heartbeats = t
		}
	}
	if opts.Observe == nil {
		opts.Observe = func(Call) {}
	}
	return &Client{
		pooled: &http.Client{Transport: opts.Transport, CheckRedirect: noRedirect},
		fresh:  &http.Client{Transport: opts.Heartbeats, CheckRedirect: noRedirect},
		opts:   opts,
	}
}

// Close closes the idle connections. Calls under way are ended by their contexts.
func (c *Client) Close() {
	c.pooled.CloseIdleConnections()
	c.fresh.CloseIdleConnections()
}

// noRedirect: a pageserver does not redirect, and the token must not leave.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Bounds of an answer's size in bytes. A listing has some 300 bytes per location
// with a small configuration and may have 100,000 of them.
const (
	smallBody   = 1 << 20
	listBody    = 64 << 20
	listingBody = 1 << 30
)

// request is one call.
type request struct {
	label   string
	method  string
	path    string // from the leading slash, query included
	body    any    // nil sends the JSON null, which pageservers expect
	timeout time.Duration
	limit   int64 // of the answer; 0 means smallBody
	fresh   bool  // on a connection of its own
}

// answer is a 2xx answer, read in full.
type answer struct {
	status int
	body   []byte
}

// do makes the call and reads the answer.
func (c *Client) do(ctx context.Context, to Addr, r request) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	begin := time.Now()
	a, err := c.exchange(ctx, to, r)
	var s *StatusError
	if errors.As(err, &s) {
		a.status = s.Status
	}
	c.opts.Observe(Call{
		Node: to.ID, Path: r.label, Method: methodLabel(r.method), Status: a.status,
		Duration: time.Since(begin),
	})
	return a, err
}

func (c *Client) exchange(ctx context.Context, to Addr, r request) (answer, error) {
	body, err := json.Marshal(r.body)
	if err != nil {
		return answer{}, fmt.Errorf("pageserver %s: encode %s: %w", to, r.label, err)
	}
	req, err := c.newRequest(ctx, to, r.method, r.path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	client := c.pooled
	if r.fresh {
		client = c.fresh
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, transportError(ctx, to, err)
	}
	defer func() { _ = resp.Body.Close() }()
	limit := r.limit
	if limit == 0 || resp.StatusCode/100 != 2 {
		limit = smallBody
	}
	a := answer{status: resp.StatusCode}
	var tooLarge bool
	if a.body, tooLarge, err = readBody(resp, limit); err != nil {
		return answer{}, transportError(ctx, to, err)
	}
	if resp.StatusCode/100 != 2 {
		return answer{}, statusError(to, resp.StatusCode, a.body)
	}
	if tooLarge {
		return answer{}, &DecodeError{
			Node: to.String(), Err: fmt.Errorf("more than %d bytes", limit),
		}
	}
	return a, nil
}

func (c *Client) newRequest(
	ctx context.Context, to Addr, method, path string, body io.Reader,
) (*http.Request, error) {
	u, err := url.ParseRequestURI(path)
	if err != nil || path[0] != '/' {
		return nil, neon.Errorf(neon.BadRequest, "pageserver path %q is malformed", path)
	}
	u.Scheme = "http"
	port := to.HTTPPort
	if c.opts.UseHTTPS {
		u.Scheme, port = "https", to.HTTPSPort
	}
	if port == 0 {
		return nil, &TransportError{
			Node: to.String(), Err: fmt.Errorf("it has no %s port", u.Scheme),
		}
	}
	u.Host = net.JoinHostPort(to.HTTPHost, strconv.Itoa(port))
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, neon.Errorf(neon.BadRequest, "pageserver request %s %q: %w", method, path, err)
	}
	if c.opts.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.opts.Token)
	}
	return req, nil
}

// readBody reads at most limit bytes and tells whether there were more.
func readBody(resp *http.Response, limit int64) (body []byte, tooLarge bool, err error) {
	var buf bytes.Buffer
	if n := resp.ContentLength; n > 0 {
		buf.Grow(int(min(n, limit)) + bytes.MinRead)
	}
	n, err := buf.ReadFrom(io.LimitReader(resp.Body, limit+1))
	return buf.Bytes(), n > limit, err
}

func statusError(to Addr, status int, body []byte) *StatusError {
	var v struct {
		Msg *string `json:"msg"`
	}
	if json.Unmarshal(body, &v) != nil || v.Msg == nil {
		return &StatusError{
			Node: to.String(), Status: status, Msg: http.StatusText(status), NoMsg: true,
		}
	}
	return &StatusError{Node: to.String(), Status: status, Msg: *v.Msg}
}

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

// into decodes a's body into v.
func (a answer) into(to Addr, v any) error {
	if err := json.Unmarshal(a.body, v); err != nil {
		return &DecodeError{Node: to.String(), Err: err}
	}
	return nil
}

func methodLabel(method string) string {
	switch method {
	case http.MethodGet:
		return "get"
	case http.MethodPut:
		return "put"
	case http.MethodPost:
		return "post"
	case http.MethodDelete:
		return "delete"
	}
	return "other"
}
