package bench

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"quorate/internal/results"
)

func TestQuantilesAreValuesThatWereMeasured(t *testing.T) {
	d := durations{5, 1, 4, 2, 3}
	for _, c := range []struct {
		q    float64
		want time.Duration
	}{{0, 1}, {0.2, 1}, {0.5, 3}, {0.99, 5}, {1, 5}} {
		if got := d.quantile(c.q); got != c.want {
			t.Errorf("quantile %v is %d, want %d", c.q, got, c.want)
		}
	}
	if durations(nil).quantile(0.5) != 0 {
		t.Error("nothing has a median")
	}
}

func TestAGapReachesFromTheLastAcknowledgementBeforeToTheFirstAfter(t *testing.T) {
	l := &load{}
	for _, at := range []time.Duration{10, 20, 25, 50, 70, 80} {
		c := call{begin: at - 5, end: at}
		if at == 50 {
			c.err = errors.New("refused")
		}
		l.calls = append(l.calls, c)
	}
	if got := l.gap(15, 80); got != 45 {
		t.Errorf("the gap is %d, want 45: what failed does not end it", got)
	}
	if got := l.gap(70, 200); got != 120 {
		t.Errorf("the gap is %d, want 120: it reaches to the end of the window", got)
	}
	if !l.ackedSince(60) || l.ackedSince(76) {
		t.Error("a write counts as acknowledged since a moment when it was sent after that")
	}
}

func TestBatchesAreReadFromTheLog(t *testing.T) {
	n, ok := batch(
		"2026-03-04T05:06:07.123456Z  INFO evacuating term=3 node=1 shards=1000 refused=0")
	if !ok || n != 1000 {
		t.Errorf("read %d, %v", n, ok)
	}
	if _, ok := batch("2026-03-04T05:06:07.123456Z  INFO node 1 going offline"); ok {
		t.Error("another line was taken for a batch")
	}
}

// TestTwoBinariesAreMeasuredInTurn: neither is always the first, and the ratios are of pairs.
func TestTwoBinariesAreMeasuredInTurn(t *testing.T) {
	values := map[string]float64{"ours": 20, "theirs": 10}
	var order []string
	r, o := Report{Against: "theirs", Rounds: 3}, Options{Controller: "ours", Out: io.Discard}
	run := r.begin(&o)
	err := r.suite(t.Context(), &o, run, "part", "Part",
		func(_ context.Context, binary string) ([]results.Result, error) {
			order = append(order, binary)
			return []results.Result{rate("speed", "how fast", "1/s", values[binary])}, nil
		})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"ours", "theirs", "theirs", "ours", "ours", "theirs"}
	if !slices.Equal(order, want) {
		t.Errorf("measured in the order %v, want %v", order, want)
	}
	found := run.Suites[0].Data
	if len(found) != 2 || found[1].Name != "speed.ratio" || found[1].Median != 2 ||
		found[1].N != 3 {
		t.Errorf("found %+v", found)
	}
}

// TestWhatWasMeasuredBeforeAnErrorIsKept: minutes of measuring are not lost with the last part.
func TestWhatWasMeasuredBeforeAnErrorIsKept(t *testing.T) {
	r, o := Report{}, Options{Out: io.Discard}
	run := r.begin(&o)
	broken := errors.New("broken")
	err := r.suite(t.Context(), &o, run, "part", "Part",
		func(context.Context, string) ([]results.Result, error) {
			return []results.Result{count("lost", "lost", 0)}, broken
		})
	if !errors.Is(err, broken) || len(run.Suites) != 1 {
		t.Errorf("%d suites and %v", len(run.Suites), err)
	}
}

// TestTheWritesOfALoadAreSeenOverTime: with what happened meanwhile.
func TestTheWritesOfALoadAreSeenOverTime(t *testing.T) {
	l := &load{}
	l.calls = []call{
		{end: 50 * time.Millisecond}, {end: 90 * time.Millisecond},
		{end: 150 * time.Millisecond, err: errors.New("refused")}, {end: 320 * time.Millisecond},
	}
	l.mark(100*time.Millisecond, "kill")
	s := l.series(3)
	want := [][2]float64{{0, 20}, {0.1, 0}, {0.2, 0}, {0.3, 10}}
	if len(s.Points) != len(want) || len(s.Marks) != 1 {
		t.Fatalf("got %+v", s)
	}
	for i, p := range s.Points {
		if p[1] != want[i][1] {
			t.Errorf("point %d is %v, want %v", i, p, want[i])
		}
	}
}
