package bench

import (
	"errors"
	"strings"
	"testing"
	"time"
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

func TestAReportCountsWhatMissedItsTarget(t *testing.T) {
	var out strings.Builder
	missed := report(&out, "title", []figure{
		single("good", "1").want("1", true),
		single("bad", "2").want("1", false),
		spread("empty", nil),
		spread("values", durations{time.Second, 2 * time.Second}),
	})
	if missed != 2 || !strings.Contains(out.String(), "MISSED") {
		t.Errorf("%d missed in\n%s", missed, out.String())
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
