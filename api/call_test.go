package api

import (
	"net/http"
	"net/url"
	"testing"
)

// Queries are read as those of HTML forms, of which none is malformed.
func TestQueriesAreReadLikeForms(t *testing.T) {
	for raw, want := range map[string]struct {
		value string
		ok    bool
		bad   bool
	}{
		"":               {},
		"other=%zz&;&&=": {},
		"a=1":            {value: "1", ok: true},
		"b=%&a=1;2":      {value: "1;2", ok: true},
		"a":              {ok: true},
		"%61=x+y%2Bz%2":  {value: "x y+z%2", ok: true},
		"a=%ff":          {value: "\ufffd", ok: true},
		"a=1=2":          {value: "1=2", ok: true},
		"a=1&a=1&a=%31":  {value: "1", ok: true},
		"a=1&A=2":        {value: "1", ok: true},
		"a=1&a=2":        {bad: true},
		"a=&a=2":         {bad: true},
	} {
		c := &call{request: &http.Request{URL: &url.URL{RawQuery: raw}}}
		value, ok, err := c.query("a")
		if value != want.value || ok != want.ok || (err != nil) != want.bad {
			t.Errorf("%q: %q %v %v, want %+v", raw, value, ok, err, want)
		}
	}
}
