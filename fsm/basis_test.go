package fsm

import (
	"testing"

	"quorate/api/neon"
)

// late is small at this version's level, with node 1 lost and a decision to take the first
// shard from it.
func late(t *testing.T) (*State, Intent) {
	t.Helper()
	s, _ := must(t, small(t), SetLevel{Level: Level})
	s, _ = must(t, s, SetNodeAvailability{Verdicts: []Verdict{{Node: 1, To: neon.NodeOffline}}})
	sh, _ := s.Shard(shard0)
	return s, Intent{
		Shard: shard0, Sequence: sh.Sequence, Attached: 2, Secondary: []neon.NodeID{1}, Issue: true,
		Basis: BasisOf(s, &sh, 1),
	}
}

// refuses demands that an intent, and a number for the shard where it is, are refused.
func refuses(t *testing.T, what string, s *State, in Intent) {
	t.Helper()
	sh, _ := s.Shard(in.Shard)
	issue := Issue{
		Shard: in.Shard, Node: sh.Attached, Generation: sh.Generation, Basis: in.Basis,
	}
	for _, c := range []Command{
		SetIntents{Intents: []Intent{in}}, IssueGenerations{Items: []Issue{issue}},
	} {
		next, r := Apply(s, s.Index+1, RequestID{}, c)
		if r.Err != nil || len(r.Refused) != 1 || len(r.Grants) > 0 || !sameRecords(s, next) {
			t.Errorf("%s: %#v: %+v", what, c, r)
		}
	}
	tenant, _ := s.Tenant(in.Shard.Tenant)
	c := UpdateTenant{ID: tenant.ID, Sequence: tenant.Sequence, Intents: []Intent{in}}
	if _, r := Apply(s, s.Index+1, RequestID{}, c); neon.CodeOf(r.Err) != neon.Conflict {
		t.Errorf("%s: %#v: %v", what, c, r.Err)
	}
}

func TestADecisionIsRefusedOnceItsBasisIsGone(t *testing.T) {
	s, in := late(t)
	must(t, s, SetIntents{Intents: []Intent{in}})
	tenant, _ := s.Tenant(shard0.Tenant)
	for what, changes := range map[string][]Command{
		"the node is back":       {ReAttach{Node: 1}},
		"it answers again":       {SetNodeAvailability{Verdicts: []Verdict{{Node: 1, To: neon.NodeActive}}}},
		"its policy has changed": {SetNodeScheduling{Node: 1, Scheduling: neon.SchedulingPause}},
		"it was attached anew": {IssueGenerations{Items: []Issue{{
			Shard: shard0, Node: 1, Generation: 1,
		}}}},
		"its tenant is stopped": {UpdateTenant{
			ID: tenant.ID, Sequence: tenant.Sequence, Scheduling: new(neon.ShardStop),
		}},
		"it is back and lost again": {
			ReAttach{Node: 1},
			SetNodeAvailability{Verdicts: []Verdict{{Node: 1, To: neon.NodeOffline}}},
		},
	} {
		now := s
		for _, c := range changes {
			now, _ = must(t, now, c)
		}
		refuses(t, what, now, in)
	}
}

// A shard that serves nobody is taken from a node that does not answer, unless it serves by
// then: compute was told.
func TestAShardThatServesIsNotTakenForOneThatDoesNot(t *testing.T) {
	s, _ := must(t, small(t), SetLevel{Level: Level})
	sh, _ := s.Shard(shard0)
	issue := Issue{Shard: shard0, Node: 1, Generation: sh.Generation}
	s, _ = must(t, s, IssueGenerations{Items: []Issue{issue}})
	sh, _ = s.Shard(shard0)
	in := Intent{
		Shard: shard0, Sequence: sh.Sequence, Attached: 2, Secondary: []neon.NodeID{1}, Issue: true,
		Basis: BasisOf(s, &sh, 1),
	}
	told, _ := must(t, s, AckNotifications{Acks: []Ack{{Shard: shard0, Node: 1}}})
	must(t, told, SetIntents{Intents: []Intent{in}}) // whoever deletes the node takes it
	in.Basis.Unserved = true
	must(t, s, SetIntents{Intents: []Intent{in}})
	refuses(t, "compute was told", told, in)
}

// What is based on nothing is of an earlier version, and is applied as it always was.
func TestTheFirstVersionsDecisionsAreAppliedAsBefore(t *testing.T) {
	s, in := late(t)
	old := small(t)
	sh, _ := old.Shard(shard0)
	if b := BasisOf(old, &sh, 1); b != nil {
		t.Errorf("a basis below the level: %+v", b)
	}
	for _, c := range []Command{
		SetIntents{Intents: []Intent{in}}, UpdateTenant{Intents: []Intent{in}},
		SetIntents{Intents: []Intent{{Insisted: true}}},
		IssueGenerations{Items: []Issue{{Basis: in.Basis}}},
	} {
		if Admit(old, c) == nil || Admit(s, c) != nil {
			t.Errorf("%#v: %v below the level, %v at it", c, Admit(old, c), Admit(s, c))
		}
	}
	paused, _ := must(t, old, SetNodeScheduling{Node: 3, Scheduling: neon.SchedulingPause})
	paused, _ = must(t, paused, SetIntents{Intents: []Intent{{
		Shard: shard0, Sequence: sh.Sequence, Attached: 3, PreferredNode: 1, Issue: true,
	}}})
	now, _ := paused.Shard(shard0)
	if now.Attached != 3 || now.PreferredNode != 1 || now.Generation != 2 {
		t.Errorf("applied as %+v", now)
	}
}

// A stopped tenant's shards are attached by nobody.
func TestAStoppedTenantGetsNoNumbers(t *testing.T) {
	s, in := late(t)
	tenant, _ := s.Tenant(shard0.Tenant)
	s, _ = must(t, s, UpdateTenant{
		ID: tenant.ID, Sequence: tenant.Sequence, Scheduling: new(neon.ShardStop),
	})
	in.Basis = nil
	for _, c := range []Command{
		SetIntents{Intents: []Intent{in}},
		IssueGenerations{Items: []Issue{{Shard: shard0, Node: 1, Generation: 1}}},
	} {
		if next, r := Apply(s, s.Index+1, RequestID{}, c); len(r.Refused) != 1 ||
			!sameRecords(s, next) {
			t.Errorf("%#v: %+v", c, r)
		}
	}
	in.Issue = false // which only says where it should be
	must(t, s, SetIntents{Intents: []Intent{in}})
}

// A silence is no change of what is decided on.
func TestASilenceLeavesBasesAsTheyAre(t *testing.T) {
	s, _ := must(t, small(t), SetLevel{Level: Level})
	before, _ := s.Node(1)
	for _, since := range []int64{7, 0} {
		s, _ = must(t, s, NoteSilence{Nodes: []Silence{{Node: 1, Since: since}}})
		if n, _ := s.Node(1); n.Silent != since || n.Sequence != before.Sequence {
			t.Errorf("%+v", n)
		}
	}
}
