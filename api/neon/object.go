package neon

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// These functions decode objects as strictly as the existing controller does.
// encoding/json takes more. A key must be spelled exactly like its field. A field may
// not occur twice. Null is the value of optional fields only, which are pointers here.
// Required fields must be there.

// object decodes the JSON object b into the struct at into. Fields that it does
// not have are ignored.
func object(b []byte, into any, required ...string) error {
	return objectWith(b, into, func(string, []byte) error { return nil }, required...)
}

// onlyObject is object that refuses fields that the struct does not have.
func onlyObject(b []byte, into any, required ...string) error {
	return objectWith(b, into, func(key string, _ []byte) error {
		var names []string
		for f := range reflect.TypeOf(into).Elem().Fields() {
			names = append(names, "`"+nameOf(f)+"`")
		}
		return fmt.Errorf("unknown field `%s`, expected %s", key, strings.Join(names, " or "))
	}, required...)
}

// objectWith hands fields that the struct does not have to unknown.
func objectWith(
	b []byte, into any, unknown func(key string, raw []byte) error, required ...string,
) error {
	v := reflect.ValueOf(into).Elem()
	seen := make([]bool, v.NumField())
	err := eachField(b, func(key string, raw []byte) error {
		i := fieldNamed(v.Type(), key)
		if i < 0 {
			return unknown(key, raw)
		}
		if seen[i] {
			return duplicate(key)
		}
		seen[i] = true
		if err := value(raw, v.Field(i).Addr().Interface()); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range required {
		if !seen[fieldNamed(v.Type(), name)] {
			return missing(name)
		}
	}
	return nil
}

// fieldNamed is the field of a struct with a name on the wire, or -1.
func fieldNamed(t reflect.Type, name string) int {
	for i := range t.NumField() {
		if name != "" && nameOf(t.Field(i)) == name {
			return i
		}
	}
	return -1
}

// nameOf is the name of a field on the wire.
func nameOf(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// value decodes raw, which may be null only where into points to a pointer.
func value(raw []byte, into any) error {
	if isNull(raw) && reflect.TypeOf(into).Elem().Kind() != reflect.Pointer {
		return errNull
	}
	return json.Unmarshal(raw, into)
}

var errNull = errors.New("invalid type: null")

func duplicate(key string) error { return fmt.Errorf("duplicate field `%s`", key) }

func missing(key string) error { return fmt.Errorf("missing field `%s`", key) }

// members picks the named members of the object raw, all of which are required. It
// ignores others, since older pageservers send more.
func members(raw []byte, names ...string) ([][]byte, error) {
	picked := make([][]byte, len(names))
	err := eachField(raw, func(key string, value []byte) error {
		for i, name := range names {
			if name == key {
				if picked[i] != nil {
					return duplicate(key)
				}
				picked[i] = value
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, p := range picked {
		if p == nil {
			return nil, missing(names[i])
		}
	}
	return picked, nil
}
