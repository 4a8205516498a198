package neon

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// The scanner walks one level of a JSON object or array without building a tree.
// Configuration needs the fields in order and exactly as written, and the listing of a
// pageserver has a hundred thousand entries. The scanner checks the structure of the
// level that it walks. The parser of a value checks what is inside.

var errSyntax = errors.New("malformed JSON")

// eachField calls f with every key and raw value of the object b, in order.
func eachField(b []byte, f func(key string, raw []byte) error) error {
	return eachMember(b, '{', '}', func(i int) (int, error) {
		end := skipValue(b, i)
		if end < 0 || b[i] != '"' {
			return 0, errSyntax
		}
		key, err := plainString(b[i:end])
		if err != nil {
			return 0, err
		}
		i = skipSpace(b, end)
		if i >= len(b) || b[i] != ':' {
			return 0, errSyntax
		}
		i = skipSpace(b, i+1)
		if end = skipValue(b, i); end < 0 {
			return 0, errSyntax
		}
		return end, f(key, b[i:end])
	})
}

// eachElement calls f with every raw element of the array b, in order.
func eachElement(b []byte, f func(raw []byte) error) error {
	return eachMember(b, '[', ']', func(i int) (int, error) {
		end := skipValue(b, i)
		if end < 0 {
			return 0, errSyntax
		}
		return end, f(b[i:end])
	})
}

// eachMember walks the comma-separated members between two brackets. member gets
// the index at which one starts and returns the index after it.
func eachMember(b []byte, first, last byte, member func(i int) (int, error)) error {
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != first {
		return fmt.Errorf("expected %q", string(first))
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == last {
		return onlySpace(b, i+1)
	}
	for i < len(b) {
		end, err := member(i)
		if err != nil {
			return err
		}
		i = skipSpace(b, end)
		if i >= len(b) {
			break
		}
		switch b[i] {
		case last:
			return onlySpace(b, i+1)
		case ',':
			i = skipSpace(b, i+1)
		default:
			return errSyntax
		}
	}
	return errSyntax
}

func onlySpace(b []byte, i int) error {
	if skipSpace(b, i) != len(b) {
		return errSyntax
	}
	return nil
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// skipValue returns the index after the value that starts at i. It returns -1 when the
// value is cut short, or when there is none.
func skipValue(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		depth := 0
		for i < len(b) {
			switch b[i] {
			case '"':
				if i = skipString(b, i); i < 0 {
					return -1
				}
				continue
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
			i++
		}
		return -1
	}
	start := i
	for i < len(b) && strings.IndexByte(" \t\r\n,:]}[{\"", b[i]) < 0 {
		i++
	}
	if i == start {
		return -1
	}
	return i
}

func skipString(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '"':
			return i + 1
		case '\\':
			i++
		}
	}
	return -1
}

// plainString returns the text of the JSON string raw. The common case, without escapes,
// costs one allocation.
func plainString(raw []byte) (string, error) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", fmt.Errorf("expected a string, have %s", clip(raw))
	}
	plain := true
	for _, c := range raw[1 : len(raw)-1] {
		plain = plain && c >= ' ' && c < 0x7f && c != '\\' && c != '"'
	}
	if plain && raw[len(raw)-1] == '"' {
		return string(raw[1 : len(raw)-1]), nil
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", err
	}
	return s, nil
}

func isNull(raw []byte) bool { return string(raw) == "null" }

// clip shortens a value for an error message.
func clip(raw []byte) []byte {
	if len(raw) > 40 {
		return append(raw[:40:40], "…"...)
	}
	return raw
}

// List is a slice that prints `[]` when it is nil, because clients decode these fields
// into vectors that cannot be null.
type List[T any] []T

// MarshalJSON prints the array. Bytes print as numbers; encoding/json would print them
// as one string.
func (l List[T]) MarshalJSON() ([]byte, error) {
	if l == nil {
		return []byte("[]"), nil
	}
	if reflect.TypeFor[T]().Kind() == reflect.Uint8 {
		elements := make([]any, len(l))
		for i, v := range l {
			elements[i] = v
		}
		return json.Marshal(elements)
	}
	return json.Marshal([]T(l))
}

// UnmarshalJSON reads an array of values that are not null. Bytes must be numbers;
// encoding/json would take a string as well.
func (l *List[T]) UnmarshalJSON(b []byte) error {
	*l = List[T]{}
	return eachElement(b, func(raw []byte) error {
		var v T
		if err := value(raw, &v); err != nil {
			return err
		}
		*l = append(*l, v)
		return nil
	})
}

// Table is a map that prints `{}` when it is nil.
type Table[K comparable, V any] map[K]V

// MarshalJSON prints the object, ordered by key.
func (t Table[K, V]) MarshalJSON() ([]byte, error) {
	if t == nil {
		return []byte("{}"), nil
	}
	return json.Marshal(map[K]V(t))
}
