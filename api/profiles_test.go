package api

import (
	"encoding/xml"
	"strings"
	"testing"
)

func TestProfilesAreFilesAndTheirParametersChecked(t *testing.T) {
	w := newWorld(t, setup{})
	r := w.replicas[0]
	for _, c := range []struct {
		query  string
		status int
		want   string
	}{
		{"cpu?format=dot", 400, "invalid format dot"},
		{"cpu?seconds=0", 400, "duration must be 1-60 secs"},
		{"cpu?seconds=61", 400, "duration must be 1-60 secs"},
		{"cpu?frequency=1001", 400, "frequency must be"},
		{"cpu?force=1", 400, "force"},
		{"cpu?format=jemalloc", 400, "invalid format jemalloc"},
		{"heap?format=jemalloc", 500, "use format=pprof"},
		{"heap?format=x", 400, "invalid format x"},
	} {
		if g := r.do("GET", "/profile/"+c.query, ""); g.status != c.status ||
			!strings.Contains(g.body, c.want) {
			t.Errorf("%s: %d %s", c.query, g.status, g.body)
		}
	}
	g := r.do("GET", "/profile/heap", "")
	if g.status != 200 || g.header.Get("Content-Type") != "application/octet-stream" ||
		!strings.HasPrefix(g.body, "\x1f\x8b") ||
		g.header.Get("Content-Disposition") != `attachment; filename="heap.pb.gz"` {
		t.Errorf("%d %v", g.status, g.header)
	}
}

// A profile may be asked for as a picture of who calls what.
func TestProfilesAreDrawn(t *testing.T) {
	w := newWorld(t, setup{})
	for _, kind := range []string{"heap?format=svg", "cpu?seconds=1&format=svg"} {
		g := w.replicas[0].do("GET", "/profile/"+kind, "")
		if g.status != 200 || g.header.Get("Content-Type") != "image/svg+xml" ||
			g.header.Get("Content-Disposition") != "" {
			t.Errorf("%s: %d %v", kind, g.status, g.header)
		}
		if err := xml.Unmarshal([]byte(g.body), new(struct{})); err != nil ||
			!strings.Contains(g.body, "<svg ") {
			t.Errorf("%s: %v\n%s", kind, err, g.body)
		}
	}
}
