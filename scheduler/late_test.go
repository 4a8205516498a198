package scheduler

import (
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
)

// late is a world at this version's level with one shard of tenant 1 on node 1, a secondary on
// node 2, and node 3 free.
func late(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.apply(fsm.SetLevel{Level: fsm.Level})
	for i, az := range []string{"a", "b", "c"} {
		w.addNode(neon.NodeID(i+1), az)
	}
	w.apply(fsm.CreateTenant{
		ID: tenantID(1), Count: 1, Stripe: 1, Policy: neon.Attached(1),
		Scheduling: neon.ShardActive,
		Shards:     []fsm.NewShard{{Attached: 1, Secondary: []neon.NodeID{2}}},
	})
	return w
}

func (w *world) only() fsm.Shard { return w.shards(tenantID(1))[0] }

// Every decision says what it was based on, and one that takes a shard from a node also
// that.
func TestDecisionsSayWhatTheyAreBasedOn(t *testing.T) {
	w := late(t)
	w.judge(1, neon.NodeOffline)
	sh := w.only()
	tenant, _ := w.state.Tenant(sh.ID.Tenant)
	n, _ := w.state.Node(1)
	want := fsm.Basis{Tenant: tenant.Sequence, Lost: 1, LostSequence: n.Sequence}
	evacuated, _, _ := w.scheduler().Evacuate(1, neon.ShardID{}, 1)
	failed, _ := w.scheduler().FailOver(sh)
	for name, in := range map[string]fsm.Intent{"evacuate": evacuated[0], "fail over": failed} {
		if in.Basis == nil || *in.Basis != want {
			t.Errorf("%s is based on %+v, not %+v", name, in.Basis, want)
		}
	}
	want.Lost, want.LostSequence = 0, 0
	moved, err := w.scheduler().Prewarm(sh, 3, OverrideScheduler)
	if err != nil || moved.Basis == nil || *moved.Basis != want {
		t.Errorf("a move is based on %+v, not %+v: %v", moved.Basis, want, err)
	}
	w.judge(2, neon.NodeOffline)
	n, _ = w.state.Node(2)
	want.Lost, want.LostSequence = 2, n.Sequence
	replaced, _, _ := w.scheduler().ReplaceSecondaries(2, neon.ShardID{}, 1)
	if b := replaced[0].Basis; b == nil || *b != want {
		t.Errorf("a secondary is placed anew on %+v, not %+v", b, want)
	}
}

// To choose the secondary ends a move to another node, which has none any more.
func TestAMigratedSecondaryEndsAMoveElsewhere(t *testing.T) {
	w := late(t)
	begin, err := w.scheduler().Prewarm(w.only(), 3, OverrideScheduler)
	if err != nil {
		t.Fatal(err)
	}
	w.apply(fsm.SetIntents{Intents: []fsm.Intent{begin}})
	for to, preferred := range map[neon.NodeID]neon.NodeID{2: 0, 3: 3} {
		in, err := w.scheduler().MigrateSecondary(w.only(), to)
		if err != nil || in.PreferredNode != preferred || len(in.Secondary) != 1 ||
			in.Secondary[0] != to {
			t.Errorf("to node %d: %+v, %v", to, in, err)
		}
	}
	sh := w.only()
	sh.Secondary = []neon.NodeID{2} // as an earlier version has left it
	if in, ok := w.scheduler().Repair(sh); !ok || in.PreferredNode != 0 {
		t.Errorf("repaired as %+v, %v", in, ok)
	}
}

// What does not answer is no reason to attach a shard on a node that takes nothing.
func TestASilentNodeThatTakesNothingIsNotChosen(t *testing.T) {
	w := late(t)
	policy := func(id neon.NodeID, to neon.NodeScheduling) {
		w.apply(fsm.SetNodeScheduling{Node: id, Scheduling: to})
	}
	if err := w.update(tenantID(1), neon.Placement{Kind: neon.PlaceSecondary},
		neon.ShardActive); err != nil {
		t.Fatal(err)
	}
	at := w.only().Secondary[0]
	for id := neon.NodeID(1); id <= 3; id++ {
		if id != at {
			policy(id, neon.SchedulingPause)
		}
		w.loads[id] = Load{Silent: true}
	}
	policy(at, neon.SchedulingPause)
	if err := w.update(tenantID(1), neon.Attached(0), neon.ShardActive); err == nil ||
		w.only().Attached != 0 {
		t.Errorf("attached on node %d: %v", w.only().Attached, err)
	}
}
