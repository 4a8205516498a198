package fsm

import (
	"testing"

	"quorate/api/neon"
)

// prefers is small at a level, with a shard that is to move to node 3, where it has
// nothing, and one that is to move to node 2, where it has a secondary.
func prefers(t *testing.T, level uint64) *State {
	t.Helper()
	s := small(t)
	if level > firstLevel {
		s, _ = must(t, s, SetLevel{Level: level})
	}
	for i, to := range []neon.NodeID{3, 2} {
		sh := shardsOf(s, modelTenant(1))[i]
		s, _ = must(t, s, SetIntents{Intents: []Intent{{
			Shard: sh.ID, Sequence: sh.Sequence, Attached: 1, Secondary: []neon.NodeID{2},
			PreferredNode: to,
		}}})
	}
	return s
}

// TestADeletedNodeIsPreferredByNoShard, whether anything of the shard is there or not.
func TestADeletedNodeIsPreferredByNoShard(t *testing.T) {
	for name, s := range map[string]*State{
		"level 2": prefers(t, secondLevel),
		"raised":  func() *State { s, _ := must(t, prefers(t, firstLevel), SetLevel{2}); return s }(),
	} {
		if sh := shardsOf(s, modelTenant(1))[1]; sh.PreferredNode != 2 {
			t.Errorf("%s: a preference is lost: %+v", name, sh)
		}
		for _, id := range []neon.NodeID{2, 3} {
			s, _ = must(t, s, DeleteNode{Node: id})
		}
		for _, sh := range shardsOf(s, modelTenant(1)) {
			if sh.PreferredNode != 0 {
				t.Errorf("%s: shard %s prefers node %d, which is gone", name, sh.ID, sh.PreferredNode)
			}
		}
	}
}

// TestAShardRemembersWhereItWas: the node that had the number before its owner's, through
// a snapshot, and only from the level on that knows it.
func TestAShardRemembersWhereItWas(t *testing.T) {
	move := func(s *State, to neon.NodeID) *State {
		sh := shardsOf(s, modelTenant(1))[0]
		s, _ = must(t, s, SetIntents{Intents: []Intent{{
			Shard: sh.ID, Sequence: sh.Sequence, Attached: to, Issue: true,
		}}})
		return s
	}
	prior := func(s *State) neon.NodeID { return shardsOf(s, modelTenant(1))[0].PriorNode }
	s := move(small(t), 3)
	if prior(s) != 0 {
		t.Errorf("the first level notes node %d", prior(s))
	}
	s, _ = must(t, s, SetLevel{Level: secondLevel})
	for _, c := range []struct{ to, was neon.NodeID }{{2, 3}, {2, 3}, {1, 2}} {
		if s = restored(t, move(s, c.to)); prior(s) != c.was {
			t.Errorf("on node %d it is said to have been on node %d, not %d", c.to, prior(s), c.was)
		}
	}
	tenant, _ := s.Tenant(modelTenant(1))
	s, _ = must(t, s, UpdateTenant{
		ID: tenant.ID, Sequence: tenant.Sequence, Policy: new(neon.Placement{}),
	})
	if prior(s) != 0 {
		t.Errorf("a detached shard was on node %d", prior(s))
	}
}
