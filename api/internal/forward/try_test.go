package forward

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"quorate/api/neon"
)

var secret = []byte("of the members")

func sealed(method, target, id, body string, t Try) (*http.Request, []byte) {
	r := httptest.NewRequest(method, target, nil)
	r.Header.Set("X-Request-Id", id)
	r.Header.Set(TryHeader, t.Seal(secret, r, []byte(body)))
	return r, []byte(body)
}

func TestATryIsKnownToMembersOnly(t *testing.T) {
	want := Try{ID: [16]byte{1, 2}, Number: 3}
	r, body := sealed("PUT", "/v1/x%2Fy?a=1", "id", "body", want)
	if got, ok := OpenTry(secret, r, body); !ok || got != want {
		t.Errorf("%+v, %v", got, ok)
	}
	seal := r.Header.Get(TryHeader)
	for name, c := range map[string]struct {
		secret string
		seal   string
		change func(*http.Request)
		body   string
	}{
		"another secret":  {secret: "x"},
		"no secret":       {secret: "-"},
		"another body":    {body: "x"},
		"another number":  {seal: strings.Replace(seal, ".3.", ".4.", 1)},
		"another request": {seal: "ff" + seal[2:]},
		"no number":       {seal: strings.Replace(seal, ".3.", "..", 1)},
		"a number of 0":   {seal: strings.Replace(seal, ".3.", ".0.", 1)},
		"a short id":      {seal: seal[2:]},
		"no hex":          {seal: "xy" + seal[2:]},
		"no seal":         {seal: seal[:len(seal)-64]},
		"half a seal":     {seal: seal[:len(seal)-32]},
		"nothing":         {seal: "-"},
		"another method":  {change: func(r *http.Request) { r.Method = "POST" }},
		"another path":    {change: func(r *http.Request) { r.URL.RawPath = "" }},
		"another query":   {change: func(r *http.Request) { r.URL.RawQuery = "a=2" }},
		"another id":      {change: func(r *http.Request) { r.Header.Set("X-Request-Id", "x") }},
	} {
		other := r.Clone(t.Context())
		if c.change != nil {
			c.change(other)
		}
		if c.seal != "" {
			other.Header.Set(TryHeader, strings.TrimPrefix(c.seal, "-"))
		}
		s, b := slices.Clone(secret), body
		if c.secret != "" {
			s = []byte(strings.TrimPrefix(c.secret, "-"))
		}
		if c.body != "" {
			b = []byte(c.body)
		}
		if got, ok := OpenTry(s, other, b); ok {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if seal := want.Seal(nil, r, body); seal != "" {
		t.Errorf("sealed with nothing: %s", seal)
	}
}

func TestARequestIsPrintedByWhatItAsksFor(t *testing.T) {
	prints := map[[32]byte]string{}
	for _, c := range [][3]string{
		{"PUT", "/a?b", "c"}, {"POST", "/a?b", "c"}, {"PUT", "/a", "?bc"}, {"PUT", "/a?bc", ""},
		{"PUT", "/a%2Fb", ""}, {"PUT", "/a/b", ""},
	} {
		r, body := sealed(c[0], c[1], "first", c[2], Try{})
		print := Print(r, body)
		if other, same := prints[print]; same {
			t.Errorf("%v is printed as %s", c, other)
		}
		prints[print] = fmt.Sprint(c)
		if r, _ := sealed(c[0], c[1], "second", c[2], Try{}); Print(r, body) != print {
			t.Errorf("%v has another print under another id", c)
		}
	}
}

// The number grows after a try that may have done something, and only then.
func TestTriesAreCountedWhenSomethingMayHaveHappened(t *testing.T) {
	nothing := answers(503, "", RetryHeader, string(neon.NotLeader))
	unknown := answers(503, "", RetryHeader, string(neon.OutcomeUnknown))
	for name, c := range map[string]struct {
		answers []func(*http.Request) (*http.Response, error)
		want    string
	}{
		"nothing happened": {[]func(*http.Request) (*http.Response, error){nothing, nothing}, "[1 1 1]"},
		"unknown": {
			[]func(*http.Request) (*http.Response, error){nothing, unknown, nothing}, "[1 1 2 3]",
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			cl := &cluster{leader: "http://leader"}
			cl.answer = func(r *http.Request) (*http.Response, error) {
				if n := len(cl.requests); n <= len(c.answers) {
					return c.answers[n-1](r)
				}
				return answers(200, "done")(r)
			}
			var tries []int
			r := put(nil)
			r.Seal = func(_ context.Context, try int) string {
				tries = append(tries, try)
				return fmt.Sprint("try ", try)
			}
			if _, err := cl.forwarder().Route(t.Context(), r); err != nil {
				t.Error(err)
			}
			if got := fmt.Sprint(tries); got != c.want {
				t.Errorf("%s: tries %s, not %s", name, got, c.want)
			}
			if got := cl.requests[0].Header.Get(TryHeader); got != "try 1" {
				t.Errorf("%s: the first try says %q", name, got)
			}
		})
	}
}

// A replica that leads again knows that its own first try may have done something.
func TestATryHereIsCountedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{self: true}
		var tries []int
		r := put(nil)
		r.Try = 4 // as a member says
		r.HTTP.Header.Set(HopHeader, "1")
		r.Handle = func(try int) error { tries = append(tries, try); return nil }
		if _, err := c.forwarder().Route(t.Context(), r); err != nil {
			t.Error(err)
		}
		r = put(nil)
		r.Handle = func(try int) error {
			if tries = append(tries, try); try == 1 {
				return neon.Errorf(neon.OutcomeUnknown, "deposed")
			}
			return errors.New("enough")
		}
		_, _ = c.forwarder().Route(t.Context(), r)
		if got := fmt.Sprint(tries); got != "[4 1 2]" {
			t.Errorf("tries %s", got)
		}
	})
}
