// Package jsonhttp makes one HTTP exchange: a request whose body is JSON, and its
// answer, read to the end.
//
// An answer that broke off, or that is longer than its limit, is an error. It is
// never taken for a whole one, whatever its status says.
//
// The package knows no protocol. It does not try again, it does not set a time
// limit, and it does not say which status is a failure: its callers do.
package jsonhttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// DefaultLimit is the limit of an answer in bytes, unless the request sets another.
// The text of a refusal is never read further than this.
const DefaultLimit = 1 << 20

// Request is one request.
type Request struct {
	Method string
	URL    string
	Token  string      // bearer token; empty: none
	Header http.Header // more headers; may be nil
	Body   any         // encoded as JSON; nil: no body
	Limit  int64       // of a 2xx answer, in bytes; 0: DefaultLimit
}

// Null is the body of a request that consists of JSON's null.
var Null = json.RawMessage("null")

// Answer is an answer of any status.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Doer sends requests; *http.Client is one.
type Doer interface {
	Do(*http.Request) (*http.Response, error)
}

// StayHere is for the CheckRedirect of an http.Client that follows no redirect: the
// token must not leave, and a method must not change.
func StayHere(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Do sends the request and reads the answer. Every error is an *Error. After one at
// Read, the answer has the status and what came of the body.
func Do(ctx context.Context, via Doer, r Request) (Answer, error) {
	resp, err := Open(ctx, via, r)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	a := Answer{Status: resp.StatusCode, Header: resp.Header}
	limit := r.Limit
	if limit == 0 || !a.OK() {
		limit = DefaultLimit
	}
	if a.Body, err = read(resp, limit); err != nil {
		e := failure(ctx, &r, Read, err)
		e.Status = a.Status
		return a, e
	}
	if int64(len(a.Body)) <= limit {
		return a, nil
	}
	a.Body = a.Body[:limit]
	if !a.OK() {
		return a, nil // the status says enough
	}
	e := failure(ctx, &r, Read, &TooLongError{Limit: limit})
	e.Status = a.Status
	return a, e
}

// Open sends the request and returns the answer before its body is read, for
// answers that are passed on or saved. The caller closes the body.
func Open(ctx context.Context, via Doer, r Request) (*http.Response, error) {
	var body io.Reader
	if r.Body != nil {
		text, err := json.Marshal(r.Body)
		if err != nil {
			return nil, failure(ctx, &r, Prepare, err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, r.URL, body)
	if err != nil {
		return nil, failure(ctx, &r, Prepare, err)
	}
	for name, values := range r.Header {
		req.Header[name] = values
	}
	if r.Body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.Token != "" {
		req.Header.Set("Authorization", "Bearer "+r.Token)
	}
	resp, err := via.Do(req)
	if err != nil {
		return nil, failure(ctx, &r, Send, err)
	}
	return resp, nil
}

// read reads the body, or one byte more than the limit.
func read(resp *http.Response, limit int64) ([]byte, error) {
	var buf bytes.Buffer
	if n := resp.ContentLength; n > 0 {
		buf.Grow(int(min(n, limit)) + bytes.MinRead)
	}
	_, err := buf.ReadFrom(io.LimitReader(resp.Body, limit+1))
	return buf.Bytes(), err
}

// OK reports whether the status is 2xx.
func (a *Answer) OK() bool { return a.Status/100 == 2 }

// Decode decodes the whole body, which must be one JSON value.
func (a *Answer) Decode(into any) error { return json.Unmarshal(a.Body, into) }

// Message is the msg of a body {"msg":"…"}, the form in which pageservers,
// safekeepers and controllers refuse. ok is false when the body has another form:
// then something else has answered, such as a proxy.
func (a *Answer) Message() (msg string, ok bool) {
	var v struct {
		Msg *string `json:"msg"`
	}
	if json.Unmarshal(a.Body, &v) != nil || v.Msg == nil {
		return "", false
	}
	return *v.Msg, true
}

// Step is a part of the exchange.
type Step uint8

// The steps, and what is known when one of them fails.
const (
	Prepare Step = iota + 1 // nothing was sent
	Send                    // no answer came; the request may have been carried out
	Read                    // the answer broke off, or was too long
)

// Error is an exchange that did not bring a whole answer.
type Error struct {
	Step        Step
	Method, URL string
	Status      int   // of the answer that broke off; 0 at another step
	Err         error // the reason; it does not repeat the URL
}

func (e *Error) Error() string {
	doing := ""
	if e.Step == Read {
		doing = "reading the answer: "
	}
	return fmt.Sprintf("%s %q: %s%v", e.Method, e.URL, doing, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// TooLongError is an answer that is longer than its limit.
type TooLongError struct{ Limit int64 }

func (e *TooLongError) Error() string { return fmt.Sprintf("more than %d bytes", e.Limit) }

// failure drops the URL that net/http puts around an error. It adds the reason why
// the context ended, which net/http does not always name.
func failure(ctx context.Context, r *Request, at Step, err error) *Error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err
	}
	if reason := ctx.Err(); reason != nil && !errors.Is(err, reason) {
		err = fmt.Errorf("%w: %w", reason, err)
	}
	return &Error{Step: at, Method: r.Method, URL: r.URL, Err: err}
}
