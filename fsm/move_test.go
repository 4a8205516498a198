package fsm

import (
	"slices"
	"testing"

	"quorate/api/neon"
)

// moving is small at this version's level, with the first shard on its way to node 3.
func moving(t *testing.T, insisted bool) *State {
	t.Helper()
	s, _ := must(t, small(t), SetLevel{Level: Level})
	return prewarm(t, s, insisted)
}

func prewarm(t *testing.T, s *State, insisted bool) *State {
	t.Helper()
	sh, _ := s.Shard(shard0)
	s, _ = must(t, s, SetIntents{Intents: []Intent{{
		Shard: shard0, Sequence: sh.Sequence, Attached: sh.Attached,
		Secondary: []neon.NodeID{2, 3}, PreferredNode: 3, Insisted: insisted,
	}}})
	return s
}

func tenantPolicy(t *testing.T, s *State, to neon.ShardScheduling) *State {
	t.Helper()
	tenant, _ := s.Tenant(shard0.Tenant)
	s, _ = must(t, s, UpdateTenant{ID: tenant.ID, Sequence: tenant.Sequence, Scheduling: &to})
	return s
}

func nodePolicy(t *testing.T, s *State, id neon.NodeID, to neon.NodeScheduling) *State {
	t.Helper()
	s, _ = must(t, s, SetNodeScheduling{Node: id, Scheduling: to})
	return s
}

func TestMovesEndWithTheirReason(t *testing.T) {
	operate := func(id neon.NodeID, kind OperationKind) func(*testing.T, *State) *State {
		return func(t *testing.T, s *State) *State {
			s, _ = must(t, s,
				BeginNodeOperation{Node: id, Kind: kind, Prior: neon.SchedulingActive})
			return s
		}
	}
	node := func(to neon.NodeScheduling) func(*testing.T, *State) *State {
		return func(t *testing.T, s *State) *State { return nodePolicy(t, s, 3, to) }
	}
	tenant := func(to neon.ShardScheduling) func(*testing.T, *State) *State {
		return func(t *testing.T, s *State) *State { return tenantPolicy(t, s, to) }
	}
	for _, c := range []struct {
		what       string
		change     func(*testing.T, *State) *State
		ends       bool
		endsOrders bool // also those of operators
	}{
		{"the node is paused", node(neon.SchedulingPause), true, true},
		{"the node waits for its restart", node(neon.SchedulingPauseForRestart), true, true},
		{"the node is filled", operate(3, OperationFill), false, false},
		{"the node is drained", operate(3, OperationDrain), true, true},
		{"the node is deleted", operate(3, OperationDelete), true, true},
		{"another node is paused", func(t *testing.T, s *State) *State {
			return nodePolicy(t, s, 2, neon.SchedulingPause)
		}, false, false},
		{"the tenant is paused", tenant(neon.ShardPause), true, true},
		{"the tenant is stopped", tenant(neon.ShardStop), true, true},
		{"the tenant is not optimised any more", tenant(neon.ShardEssential), true, false},
		{"the node that it leaves is drained, and then that", func(t *testing.T, s *State) *State {
			return tenantPolicy(t, operate(1, OperationDrain)(t, s), neon.ShardEssential)
		}, false, false},
	} {
		for _, insisted := range []bool{false, true} {
			s := c.change(t, moving(t, insisted))
			ends := c.ends && !insisted || c.endsOrders && insisted
			if sh, _ := s.Shard(shard0); (sh.PreferredNode == 0) != ends ||
				sh.Insisted != (insisted && !ends) || ends && sh.Sequence != s.Index {
				t.Errorf("%s, insisted %v: %+v", c.what, insisted, sh)
			}
		}
		old := c.change(t, prewarm(t, small(t), false))
		if sh, _ := old.Shard(shard0); sh.PreferredNode != 3 {
			t.Errorf("%s, below the level: %+v", c.what, sh)
		}
	}
}

// What could not be begun at this level ends with the upgrade to it.
func TestAnUpgradeEndsMovesThatCouldNotBeBegun(t *testing.T) {
	begun := prewarm(t, small(t), false)
	sh, _ := begun.Shard(shard0)
	nowhere, _ := must(t, begun, SetIntents{Intents: []Intent{{
		Shard: shard0, Sequence: sh.Sequence, Attached: 1, PreferredNode: 3,
	}}})
	deleting, _ := must(t, tenantPolicy(t, begun, neon.ShardPause),
		BeginNodeOperation{Node: 1, Kind: OperationDelete, Prior: neon.SchedulingActive})
	for what, c := range map[string]struct {
		s    *State
		ends bool
	}{
		"sound":        {begun, false},
		"paused node":  {nodePolicy(t, begun, 3, neon.SchedulingPause), true},
		"pinned":       {tenantPolicy(t, begun, neon.ShardPause), true},
		"for deletion": {deleting, false},
		"not there":    {nowhere, true},
	} {
		s, _ := must(t, c.s, SetLevel{Level: Level})
		if sh, _ := s.Shard(shard0); (sh.PreferredNode == 0) != c.ends {
			t.Errorf("%s: %+v", what, sh)
		}
	}
}

