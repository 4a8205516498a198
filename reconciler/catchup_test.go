package reconciler

import (
	"context"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

// behind is a fleet in which one node replays as fast as the others write, and is some
// time behind them.
type behind struct {
	*fleet
	began time.Time
	node  neon.NodeID
	by    time.Duration
	goals int // how often an origin was asked what it has
}

func (f *behind) Timelines(
	ctx context.Context, node *fsm.Node, _ neon.ShardID,
) (map[neon.TimelineID]neon.Lsn, error) {
	at := time.Since(f.began)
	f.set(func() {
		if node.ID == f.node {
			at -= f.by
		} else {
			f.goals++
		}
	})
	return map[neon.TimelineID]neon.Lsn{{1}: neon.Lsn(1_000_000 + at.Milliseconds())},
		f.enter(ctx, node.ID, callWrote)
}

// A destination that is further behind than one try of catching up lasts gets there,
// since its goal stays where it is. Another generation has another goal.
func TestADestinationThatIsFarBehindTakesOver(t *testing.T) {
	scenario(t, 2, func(b *bench) {
		id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(0))[0], Count: 1}
		b.pin(id.Tenant)
		b.awaitIdle()
		sh, _ := b.log.State().Shard(id)
		f := &behind{fleet: b.fleet, began: time.Now(), by: 70 * time.Second}
		b.depose()
		b.migrations = f
		b.lead()
		b.awaitIdle()
		f.set(func() { f.node = b.other(sh) })
		to := migrate(b, sh)
		if to != f.node {
			t.Fatalf("it moves to node %d", to)
		}
		elapse(3 * time.Minute)
		f.set(func() {
			if c := f.at[to][id]; c.Mode != neon.AttachedSingle || f.goals != 1 {
				t.Errorf("three minutes later it is %q there, with %d goals", c.Mode, f.goals)
			}
		})
		b.awaitIdle()
		b.check()
		sh, _ = b.log.State().Shard(id)
		f.set(func() { f.node, f.by, f.goals = b.other(sh), 0, 0 })
		migrate(b, sh)
		elapse(10 * time.Second)
		f.set(func() {
			if f.goals != 1 {
				t.Errorf("another move asks %d times for its goal", f.goals)
			}
		})
		b.awaitIdle()
		b.check()
	})
}
