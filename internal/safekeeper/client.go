package safekeeper

import (
	"context"
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

// name is `<id> (<host>)`, as error texts name a safekeeper.
func name(sk *fsm.Safekeeper) string { return sk.ID.String() + " (" + sk.Host + ")" }

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
	// Transport sends all requests but heartbeats, and Heartbeats sends these.
	// Heartbeats should keep no connection, because a heartbeat is to prove that the
	// safekeeper accepts new ones. Neither may be nil.
	Transport, Heartbeats http.RoundTripper

	// Token returns the bearer token with scope safekeeperdata, which may change; empty: none. Nil
	// means that there is none.
	Token    func() string
	UseHTTPS bool

	// Observe is called after every call, by many goroutines at once. It may be nil.
	Observe func(Call)
}

// Client calls safekeepers. It is safe for concurrent use.
type Client struct {
	pooled, fresh *http.Client
	opts          Options
}

// New makes a Client.
func New(opts Options) *Client {
	if opts.Token == nil {
		opts.Token = func() string { return "" }
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

// BaseURL returns the URL at which other safekeepers reach this one.
func (c *Client) BaseURL(sk *fsm.Safekeeper) string {
	u := c.url(sk)
	return u.String()
}

func (c *Client) url(sk *fsm.Safekeeper) url.URL {
	scheme, port := "http", sk.HTTPPort
	if c.opts.UseHTTPS {
		scheme, port = "https", sk.HTTPSPort
	}
	return url.URL{Scheme: scheme, Host: net.JoinHostPort(sk.Host, strconv.Itoa(int(port)))}
}

// maxAnswer bounds an answer in bytes. The answer to the deletion of a tenant lists its
// timelines.
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

// do makes the call and decodes the answer into the value that into points to, unless
// that is nil.
func (c *Client) do(ctx context.Context, sk *fsm.Safekeeper, r request, into any) error {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	begin := time.Now()
	a, err := c.exchange(ctx, sk, r)
	c.opts.Observe(Call{
		Node: sk.ID, Path: r.label, Method: r.method, Status: a.Status, Duration: time.Since(begin),
	})
	switch {
	case err != nil:
		return err
	case !a.OK():
		return statusError(sk, &a)
	case into == nil:
		return nil
	}
	if err := a.Decode(into); err != nil {
		return fmt.Errorf("safekeeper %s: error decoding body: %w", name(sk), err)
	}
	return nil
}

// exchange sends the request. The answer is empty after an error.
func (c *Client) exchange(
	ctx context.Context, sk *fsm.Safekeeper, r request,
) (jsonhttp.Answer, error) {
	u := c.url(sk)
	if sk.HTTPSPort == 0 && c.opts.UseHTTPS {
		return jsonhttp.Answer{}, &TransportError{
			Node: name(sk), Err: errors.New("it has no https port"),
		}
	}
	u.Path = r.path
	client := c.pooled
	if r.fresh {
		client = c.fresh
	}
	a, err := jsonhttp.Do(ctx, client, jsonhttp.Request{
		Method: r.method, URL: u.String(), Token: c.opts.Token(), Body: r.body, Limit: maxAnswer,
	})
	var e *jsonhttp.Error
	switch {
	case err == nil:
		return a, nil
	case errors.As(err, &e) && e.Step != jsonhttp.Prepare:
		err = &TransportError{Node: name(sk), Err: e.Err}
	default:
		err = fmt.Errorf("safekeeper %s: %s: %w", name(sk), r.label, err)
	}
	return jsonhttp.Answer{}, err
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

// HTTPStatus returns the status of the answer. It is for packages that do not import
// this one: they ask errors.As for an interface.
func (e *StatusError) HTTPStatus() int { return e.Status }

func statusError(sk *fsm.Safekeeper, a *jsonhttp.Answer) *StatusError {
	e := &StatusError{Node: name(sk), Status: a.Status, Msg: http.StatusText(a.Status)}
	if msg, ok := a.Message(); ok {
		e.Msg = msg
	}
	return e
}

// TransportError is a request without a whole answer.
type TransportError struct {
	Node string
	Err  error
}

func (e *TransportError) Error() string {
	return fmt.Sprintf("safekeeper %s: error sending request: %v", e.Node, e.Err)
}

func (e *TransportError) Unwrap() error { return e.Err }
