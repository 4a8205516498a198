package api

import (
	"strings"
	"sync"
	"testing"
	"time"
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
		{"cpu?format=svg", 500, "use format=pprof"},
		{"heap?format=svg", 500, "use format=pprof"},
		{"heap?format=jemalloc", 500, "use format=pprof"},
		{"heap?format=x", 400, "invalid format x"},
	} {
		if g := r.do("GET", "/profile/"+c.query, ""); g.status != c.status || !strings.Contains(g.body, c.want) {
			t.Errorf("%s: %d %s", c.query, g.status, g.body)
		}
	}
	g := r.do("GET", "/profile/heap", "")
	if g.status != 200 || g.header.Get("Content-Type") != "application/octet-stream" || !strings.HasPrefix(g.body, "\x1f\x8b") ||
		g.header.Get("Content-Disposition") != `attachment; filename="heap.pb.gz"` {
		t.Errorf("%d %v", g.status, g.header)
	}
}

// There is one profiler: a second one waits its turn elsewhere, or takes it.
func TestOneCPUProfileAtATime(t *testing.T) {
	w := newWorld(t, setup{})
	r := w.replicas[0]
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if g := r.do("GET", "/profile/cpu?seconds=60", ""); g.status != 200 || g.body == "" || strings.HasPrefix(g.body, "\x1f\x8b") {
			t.Errorf("%d with %d bytes", g.status, len(g.body))
		}
	})
	for deadline := time.Now().Add(10 * time.Second); len(r.server.profiler.slot) == 0; {
		if time.Now().After(deadline) {
			t.Fatal("no profile begins")
		}
	}
	r.do("GET", "/profile/cpu?seconds=1", "").want(t, 409, `{"msg":"Conflict: profiler already running (use ?force=true to cancel it)"}`)
	if g := r.do("GET", "/profile/cpu?seconds=1&force=true", ""); g.status != 200 {
		t.Errorf("by force: %d %s", g.status, g.body)
	}
}
