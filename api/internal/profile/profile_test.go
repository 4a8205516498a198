package profile

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"quorate/api/neon"
)

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
	svg, err := FlameGraph(packed.Bytes())
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

func TestWhatIsNoProfileIsNotDrawn(t *testing.T) {
	if _, err := FlameGraph([]byte("x")); err == nil {
		t.Error("it was drawn")
	}
}

func TestHeapProfilesCanBeDrawn(t *testing.T) {
	data, err := Heap()
	if err != nil || !bytes.HasPrefix(data, []byte("\x1f\x8b")) {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	if svg, err := FlameGraph(data); err != nil || !bytes.Contains(svg, []byte("<svg ")) {
		t.Errorf("%s, %v", svg, err)
	}
}

// There is one profiler: a second profile is refused, or ends the first.
func TestOneCPUProfileAtATime(t *testing.T) {
	p := New()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		data, err := p.CPU(t.Context(), CPU{Duration: time.Minute})
		if err != nil || len(data) == 0 || bytes.HasPrefix(data, []byte("\x1f\x8b")) {
			t.Errorf("%d bytes, %v", len(data), err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); len(p.slot) == 0; {
		if time.Now().After(deadline) {
			t.Fatal("no profile begins")
		}
	}
	_, err := p.CPU(t.Context(), CPU{Duration: time.Second})
	if neon.CodeOf(err) != neon.Conflict ||
		err.Error() != "profiler already running (use ?force=true to cancel it)" {
		t.Errorf("a second one: %v", err)
	}
	if _, err := p.CPU(t.Context(), CPU{Duration: time.Millisecond, Force: true}); err != nil {
		t.Errorf("by force: %v", err)
	}
}

func TestWaitingForTheProfilerEndsWithTheRequest(t *testing.T) {
	p := New()
	p.slot <- struct{}{} // a profile that nothing ends
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.CPU(ctx, CPU{Force: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
