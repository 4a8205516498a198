package pageserver

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/jsonhttp"
)

// name is `<id> (<host>)`, as error texts name a pageserver.
func name(node *fsm.Node) string { return node.ID.String() + " (" + node.Addr.HTTPHost + ")" }

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

	// Heartbeats sends the utilization requests. It should keep no connection,
	// because a heartbeat is to prove that the pageserver accepts new ones. Nil means
	// a copy of Transport without keep-alive, or Transport itself if that is not an
	// *http.Transport.
	Heartbeats http.RoundTripper

	// Token returns the bearer token with scope pageserverapi, which may change; empty: none. Nil
	// means that there is none.
	Token    func() string
	UseHTTPS bool

	// Observe is called after every call, by many goroutines at once. It may be nil.
	Observe func(Call)
}

// Client calls pageservers. It is safe for concurrent use.
type Client struct {
	pooled, fresh *http.Client
	opts          Options
}

// idlePerNode is how many connections to one pageserver are kept. The reconciler makes
// almost as many calls to one node, and API requests make a few.
const idlePerNode = 96

// idleTime is how long an unused connection is kept. It is long enough for the calls of
// one piece of work. It must not be longer: a pageserver or safekeeper that is told to
// stop waits, without a bound, for connections that have not carried a request yet. A
// transport has such connections when another one became free while it was dialling.
const idleTime = time.Second

// NewTransport makes a transport for many calls to few hosts. dial and conf may be nil.
// It uses no proxy, and asks for no compression.
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
	if opts.Token == nil {
		opts.Token = func() string { return "" }
	}
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
		pooled: &http.Client{Transport: opts.Transport, CheckRedirect: jsonhttp.StayHere},
		fresh:  &http.Client{Transport: opts.Heartbeats, CheckRedirect: jsonhttp.StayHere},
		opts:   opts,
	}
}

// Close closes the connections that are not in use. Calls under way end with their
// contexts.
func (c *Client) Close() {
	c.pooled.CloseIdleConnections()
	c.fresh.CloseIdleConnections()
}

// Limits of an answer, in bytes. A listing may have 100,000 locations, of some 300 bytes
// each when their configurations are small.
const (
	smallBody   = jsonhttp.DefaultLimit
	listBody    = 64 << 20
	listingBody = 1 << 30
)

// request is one call.
type request struct {
	label   string
	method  string
	path    string // from the leading slash, query included
	body    any    // nil: the JSON null, which pageservers expect
	timeout time.Duration
	limit   int64 // of the answer; 0: smallBody
	fresh   bool  // on a connection of its own
}

// answer is a 2xx answer, read to the end.
type answer struct {
	status int
	body   []byte
}

// do makes the call and reads the answer.
func (c *Client) do(ctx context.Context, node *fsm.Node, r request) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	begin := time.Now()
	a, err := c.exchange(ctx, node, r)
	var s *StatusError
	if errors.As(err, &s) {
		a.status = s.Status
	}
	c.opts.Observe(Call{
		Node: node.ID, Path: r.label, Method: methodLabel(r.method), Status: a.status,
		Duration: time.Since(begin),
	})
	return a, err
}

func (c *Client) exchange(ctx context.Context, node *fsm.Node, r request) (answer, error) {
	u, err := c.url(node, r.path)
	if err != nil {
		return answer{}, err
	}
	client := c.pooled
	if r.fresh {
		client = c.fresh
	}
	if r.body == nil {
		r.body = jsonhttp.Null
	}
	a, err := jsonhttp.Do(ctx, client, jsonhttp.Request{
		Method: r.method, URL: u, Token: c.opts.Token(), Body: r.body, Limit: r.limit,
	})
	if err != nil {
		return answer{}, exchangeError(node, err)
	}
	if !a.OK() {
		return answer{}, statusError(node, &a)
	}
	return answer{status: a.Status, body: a.Body}, nil
}

// url returns the URL of a path on a pageserver. The path may come from a client.
func (c *Client) url(node *fsm.Node, path string) (string, error) {
	u, err := url.ParseRequestURI(path)
	if err != nil || path[0] != '/' {
		return "", neon.Errorf(neon.BadRequest, "pageserver path %q is malformed", path)
	}
	u.Scheme = "http"
	port := int(node.Addr.HTTPPort)
	if c.opts.UseHTTPS {
		u.Scheme, port = "https", int(node.Addr.HTTPSPort)
	}
	if port == 0 {
		return "", &TransportError{
			Node: name(node), Err: fmt.Errorf("it has no %s port", u.Scheme),
		}
	}
	u.Host = net.JoinHostPort(node.Addr.HTTPHost, strconv.Itoa(port))
	return u.String(), nil
}

func statusError(node *fsm.Node, a *jsonhttp.Answer) *StatusError {
	e := &StatusError{Node: name(node), Status: a.Status}
	msg, ok := a.Message()
	if e.Msg, e.NoMsg = msg, !ok; !ok {
		e.Msg = http.StatusText(a.Status)
	}
	return e
}

// exchangeError is the error of an exchange without a whole answer.
func exchangeError(node *fsm.Node, err error) error {
	var e *jsonhttp.Error
	var long *jsonhttp.TooLongError
	switch {
	case errors.As(err, &long):
		return &DecodeError{Node: name(node), Err: long}
	case !errors.As(err, &e):
		return err
	case e.Step == jsonhttp.Prepare:
		return neon.Errorf(neon.BadRequest, "pageserver %s: request %s %q: %w", name(node), e.Method, e.URL,
			e.Err)
	}
	return &TransportError{Node: name(node), Err: e.Err}
}

// into decodes a's body into v.
func (a answer) into(node *fsm.Node, v any) error {
	if err := json.Unmarshal(a.body, v); err != nil {
		return &DecodeError{Node: name(node), Err: err}
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
