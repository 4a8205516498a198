package storconcli

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
	"time"
)

// client talks to one address of the controller.
type client struct {
	base  *url.URL
	token string
	http  *http.Client
}

const (
	connectTimeout = 10 * time.Second

	// maxAnswer bounds what is read: 100,000 tenants are listed in 100 MB.
	maxAnswer = 1 << 30
)

func dialer() *net.Dialer {
	return &net.Dialer{
		Timeout: connectTimeout, KeepAlive: 15 * time.Second,
	}
}

// apiError is an answer that says no.
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

// get asks for path, which is relative to the base URL, and decodes the answer.
func (c *client) get(ctx context.Context, path string, answer any) error {
	return c.call(ctx, exchange{method: http.MethodGet, path: path, answer: answer})
}

// put sends a body, unless it is nil, to a path whose answer says nothing.
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

// exchange is one request and where its answer goes; nil body and answer are none.
type exchange struct {
	method, path string
	body, answer any
}

func (c *client) call(ctx context.Context, x exchange) error {
	target, err := c.base.Parse(x.path)
	if err != nil {
		return err
	}
	var body io.Reader
	if x.body != nil {
		text, err := json.Marshal(x.body)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, x.method, target.String(), body)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("receive body: error sending request for url (%s): %w", target,
			cause(err))
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("receive body: error reading the answer of url (%s): %w", target, err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return refusal(resp.StatusCode, target, text)
	}
	if x.answer == nil {
		return nil
	}
	if err := json.Unmarshal(text, x.answer); err != nil {
		return fmt.Errorf("receive body: error decoding the answer of url (%s): %w", target, err)
	}
	return nil
}

// cause takes away the method and the URL, which the caller names already.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// refusal reads the {"msg":…} of a refused request.
func refusal(status int, target *url.URL, text []byte) error {
	var said struct {
		Msg *string `json:"msg"`
	}
	if json.Unmarshal(text, &said) != nil || said.Msg == nil {
		return &apiError{
			status: status,
			msg:    fmt.Sprintf("receive error body: Http error (%d) at %s.", status, target),
		}
	}
	return &apiError{status: status, msg: "pageserver API: " + *said.Msg}
}
