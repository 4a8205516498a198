package reconciler

import (
	"testing"
	"time"

	"quorate/api/neon"
)

// Chaos moves what is not pinned, ends only the leader, at its time, and leaves
// nothing behind.
func TestChaosDisturbsAndDoesNoHarm(t *testing.T) {
	scenario(t, 6, func(b *bench) {
		ids := b.create(40, 1, neon.Attached(1))
		b.create(20, 2, neon.Attached(0))
		b.pin(ids[0])
		b.awaitIdle()
		pinned := neon.ShardID{Tenant: ids[0], Count: 1}
		before, _ := b.log.State().Shard(pinned)
		b.depose()
		exits := 0
		b.opts.Chaos = Chaos{
			Interval: 10 * time.Second,
			NextExit: func(
				after time.Time,
			) (time.Time, bool) {
				return after.Add(10 * time.Minute), true
			},
			Exit: func() { exits++ },
		}
		b.lead()
		moved := map[neon.ShardID]bool{}
		for range 9 {
			elapse(time.Minute)
			for sh := range b.log.State().ShardsFrom(neon.ShardID{}) {
				moved[sh.ID] = moved[sh.ID] || sh.Generation > 1
			}
		}
		if exits != 0 {
			b.t.Error("it exited before its time")
		}
		elapse(2 * time.Minute)
		after, _ := b.log.State().Shard(pinned)
		n := 0
		for _, m := range moved {
			if m {
				n++
			}
		}
		if exits != 1 || n < 30 || after.Generation != before.Generation {
			b.t.Errorf("%d exits, %d of %d shards moved, the pinned one from generation %s to %s",
				exits, n, len(moved), before.Generation, after.Generation)
		}
		b.depose()
		b.opts.Chaos = Chaos{}
		b.lead()
		b.awaitIdle()
		b.check()
	})
}
