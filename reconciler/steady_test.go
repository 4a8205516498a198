package reconciler

import (
	"testing"
	"time"

	"quorate/api/neon"
)

// TestANodeThatComesAndGoesIsNotCountedOn: it dies and comes back for six hours, and little
// is moved there, since all of that would have to leave it again. Once it stays it gets its
// share.
func TestANodeThatComesAndGoesIsNotCountedOn(t *testing.T) {
	for name, up := range map[string]time.Duration{
		"every few minutes": 3 * time.Minute, "every quarter of an hour": 14 * time.Minute,
	} {
		t.Run(name, func(t *testing.T) {
			scenario(t, 6, func(b *bench) {
				moved := counted{n: new(int)}
				b.depose()
				b.metric = moved
				b.lead()
				for n := range neon.NodeID(6) {
					b.createOn(n+1, 20)
				}
				b.awaitIdle()
				for began := time.Now(); time.Since(began) < 6*time.Hour; {
					b.fleet.set(func() { b.fleet.down[1] = true })
					elapse(time.Minute)
					b.backAfterRestart(1, 0)
					elapse(up)
				}
				if *moved.n > 120 {
					b.t.Errorf("%d moves in six hours", *moved.n)
				}
				b.t.Logf("%d moves, %v", *moved.n, b.numbers())
				b.awaitEven(19, 21, 2*time.Hour)
			})
		})
	}
}

// TestANodeIsSteadyAgain: a first fall counts for five minutes, further ones for longer, and
// all are forgotten after an hour.
func TestANodeIsSteadyAgain(t *testing.T) {
	began := time.Unix(0, 0)
	e := &watched{since: began}
	if e.unsteady(began, 5*time.Minute) {
		t.Error("a new node is not counted on")
	}
	now := began
	for _, want := range []time.Duration{5, 10, 20, 40, 60, 60} { // minutes
		e.fell(now)
		e.since = now
		doubt := want * time.Minute
		if !e.unsteady(now.Add(doubt-10*time.Second), 5*time.Minute) ||
			e.unsteady(now.Add(doubt), 5*time.Minute) {
			t.Errorf("after %d falls it is not steady again after %s", len(e.falls), doubt)
		}
		now = now.Add(time.Second)
	}
}
