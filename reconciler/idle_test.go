package reconciler

import (
	"context"
	"testing"

	"quorate/api/neon"
	"quorate/reconciler/queue"
)

// Once a client waited for what it created, nothing is left to do: the wake-ups
// that follow from it are not work.
func TestWhatWasWaitedForLeavesNothingToDo(t *testing.T) {
	for range 20 {
		scenario(t, 3, func(b *bench) {
			for range 10 {
				before := b.log.State().Index
				tenant := neon.TenantID{0xbb, byte(before)}
				b.createAs(tenant, 8, neon.Attached(1))
				if err := b.now.Await(context.Background(), b.log.State().Index,
					neon.ShardIDs(tenant, 8)...); err != nil {
					b.t.Fatal(err)
				}
			}
			for sh := range b.log.State().ShardsFrom(neon.ShardID{}) {
				b.now.current.Load().queue.Wake(queue.Normal, sh.ID)
			}
			if n, err := b.now.ReconcileAll(context.Background()); n != 0 || err != nil {
				b.t.Errorf("%d shards are left, %v", n, err)
			}
		})
	}
}
