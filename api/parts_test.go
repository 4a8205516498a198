package api

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
)

// counted gives parts of one size until so many bytes were made.
func counted(size, all int) func([]byte) ([]byte, bool) {
	made := 0
	return func(b []byte) ([]byte, bool) {
		n := min(size, all-made)
		b = append(b, bytes.Repeat([]byte{byte('a' + made%23)}, n)...)
		made += n
		return b, made < all
	}
}

// An answer that is not large has a length; a larger one is sent as it is made. Either is
// whole.
func TestLargeAnswersAreSentInParts(t *testing.T) {
	for _, all := range []int{0, 10, heldSize - 1, heldSize, heldSize + 1, 5*heldSize + 7} {
		var want []byte
		for next, on := counted(partSize, all), true; on; {
			want, on = next(want)
		}
		a := inParts(counted(partSize, all))
		if len(a.body) > heldSize+partSize {
			t.Errorf("%d: %d bytes are held", all, len(a.body))
		}
		s := newReplica(t, setup{}).server
		w := httptest.NewRecorder()
		a.status = http.StatusOK
		s.write(w, &call{}, &a)
		if !bytes.Equal(w.Body.Bytes(), want) {
			t.Errorf("%d: got %d bytes", all, w.Body.Len())
		}
		length := w.Header().Get("Content-Length")
		if (a.more == nil) != (length == strconv.Itoa(all)) || a.more != nil && length != "" {
			t.Errorf("%d: length %q", all, length)
		}
	}
}

// gone is a client that takes so many bytes.
type gone struct {
	http.ResponseWriter
	left int
}

func (g *gone) Write(b []byte) (int, error) {
	if g.left -= len(b); g.left < 0 {
		return 0, errors.New("gone")
	}
	return len(b), nil
}

// Nothing more is made for a client that is gone.
func TestPartsEndWithTheirClient(t *testing.T) {
	made := 0
	next := counted(partSize, 100*heldSize)
	a := inParts(func(b []byte) ([]byte, bool) { made++; return next(b) })
	a.status = http.StatusOK
	newReplica(t, setup{}).server.write(&gone{httptest.NewRecorder(), 2 * heldSize}, &call{}, &a)
	if most := 2*heldSize/partSize + 1; made > most {
		t.Errorf("%d parts were made, more than %d", made, most)
	}
}

// Answers that use a buffer in turn, at the same time, do not mix.
func TestBuffersAreNotShared(t *testing.T) {
	w := newWorld(t, setup{replicas: 3})
	w.addNodes(3)
	w.setLeader(0)
	var ids []string
	for n := range 8 {
		id := fmt.Sprintf("%032x", n+1)
		ids = append(ids, id)
		body := fmt.Sprintf(`{"new_tenant_id":"%s","shard_parameters":{"count":%d,`+
			`"stripe_size":2048}}`, id, n+1)
		w.replicas[0].do("POST", "/v1/tenant", body)
	}
	want := map[string]string{}
	paths := func(id string) []string {
		return []string{"/control/v1/tenant/" + id, "/debug/v1/tenant/" + id + "/locate"}
	}
	for _, id := range ids {
		for _, path := range paths(id) {
			want[path] = w.replicas[0].do("GET", path, "").body
		}
	}
	t.Run("at once", func(t *testing.T) {
		for n, id := range ids {
			t.Run(id, func(t *testing.T) {
				t.Parallel()
				for range 20 {
					for _, path := range paths(id) {
						if got := w.replicas[n%3].do("GET", path, ""); got.body != want[path] {
							t.Errorf("%s: got %s, want %s", path, got.body, want[path])
						}
					}
				}
			})
		}
	})
}
