package secretfiles

import (
	"bytes"
	"errors"
	"sync/atomic"
)

// Token is a bearer token that can be exchanged at any time.
type Token struct{ text atomic.Pointer[string] }

// Text is the present token.
func (t *Token) Text() string { return *t.text.Load() }

// Take reads a token from a file. What would break a header is refused.
func (t *Token) Take(contents [][]byte) error {
	if len(contents) != 1 {
		return errors.New("a token is one file, not a directory of several")
	}
	text := bytes.TrimSpace(contents[0])
	if len(text) == 0 {
		return errors.New("it is empty")
	}
	for _, c := range text {
		if c <= ' ' || c >= 0x7f {
			return errors.New("it is not one word of plain characters")
		}
	}
	s := string(text)
	t.text.Store(&s)
	return nil
}
