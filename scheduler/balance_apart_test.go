package scheduler

import (
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
)

// Of two shards of a tenant that are together, one is on its way to another node. The other one
// does not follow it for an even load: they would be together again there, and one of them
// would have to come back.
func TestNoShardFollowsOneOfItsTenant(t *testing.T) {
	w := newWorld(t)
	w.apply(fsm.SetLevel{Level: fsm.Level})
	w.addNode(1, "a")
	w.addNode(2, "a")
	for n := range 8 { // what is not optimised stays
		w.apply(fsm.CreateTenant{
			ID: tenantID(n + 2), Stripe: 1, Policy: neon.Attached(0),
			Scheduling: neon.ShardEssential,
			Shards:     []fsm.NewShard{{Attached: 1}},
		})
	}
	home := neon.MakeAZ("a")
	w.apply(fsm.CreateTenant{
		ID: tenantID(1), Count: 2, Stripe: 1, Policy: neon.Attached(0),
		Scheduling: neon.ShardActive,
		Shards: []fsm.NewShard{
			{Attached: 1, PreferredAZ: home}, {Attached: 1, PreferredAZ: home},
		},
	})
	s := w.scheduler()
	in, ok := s.Optimise(w.shards(tenantID(1))[0])
	if !ok || in.PreferredNode != 2 {
		t.Fatalf("they stay together: %+v", in)
	}
	w.commit(s, fsm.SetIntents{Intents: []fsm.Intent{in}})
	if moves := w.scheduler().Balance(unlimited(nil)); len(moves) > 0 {
		t.Errorf("it follows: %+v", moves)
	}
}

// A shard does not change places with its secondary, if another one of its tenant serves there.
// Both have a location on either node, but secondaries are moved to other zones later.
func TestNoShardComesToServeBesideOneOfItsTenant(t *testing.T) {
	w := newWorld(t)
	w.apply(fsm.SetLevel{Level: fsm.Level})
	w.addNode(1, "a")
	w.addNode(2, "a")
	home := neon.MakeAZ("a")
	for n := range 8 {
		w.apply(fsm.CreateTenant{
			ID: tenantID(n + 2), Stripe: 1, Policy: neon.Attached(0),
			Scheduling: neon.ShardEssential,
			Shards:     []fsm.NewShard{{Attached: 1, PreferredAZ: home}},
		})
	}
	w.apply(fsm.CreateTenant{
		ID: tenantID(1), Count: 2, Stripe: 1, Policy: neon.Attached(1),
		Scheduling: neon.ShardActive,
		Shards: []fsm.NewShard{
			{Attached: 1, Secondary: []neon.NodeID{2}, PreferredAZ: home},
			{Attached: 2, Secondary: []neon.NodeID{1}, PreferredAZ: home},
		},
	})
	if moves := w.scheduler().Balance(unlimited(nil)); len(moves) > 0 {
		t.Errorf("they come together: %+v", moves)
	}
}
