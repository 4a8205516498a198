package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"quorate/api/neon"
)

// rule says how one class of errors looks on the wire.
type rule struct {
	status int
	prefix string // stands before the message
	fixed  string // replaces the message
	quoted bool   // the message is printed as a quoted and escaped string
	retry  bool   // the client is told when to try again
}

// rules is the only table from classes of errors to statuses. Existing clients match the
// texts.
var rules = map[neon.Code]rule{
	neon.BadRequest:   {status: http.StatusBadRequest, quoted: true},
	neon.Unauthorized: {status: http.StatusUnauthorized, prefix: "Unauthorized: "},
	neon.Forbidden:    {status: http.StatusForbidden, prefix: "Forbidden: "},
	neon.NotFound:     {status: http.StatusNotFound, prefix: "NotFound: "},
	neon.Timeout:      {status: http.StatusRequestTimeout},
	neon.Conflict:     {status: http.StatusConflict, prefix: "Conflict: "},
	neon.PreconditionFailed: {
		status: http.StatusPreconditionFailed, prefix: "Precondition failed: ",
	},
	neon.TooManyRequests: {status: http.StatusTooManyRequests},
	neon.Internal:        {status: http.StatusInternalServerError},
	neon.Cancelled:       {status: http.StatusInternalServerError, fixed: "Request cancelled"},
	neon.Unavailable:     {status: http.StatusServiceUnavailable},
	neon.ShuttingDown:    {status: http.StatusServiceUnavailable, fixed: "Shutting down"},
	neon.NotLeader:       {status: http.StatusServiceUnavailable, retry: true},
	neon.OutcomeUnknown: {
		status: http.StatusServiceUnavailable, prefix: "Outcome unknown: ", retry: true,
	},
}

// retryAfter is the value of the Retry-After header, in seconds.
const retryAfter = 1

// errorAnswer prints an error as clients expect it: the message of the first neon.Error
// in it. An error of a pageserver has another message there than its own text.
func errorAnswer(err error) answer {
	r, ok := rules[neon.Classify(err)]
	if !ok {
		r = rules[neon.Internal]
	}
	msg, reason := err.Error(), ""
	var e *neon.Error
	if errors.As(err, &e) {
		msg, reason = e.Msg, e.Reason
	}
	switch {
	case r.fixed != "":
		msg = r.fixed
	case r.quoted:
		msg = quoteDebug(msg)
	}
	a := answer{status: r.status, body: codedBody(r.prefix+msg, reason)}
	if r.retry {
		a.header = retryHeader()
	}
	return a
}

func retryHeader() http.Header { return http.Header{"Retry-After": {strconv.Itoa(retryAfter)}} }

func errorBody(msg string) []byte { return codedBody(msg, "") }

// codedBody has a code for programs too, where there is one.
func codedBody(msg, reason string) []byte {
	b, err := json.Marshal(struct {
		Msg    string `json:"msg"`
		Reason string `json:"code,omitempty"`
	}{msg, reason})
	if err != nil {
		panic(err) // a string always encodes
	}
	return b
}
