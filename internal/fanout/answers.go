package fanout

import "errors"

// StatusOf is the HTTP status that a pageserver answered with, 0 when err is no
// such answer.
func StatusOf(err error) int {
	var s interface{ HTTPStatus() int }
	if errors.As(err, &s) {
		return s.HTTPStatus()
	}
	return 0
}

// MessageOf is the text of a pageserver's answer.
func MessageOf(err error) string {
	var m interface{ Message() string }
	if errors.As(err, &m) {
		return m.Message()
	}
	return ""
}
