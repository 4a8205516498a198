package neon

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// DecodeBody decodes the JSON value of a request body into the value that into points
// to. It ignores what follows the first value, as the existing controller does. The
// error is BadRequest for a body that is empty, malformed, or longer than limit bytes.
// It is Unavailable when the transport failed.
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
	if !isUnicode(b[:d.InputOffset()]) { // encoding/json would replace it silently
		return Errorf(BadRequest, "Failed to parse json request: invalid unicode code point")
	}
	return nil
}

// isUnicode reports whether a JSON value is UTF-8 without halves of surrogate pairs
// among its escapes.
func isUnicode(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	for i := bytes.IndexByte(b, '\\'); i >= 0 && i+1 < len(b); {
		half := escaped(b[i:])
		switch {
		case !utf16.IsSurrogate(half):
			i += 2
		case i+6 > len(b) || utf16.DecodeRune(half, escaped(b[i+6:])) == utf8.RuneError:
			return false
		default:
			i += 12
		}
		next := bytes.IndexByte(b[i:], '\\')
		if next < 0 {
			break
		}
		i += next
	}
	return true
}

// escaped is the unit of UTF-16 that b begins with as \uXXXX, or 0.
func escaped(b []byte) rune {
	var unit [2]byte
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0
	}
	if _, err := hex.Decode(unit[:], b[2:6]); err != nil {
		return 0
	}
	return rune(unit[0])<<8 | rune(unit[1])
}
