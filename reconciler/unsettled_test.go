package reconciler

import (
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

// TestAShardThatIsInOrderIsNotWorkedOn: but one that somebody waits for is, or of which the
// next pass has something to tell.
func TestAShardThatIsInOrderIsNotWorkedOn(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		id := b.create(1, 1, neon.Attached(1))[0]
		b.awaitIdle()
		term, shard := b.now.current.Load(), neon.ShardID{Tenant: id, Count: 1}
		u := term.nodes.unsettled
		settled := func() bool { return u.settled(b.log.State(), shard) }
		sh, _ := b.log.State().Shard(shard)
		conf := b.sightOf(shard, sh.Attached).Conf
		for name, tt := range map[string]struct{ begin, end func() }{
			"a request waits for it": {
				func() { term.wait.add(shard, 1<<60) },
				func() { term.wait.fail(errNoTerm) },
			},
			"compute has to be told": {
				func() { term.report.notifying(shard) }, func() { term.report.forget(shard) },
			},
			"its last pass failed": {
				func() { term.report.failed(shard, errNoTerm) },
				func() { term.report.forget(shard) },
			},
			"its node was away": {
				func() { term.report.wentAway(shard, sh.Attached) },
				func() { term.report.forget(shard) },
			},
			"its move has limits of its own": {
				func() { term.limits.set(shard, moveLimits{}) },
				func() { term.limits.forget(shard) },
			},
			"an operation moves it": {
				func() { term.operations.expect(shard) }, func() { term.operations.await() },
			},
			"its location is not as its record says": {
				func() {
					term.seen.Forget([]fsm.Leftover{{Shard: shard, Node: sh.Attached}})
				},
				func() {
					term.seen.Looked(shard, sh.Attached, &conf, term.seen.Clock())
				},
			},
		} {
			elapse(time.Second) // what is at work ends
			if !settled() {
				t.Fatalf("before %q: it is not settled", name)
			}
			if tt.begin(); settled() {
				t.Errorf("it is settled though %s", name)
			}
			tt.end()
		}
		if u.settled(b.log.State(), neon.Unsharded(neon.TenantID{1})) {
			t.Error("a shard that no tenant has is settled")
		}
	})
}
