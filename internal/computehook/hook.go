// Package computehook tells the control plane where the shards of a tenant are
// attached, so that it can reconfigure the tenant's compute.
//
// One call is one attempt. What is owed, in which order and how often to try is
// recorded and decided elsewhere, from the Outcome.
package computehook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"quorate/api/neon"
	"quorate/internal/jsonhttp"
)

// attemptTimeout bounds one attempt.
const attemptTimeout = 10 * time.Second

// longestDetail bounds what an error repeats of an answer, in bytes.
const longestDetail = 4096

// Kind says what an attempt came to.
type Kind uint8

// The kinds of outcome.
const (
	Applied    Kind = iota // compute was told
	Busy                   // 423: recorded by the control plane, to be applied by it later
	SlowDown               // 429: try again in SlowDownDelay
	Retryable              // no whole answer, 502 to 504: try again, unless the context ended
	Fatal                  // 400, 401, 403: the same attempt cannot succeed
	Unexpected             // any other status: do not try again at once
)

// SlowDownDelay is how long to wait after a SlowDown.
const SlowDownDelay = 5 * time.Second

var kindNames = [...]string{"applied", "busy", "slow down", "retryable", "fatal", "unexpected"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Outcome is what an attempt came to. Status is 0 without an answer. Err is nil
// exactly when Kind is Applied.
type Outcome struct {
	Kind   Kind
	Status int
	Err    error
}

// Options are the settings of a Client.
type Options struct {
	BaseURL   string            // of the control plane; paths are appended
	Token     func() string     // the bearer token, which may change; empty or nil: none
	Transport http.RoundTripper // nil: a new one with connections kept
}

// Client calls one control plane. It is safe for concurrent use.
type Client struct {
	base  string
	token func() string
	http  *http.Client
}

// idleConns is how many connections are kept: one per notification in flight.
const idleConns = 32

// New makes a Client.
func New(opts Options) *Client {
	if opts.Transport == nil {
		opts.Transport = &http.Transport{
			MaxIdleConnsPerHost: idleConns, IdleConnTimeout: 90 * time.Second,
		}
	}
	if opts.Token == nil {
		opts.Token = func() string { return "" }
	}
	return &Client{
		base:  strings.TrimSuffix(opts.BaseURL, "/"),
		token: opts.Token,
		http:  &http.Client{Transport: opts.Transport, CheckRedirect: jsonhttp.StayHere},
	}
}

// Close closes the idle connections. Attempts under way are ended by their contexts.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// NotifyAttach makes one attempt to tell where the shards of a tenant are.
func (c *Client) NotifyAttach(ctx context.Context, body neon.NotifyAttach) Outcome {
	return c.put(ctx, "/notify-attach", body)
}

// NotifySafekeepers makes one attempt to tell on which safekeepers a timeline is.
func (c *Client) NotifySafekeepers(ctx context.Context, body neon.NotifySafekeepers) Outcome {
	return c.put(ctx, "/notify-safekeepers", body)
}

// ImportComplete makes one attempt to tell how the import of a timeline ended.
func (c *Client) ImportComplete(ctx context.Context, body neon.ImportComplete) Outcome {
	return c.put(ctx, "/import_complete", body)
}

func (c *Client) put(ctx context.Context, path string, body any) Outcome {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	a, err := jsonhttp.Do(ctx, c.http, jsonhttp.Request{
		Method: http.MethodPut, URL: c.base + path, Token: c.token(), Body: body,
	})
	var e *jsonhttp.Error
	switch {
	case err == nil || a.Status != 0 && !a.OK():
		// The status alone decides.
		detail := a.Body[:min(len(a.Body), longestDetail)]
		return outcomeOf(a.Status, strings.TrimSpace(string(detail)))
	case errors.As(err, &e) && e.Step == jsonhttp.Prepare:
		return Outcome{Kind: Fatal, Err: fmt.Errorf("compute hook: %w", err)}
	}
	return Outcome{Kind: Retryable, Err: fmt.Errorf("compute hook: %w", err)}
}

// busyError prints as the existing controller's, which shows in last_error.
type busyError struct{}

func (busyError) Error() string { return "Control plane tenant busy" }

func outcomeOf(status int, detail string) Outcome {
	o := Outcome{Status: status}
	switch {
	case status/100 == 2:
		return o
	case status == http.StatusLocked:
		o.Kind, o.Err = Busy, busyError{}
		return o
	case status == http.StatusTooManyRequests:
		o.Kind = SlowDown
	case status == http.StatusBadGateway || status == http.StatusServiceUnavailable ||
		status == http.StatusGatewayTimeout:
		o.Kind = Retryable
	case status == http.StatusBadRequest || status == http.StatusUnauthorized ||
		status == http.StatusForbidden:
		o.Kind = Fatal
	default:
		o.Kind = Unexpected
	}
	o.Err = fmt.Errorf("compute hook: %d %s: %s", status, http.StatusText(status), detail)
	return o
}