// Nothing is newly attached where nothing is taken, whatever decides it.
func TestOnlyWhatTakesShardsGetsThem(t *testing.T) {
	offline := func(t *testing.T, s *State) *State {
		s, _ = must(t, s, SetNodeAvailability{
			Verdicts: []Verdict{{Node: 3, To: neon.NodeOffline}},
		})
		return s
	}
	for what, change := range map[string]func(*testing.T, *State) *State{
		"paused": func(t *testing.T, s *State) *State {
			return nodePolicy(t, s, 3, neon.SchedulingPause)
		},
		"offline": offline,
	} {
		s, _ := must(t, small(t), SetLevel{Level: Level})
		s = change(t, s)
		sh, _ := s.Shard(shard0)
		tenant, _ := s.Tenant(shard0.Tenant)
		in := Intent{Shard: shard0, Sequence: sh.Sequence, Attached: 3}
		warm := Intent{
			Shard: shard0, Sequence: sh.Sequence, Attached: 1, Secondary: []neon.NodeID{3},
			PreferredNode: 3,
		}
		create := CreateTenant{
			ID: modelTenant(2), Stripe: 1, Policy: neon.Attached(0), Scheduling: neon.ShardActive,
			Shards: []NewShard{{Attached: 3}},
		}
		update := UpdateTenant{ID: tenant.ID, Sequence: tenant.Sequence, Intents: []Intent{in}}
		for _, c := range []Command{update, create} {
			next, r := Apply(s, s.Index+1, RequestID{}, c)
			if neon.CodeOf(r.Err) != neon.Conflict || !sameRecords(s, next) {
				t.Errorf("%s: %#v: %v", what, c, r.Err)
			}
		}
		for _, in := range []Intent{in, warm} {
			next, r := Apply(s, s.Index+1, RequestID{}, SetIntents{Intents: []Intent{in}})
			if wanted := in.Attached == 3 || what == "paused"; wanted != (len(r.Refused) == 1) ||
				wanted && !sameRecords(s, next) {
				t.Errorf("%s: %+v: %+v", what, in, r)
			}
			in.Insisted = true
			next, _ = must(t, s, SetIntents{Intents: []Intent{in}})
			if now, _ := next.Shard(shard0); now.Attached != in.Attached ||
				now.Insisted != (in.PreferredNode != 0) {
				t.Errorf("%s: insisted on, it is %+v", what, now)
			}
		}
	}
}

// What an operator insists on is remembered until something else is decided.
func TestAnOperatorInsistsUntilSomethingElseIsDecided(t *testing.T) {
	s, _ := must(t, small(t), SetLevel{Level: Level})
	s = prewarm(t, nodePolicy(t, s, 3, neon.SchedulingPause), true)
	sh, _ := s.Shard(shard0)
	set := func(attached, preferred neon.NodeID, secondary ...neon.NodeID) (Shard, Result) {
		next, r := Apply(s, s.Index+1, RequestID{}, SetIntents{Intents: []Intent{{
			Shard: shard0, Sequence: sh.Sequence, Attached: attached, Secondary: secondary,
			PreferredNode: preferred,
		}}})
		now, _ := next.Shard(shard0)
		return now, r
	}
	if now, r := set(2, 3, 1, 3); len(r.Refused) > 0 || !now.Insisted {
		t.Errorf("on its way from another node: %+v", now)
	}
	if now, r := set(3, 0, 2); len(r.Refused) > 0 || now.Attached != 3 || now.Insisted {
		t.Errorf("at its end: %+v", now)
	}
	if now, r := set(1, 2, 2); len(r.Refused) > 0 || now.Insisted || now.PreferredNode != 2 {
		t.Errorf("moved elsewhere: %+v", now)
	}
	if now, r := set(1, 3, 2); len(r.Refused) > 0 || now.Insisted || now.PreferredNode != 0 ||
		!slices.Equal(now.Secondary, []neon.NodeID{2}) {
		t.Errorf("without a place to become warm: %+v", now)
	}
	next, _ := must(t, s, DeleteNode{Node: 3})
	if now, _ := next.Shard(shard0); now.PreferredNode != 0 || now.Insisted {
		t.Errorf("to a node that is deleted: %+v", now)
	}
}

// Where an operator has wanted a shard last is kept, and since when, whatever is decided
// later. The children of a split are placed by nobody.
func TestWhereAnOperatorHasPlacedAShardIsKept(t *testing.T) {
	s, _ := must(t, small(t), SetLevel{Level: Level})
	set := func(in Intent) Shard {
		t.Helper()
		sh, _ := s.Shard(shard0)
		in.Shard, in.Sequence = shard0, sh.Sequence
		s, _ = must(t, s, SetIntents{Intents: []Intent{in}})
		sh, _ = s.Shard(shard0)
		return sh
	}
	for _, c := range []struct {
		what string
		in   Intent
		on   neon.NodeID
		at   int64
	}{
		{"by the leader", Intent{Attached: 2, Secondary: []neon.NodeID{1}, At: 3}, 0, 0},
		{"by hand", Intent{Attached: 3, Secondary: []neon.NodeID{1}, Insisted: true, At: 5}, 3, 5},
		{"elsewhere", Intent{Attached: 1, Secondary: []neon.NodeID{3}}, 3, 5},
		{"warmed by hand", Intent{
			Attached: 1, Secondary: []neon.NodeID{2}, PreferredNode: 2, Insisted: true, At: 7,
		}, 2, 7},
		{"arrived", Intent{Attached: 2, Secondary: []neon.NodeID{1}}, 2, 7},
		{"nobody knows when", Intent{Attached: 1, Insisted: true}, 2, 7},
	} {
		if sh := set(c.in); sh.PlacedOn != c.on || sh.PlacedAt != c.at {
			t.Errorf("%s: %+v", c.what, sh)
		}
	}
	restored(t, s)
	s, _ = must(t, s, ReAttach{Node: 1})
	s, _ = splitOf(t, s)
	sp, _ := s.Split(shard0.Tenant)
	s, _ = must(t, s, CommitSplit{Tenant: sp.Tenant, Began: sp.Began})
	for _, sh := range shardsOf(s, shard0.Tenant) {
		if sh.PlacedOn != 0 || sh.PlacedAt != 0 {
			t.Errorf("a child of a split: %+v", sh)
		}
	}
}
