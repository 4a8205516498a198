package api

import (
	"bytes"
	"encoding/xml"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/pprof/profile"
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

func TestFlameGraph(t *testing.T) {
	fn := func(
		id uint64, name string,
	) *profile.Function {
		return &profile.Function{ID: id, Name: name}
	}
	main, work, less := fn(1, "main"), fn(2, "work"), fn(3, "less<T>")
	at := func(id uint64, lines ...profile.Line) *profile.Location {
		return &profile.Location{ID: id, Line: lines}
	}
	inlined, plain := at(1, profile.Line{Function: less},
		profile.Line{Function: work}), at(2, profile.Line{Function: main})
	p := &profile.Profile{
		SampleType: []*profile.ValueType{
			{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"},
		},
		Sample: []*profile.Sample{
			{Location: []*profile.Location{inlined, plain}, Value: []int64{1, 30}},
			{Location: []*profile.Location{plain}, Value: []int64{1, 10}},
		},
		Location: []*profile.Location{inlined, plain},
		Function: []*profile.Function{main, work, less},
	}
	var packed bytes.Buffer
	if err := p.Write(&packed); err != nil {
		t.Fatal(err)
	}
	svg, err := flameGraph(packed.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`height="68"`,
		`<title>all (40 nanoseconds, 100.00%)</title><rect x="0.0" y="51" width="1200.0"`,
		`<title>main (40 nanoseconds, 100.00%)</title><rect x="0.0" y="34" width="1200.0"`,
		`<title>work (30 nanoseconds, 75.00%)</title><rect x="0.0" y="17" width="900.0"`,
		`<title>less&lt;T&gt; (30 nanoseconds, 75.00%)</title><rect x="0.0" y="0" width="900.0"`,
	} {
		if !strings.Contains(string(svg), want) {
			t.Errorf("the graph lacks %s:\n%s", want, svg)
		}
	}
}

// There is one profiler: a second one waits its turn elsewhere, or takes it.
func TestOneCPUProfileAtATime(t *testing.T) {
	h := profileHandler{newProfiler()}
	ask := func(query string) (answer, error) {
		return h.cpu(&call{
			ctx: t.Context(), request: httptest.NewRequest("GET", "/profile/cpu?"+query, nil),
		})
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if a, err := ask("seconds=60"); err != nil || len(a.body) == 0 ||
			bytes.HasPrefix(a.body, []byte("\x1f\x8b")) {
			t.Errorf("%d bytes, %v", len(a.body), err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); len(h.profiler.slot) == 0; {
		if time.Now().After(deadline) {
			t.Fatal("no profile begins")
		}
	}
	_, err := ask("seconds=1")
	if a := errorAnswer(err); a.status != 409 || string(a.body) !=
		`{"msg":"Conflict: profiler already running (use ?force=true to cancel it)"}` {
		t.Errorf("a second one: %d %s", a.status, a.body)
	}
	if _, err := ask("seconds=1&force=true"); err != nil {
		t.Errorf("by force: %v", err)
	}
}
