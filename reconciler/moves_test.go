package reconciler

import (
	"errors"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

// atOnce begins with a budget of moves for each node, and no moves but those of operations.
func (b *bench) atOnce(moves int) {
	b.depose()
	b.opts.OperationMoves, b.opts.OptimiseInterval = moves, 24*time.Hour
	b.lead()
	b.awaitIdle()
}

// crowd is the largest number of shards that are on their way from a node, or to it.
func (b *bench) crowd() (most int) {
	moves := map[neon.NodeID]int{}
	for sh := range b.log.State().ShardsFrom(neon.ShardID{}) {
		if sh.PreferredNode != 0 {
			moves[sh.PreferredNode]++
			moves[sh.Attached]++
		}
	}
	for _, n := range moves {
		most = max(most, n)
	}
	return most
}

// All operations together have no more moves at a node than its budget, and one that has
// none left holds up no operation on another.
func TestOperationsShareTheBudgetOfANode(t *testing.T) {
	scenario(t, 6, func(b *bench) {
		b.create(600, 1, neon.Attached(1))
		b.atOnce(24)
		b.fleet.set(func() { b.fleet.latency = time.Second / 2 })
		b.begin(1, fsm.OperationDrain)
		b.begin(2, fsm.OperationDelete)
		b.begin(3, fsm.OperationDrain)
		most, all := 0, 0
		for operating(b.log.State()) > 0 {
			elapse(50 * time.Millisecond)
			most, all = max(most, b.crowd()), max(all, b.preferring())
		}
		if most != 24 || all < 40 {
			b.t.Errorf("%d shards were being moved at a time at a node, %d in all", most, all)
		}
		b.awaitIdle()
		b.check()
	})
}

// A node takes part in fewer moves when it has fewer slots, since it has left calls without
// an answer, but never in none: whether it answers again has to be found out.
func TestABudgetFollowsTheSlotsOfItsNode(t *testing.T) {
	slots := 64
	c := crowd{
		opts:  Options{}.withDefaults(),
		slots: func(neon.NodeID) int { return slots },
	}
	c.count(nil)
	for _, tt := range []struct{ slots, want int }{{64, 256}, {32, 128}, {1, 4}} {
		if slots = tt.slots; c.room(1) != tt.want {
			t.Errorf("with %d slots there is room for %d moves, want %d", slots, c.room(1), tt.want)
		}
	}
	c.opts.OperationMoves = 8
	if c.room(1) != 1 {
		t.Errorf("there is room for %d moves", c.room(1))
	}
	m := move{nodes: []neon.NodeID{1, 2}}
	if c.add(m, 1); c.admits(move{nodes: []neon.NodeID{3, 2}}) ||
		!c.admits(move{nodes: []neon.NodeID{3}}) {
		t.Error("a node without room is not told from one with room")
	}
}

// progress is how warm a secondary is.
func (f *fleet) progress(node *fsm.Node, id neon.ShardID) (p neon.SecondaryProgress, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at[node.ID][id].Mode != neon.Secondary {
		return p, errors.New("no secondary")
	}
	lag := f.lag
	if f.lagOf != nil {
		lag = f.lagOf(id)
	}
	if f.mute {
		return p, nil
	}
	return neon.SecondaryProgress{
		HeatmapMtime: new(neon.Millis), BytesTotal: 100 << 30,
		BytesDownloaded: 100<<30 - min(100<<30, lag),
	}, nil
}
