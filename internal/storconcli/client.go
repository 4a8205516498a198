package storconcli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"quorate/internal/jsonhttp"
)

// client calls the controller at one address.
type client struct {
	base  *url.URL
	token string
	http  *http.Client
}

const (
	connectTimeout = 10 * time.Second

	// maxAnswer bounds an answer in bytes. A list of 100,000 tenants has 100 MB.
	maxAnswer = 1 << 30
)

func dialer() *net.Dialer {
	return &net.Dialer{
		Timeout: connectTimeout, KeepAlive: 15 * time.Second,
	}
}

// apiError is an answer other than 2xx.
type apiError struct {
	status int
	msg    string
}

func (e *apiError) Error() string { return e.msg }

// statusOf is the HTTP status in err's chain, or 0.
func statusOf(err error) int {
	var e *apiError
	if errors.As(err, &e) {
		return e.status
	}
	return 0
}

// get gets a path, which is relative to the base URL, and decodes the answer.
func (c *client) get(ctx context.Context, path string, answer any) error {
	return c.call(ctx, exchange{method: http.MethodGet, path: path, answer: answer})
}

// put sends a body, unless it is nil, and does not look at the answer.
func (c *client) put(ctx context.Context, path string, body any) error {
	return c.call(ctx, exchange{method: http.MethodPut, path: path, body: body})
}

// post is put with another method.
func (c *client) post(ctx context.Context, path string, body any) error {
	return c.call(ctx, exchange{method: http.MethodPost, path: path, body: body})
}

func (c *client) delete(ctx context.Context, path string) error {
	return c.call(ctx, exchange{method: http.MethodDelete, path: path})
}

// exchange is a request and the value for its answer. Either may be nil.
type exchange struct {
	method, path string
	body, answer any
}

func (c *client) call(ctx context.Context, x exchange) error {
	target, err := c.base.Parse(x.path)
	if err != nil {
		return err
	}
	a, err := jsonhttp.Do(ctx, c.http, jsonhttp.Request{
		Method: x.method, URL: target.String(), Token: c.token, Body: x.body, Limit: maxAnswer,
	})
	var e *jsonhttp.Error
	switch {
	case a.Status >= http.StatusBadRequest:
		return refusal(&a, target)
	case errors.As(err, &e) && e.Step == jsonhttp.Send:
		return fmt.Errorf("receive body: error sending request for url (%s): %w", target, e.Err)
	case errors.As(err, &e) && e.Step == jsonhttp.Read:
		return fmt.Errorf("receive body: error reading the answer of url (%s): %w", target, e.Err)
	case err != nil:
		return err
	case x.answer == nil:
		return nil
	}
	if err := a.Decode(x.answer); err != nil {
		return fmt.Errorf("receive body: error decoding the answer of url (%s): %w", target, err)
	}
	return nil
}

// refusal is the error of an answer other than 2xx.
func refusal(a *jsonhttp.Answer, target *url.URL) error {
	msg, ok := a.Message()
	if ok {
		msg = "pageserver API: " + msg
	} else {
		msg = fmt.Sprintf("receive error body: Http error (%d) at %s.", a.Status, target)
	}
	return &apiError{status: a.Status, msg: msg}
}
