package neon

import (
	"context"
	"errors"
	"fmt"
)

// Code is the machine-readable class of an Error. Package api maps it to an HTTP
// status, in one table.
type Code string

// The classes. Pageservers and existing clients know all of them but OutcomeUnknown.
const (
	BadRequest         Code = "bad_request"
	Unauthorized       Code = "unauthorized"
	Forbidden          Code = "forbidden"
	NotFound           Code = "not_found"
	Timeout            Code = "timeout"
	Conflict           Code = "conflict"
	PreconditionFailed Code = "precondition_failed"
	TooManyRequests    Code = "too_many_requests"
	Internal           Code = "internal"
	Cancelled          Code = "cancelled"
	Unavailable        Code = "unavailable"
	ShuttingDown       Code = "shutting_down"
	NotLeader          Code = "not_leader"
	OutcomeUnknown     Code = "outcome_unknown" // the write may have happened
)

// Error is an error with a class. Clients see Msg. Err is the cause, which errors.Is and
// errors.As find; it may be nil. Reason says more than Code to programs, in a word, where
// a class has errors that call for different things to do; else it is empty.
type Error struct {
	Code   Code
	Msg    string
	Err    error
	Reason string
}

// Errorf makes an Error. A %w verb in format makes the cause reachable.
func Errorf(code Code, format string, args ...any) *Error {
	wrapped := fmt.Errorf(format, args...)
	return &Error{Code: code, Msg: wrapped.Error(), Err: errors.Unwrap(wrapped)}
}

func (e *Error) Error() string { return e.Msg }

func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is an Error of the same class without a message of
// its own, so that errors.Is(err, &Error{Code: NotFound}) asks for the class.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Msg == "" && t.Err == nil
}

// Classify returns the class of any error. Without an Error in the chain, a context that
// ended is Timeout or Cancelled, and everything else is Internal.
func Classify(err error) Code {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	case errors.Is(err, context.Canceled):
		return Cancelled
	}
	return Internal
}

// CodeOf returns the class of the first Error in err's chain, or Internal.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}
