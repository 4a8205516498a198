package neon

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"
)

// DecodeBody reads the JSON value of a request body into into. What follows the
// first value is ignored, as the existing controller ignores it. An empty body, a
// malformed one and one of more than limit bytes are BadRequest; an error of the
// transport is Unavailable.
func DecodeBody(r io.Reader, limit int64, into any) error {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return Errorf(Unavailable, "Failed to read request body: %w", err)
	}
	if int64(len(b)) > limit {
		return Errorf(BadRequest, "request body is larger than %d bytes", limit)
	}
	if len(b) == 0 {
		return Errorf(BadRequest, "missing request body")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(into); err != nil {
		if errors.Is(err, io.EOF) {
			return Errorf(BadRequest, "missing request body")
		}
		return Errorf(BadRequest, "Failed to parse json request: %w", err)
	}
	if !utf8.Valid(b[:d.InputOffset()]) { // encoding/json would mend it in silence
		return Errorf(BadRequest, "Failed to parse json request: invalid unicode code point")
	}
	return nil
}
