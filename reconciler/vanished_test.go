package reconciler

import (
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

// TestWhatVanishedDuringARestartIsLeftForAWhile: somebody has taken a location away and
// restarted its pageserver. Where that is to be expected it is left to them.
func TestWhatVanishedDuringARestartIsLeftForAWhile(t *testing.T) {
	decide := func(b *bench, id neon.TenantID) {
		b.configure([]neon.TenantID{id}, `{"gc_horizon":7}`)
	}
	for name, tt := range map[string]struct {
		left    time.Duration
		restart func(*bench, neon.NodeID)
		then    func(*bench, neon.TenantID)
		back    bool // after a short time
	}{
		"where nobody does that":     {back: true},
		"where somebody does":        {left: 30 * time.Second},
		"something is decided":       {left: 30 * time.Second, then: decide, back: true},
		"by a leader that saw none":  {left: 30 * time.Second, restart: newLeader, back: true},
		"the disk is empty":          {left: 30 * time.Second, restart: wiped, back: true},
		"it has restarted once more": {left: 30 * time.Second, restart: twice},
	} {
		t.Run(name, func(t *testing.T) {
			scenario(t, 1, func(b *bench) {
				b.depose()
				b.opts.Vanished = tt.left
				b.lead()
				id := b.create(1, 1, neon.Attached(0))[0]
				b.createAs(neon.TenantID{1}, 1, neon.Attached(0))
				b.awaitIdle()
				shard := neon.ShardIDs(id, 1)[0]
				b.fleet.set(func() { delete(b.fleet.at[1], shard) })
				if tt.restart == nil {
					tt.restart = (*bench).restart
				}
				tt.restart(b, 1)
				elapse(5 * time.Second)
				if tt.then != nil {
					tt.then(b, id)
				}
				elapse(15 * time.Second)
				if back := b.fleet.holds(1, shard); back != tt.back {
					t.Errorf("after a short time attached again: %v", back)
				}
				elapse(40 * time.Second)
				if !b.fleet.holds(1, shard) {
					t.Error("it is not attached again")
				}
				b.check()
			})
		})
	}
}

func newLeader(b *bench, n neon.NodeID) {
	b.restart(n)
	b.depose()
	b.lead()
}

func wiped(b *bench, n neon.NodeID) {
	b.fleet.set(func() { clear(b.fleet.at[n]) })
	b.must(fsm.ReAttach{Node: n})
	b.now.ReAttachedEmpty(n)
}

func twice(b *bench, n neon.NodeID) {
	b.restart(n)
	elapse(50 * time.Millisecond)
	b.restart(n)
}
