package simpageserver

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// failure is a refusal: an HTTP status and the text of its {"msg": …} body.
type failure struct {
	status int
	msg    string
}

func fail(status int, msg string) *failure { return &failure{status, msg} }

func failf(status int, format string, args ...any) *failure {
	return &failure{status, fmt.Sprintf(format, args...)}
}

// reply is an answer not yet sent. abort means that no answer is sent and the
// connection is reset.
type reply struct {
	status int
	body   []byte
	abort  bool
}

var (
	jsonNull = []byte("null")
	aborted  = reply{abort: true}
)

func ok(body []byte) reply { return reply{status: http.StatusOK, body: body} }

func (f *failure) reply() reply {
	body, err := json.Marshal(struct {
		Msg string `json:"msg"`
	}{f.msg})
	if err != nil {
		panic(err) // a struct of one string always encodes
	}
	return reply{status: f.status, body: body}
}

func answer(status int, v any) reply {
	body, err := json.Marshal(v)
	if err != nil {
		return failf(http.StatusInternalServerError, "encode answer: %v", err).reply()
	}
	return reply{status: status, body: body}
}
