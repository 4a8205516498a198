package cluster

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// Heartbeats come less often while the cluster is quiet, to all servers at once, and never so
// late that a leader which stands still for half of the time-out would lose its lead.
func TestHeartbeatsOfAQuietClusterAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 400 * time.Millisecond
		p := newPace(timeout)
		// beats makes heartbeats as raft does, and says how many, and the longest pause.
		beats := func(
			d time.Duration, took func() time.Duration,
		) (n int, longest time.Duration) {
			end, last := time.Now().Add(d), time.Now()
			for i := 0; time.Now().Before(end); i++ {
				time.Sleep(timeout/10 + time.Duration(i*7919%40)*time.Millisecond)
				p.rest(t.Context(), raft.ServerID("b"))
				n, longest, last = n+1, max(longest, time.Since(last)), time.Now()
				time.Sleep(took())
				p.answered("b")
			}
			return n, longest
		}
		at := func(d time.Duration) func() time.Duration {
			return func() time.Duration { return d }
		}
		const second = time.Second
		often := func(when string) {
			t.Helper()
			if n, _ := beats(second, at(time.Millisecond)); n < 11 {
				t.Errorf("%s: only %d heartbeats in a second", when, n)
			}
		}
		often("at the beginning")
		beats(steadyAfter, at(time.Millisecond))
		n, longest := beats(10*second, at(time.Millisecond))
		if n > 70 || longest > timeout/2 {
			t.Errorf("quiet: %d heartbeats in ten seconds, at most %s apart", n, longest)
		}
		p.begins()
		often("while entries come")
		beats(5*second, at(time.Millisecond))
		if n, _ := beats(10*second, at(time.Millisecond)); n > 70 {
			t.Errorf("quiet again: %d heartbeats in ten seconds", n)
		}
		beats(time.Millisecond, at(lateAfter+time.Millisecond))
		often("after a late answer")
		beats(steadyAfter, at(time.Millisecond))
		if n, _ := beats(10*second, at(time.Millisecond)); n > 70 {
			t.Errorf("steady again: %d heartbeats in ten seconds", n)
		}
	})
}
