package pageserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"quorate/api/neon"
)

// ErrUnreachable is in the chain of every error without an answer, unless the caller
// cancelled the call. It says something about the pageserver, or the way to it.
var ErrUnreachable = errors.New("pageserver unreachable")

// StatusError is an answer other than 2xx.
type StatusError struct {
	Node   string // `<id> (<host>)`
	Status int
	Msg    string // the `msg` of the body, or the text of the status

	// NoMsg is set when the body is not the error of a pageserver. Then something
	// else has answered, such as a proxy, and nothing is known about the shard.
	NoMsg bool
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("pageserver %s: %d %s: %s", e.Node, e.Status, http.StatusText(e.Status),
		e.Msg)
}

// HTTPStatus returns the status of the answer. With Message it is for packages that do
// not import this one: they ask errors.As for an interface.
func (e *StatusError) HTTPStatus() int { return e.Status }

// Message returns the text of the answer.
func (e *StatusError) Message() string { return e.Msg }

// As sets a **neon.Error to the error that a client of the controller is to see.
func (e *StatusError) As(target any) bool {
	t, ok := target.(**neon.Error)
	if !ok {
		return false
	}
	status := fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))
	api := &neon.Error{Err: e}
	switch {
	case e.NoMsg:
		api.Code, api.Msg = neon.Unavailable, e.Node+" error receiving error body: Http error ("+status+")"
	case e.Status == http.StatusNotFound:
		api.Code, api.Msg = neon.NotFound, e.Node+": "+e.Msg
	case e.Status == http.StatusServiceUnavailable:
		api.Code, api.Msg = neon.Unavailable, e.Node+": "+e.Msg
	case e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden:
		// The token of the controller was refused, not that of the client.
		api.Code, api.Msg = neon.Internal, e.Node+" "+status+": "+e.Msg
	default:
		api.Code, api.Msg = neon.Conflict, e.Node+" "+status+": "+status+" "+e.Msg
	}
	*t = api
	return true
}

// TransportError is a request without an answer.
type TransportError struct {
	Node string
	Err  error
}

func (e *TransportError) Error() string {
	return fmt.Sprintf("pageserver %s: error sending request: %v", e.Node, e.Err)
}

func (e *TransportError) Unwrap() error { return e.Err }

// Is reports whether target is ErrUnreachable and the context was not cancelled.
func (e *TransportError) Is(target error) bool {
	return target == ErrUnreachable && !errors.Is(e.Err, context.Canceled)
}

// NotSent reports whether no connection came about. Then the pageserver has certainly
// not seen the request.
func (e *TransportError) NotSent() bool {
	var op *net.OpError
	return errors.As(e.Err, &op) && op.Op == "dial"
}

// As sets a **neon.Error to the error that a client of the controller is to see.
func (e *TransportError) As(target any) bool {
	t, ok := target.(**neon.Error)
	if !ok {
		return false
	}
	code := neon.Unavailable
	switch {
	case errors.Is(e.Err, context.Canceled):
		code = neon.ShuttingDown
	case errors.Is(e.Err, context.DeadlineExceeded):
		code = neon.Timeout
	}
	*t = &neon.Error{Code: code, Msg: e.Node + " error sending request: " + e.Err.Error(), Err: e}
	return true
}

// DecodeError is a 2xx answer that cannot be understood. The call was carried out.
type DecodeError struct {
	Node string
	Err  error
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("pageserver %s: error decoding body: %v", e.Node, e.Err)
}

func (e *DecodeError) Unwrap() error { return e.Err }

// As sets a **neon.Error to the error that a client of the controller is to see.
func (e *DecodeError) As(target any) bool {
	t, ok := target.(**neon.Error)
	if ok {
		*t = &neon.Error{Code: neon.Internal, Msg: "error decoding body: " + e.Err.Error(), Err: e}
	}
	return ok
}
