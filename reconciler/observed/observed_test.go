package observed

import (
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/reconciler/plan"
)

func sightOf(s *Locations, id neon.ShardID, n neon.NodeID) plan.Sight {
	sc := &plan.Scene{Shard: fsm.Shard{ID: id, Attached: n}}
	s.Describe(sc, func(neon.NodeID, uint64) bool { return true })
	return sc.On(n)
}

var (
	shard1 = neon.ShardID{Tenant: neon.TenantID{1}}
	shard2 = neon.ShardID{Tenant: neon.TenantID{2}}
)

var single = plan.Conf{Mode: neon.AttachedSingle, Generation: 3}

func TestSeenIsUnknownUntilSomethingWasAnswered(t *testing.T) {
	s, id := New(), shard1
	if at := sightOf(s, id, 5); at.Known {
		t.Fatalf("a node that was never listed is known: %v", at)
	}
	s.List(5, 0, s.Clock(), nil)
	if at := sightOf(s, id, 5); !at.Absent() {
		t.Fatalf("after a listing without it: %v", at)
	}
}

// Before a call the location becomes unknown, and a failed call leaves it so.
func TestSeenIsUnknownFromBeforeACallUntilItsAnswer(t *testing.T) {
	s, id := New(), shard1
	s.List(5, 0, s.Clock(), map[neon.ShardID]*plan.Conf{id: &single})
	s.BeginCall(id, 5, 4)
	if at := sightOf(s, id, 5); at.Known {
		t.Fatalf("known while a call is under way: %v", at)
	}
	s.EndCall(id, 5, plan.Conf{Mode: neon.AttachedSingle, Generation: 4}, false)
	if at := sightOf(s, id, 5); at.Known {
		t.Fatalf("known after a call that failed: %v", at)
	}
	s.BeginCall(id, 5, 4)
	s.EndCall(id, 5, plan.Conf{Mode: neon.AttachedSingle, Generation: 4}, true)
	if at := sightOf(s, id, 5); !at.Attached() || at.Conf.Generation != 4 {
		t.Fatalf("after success: %v", at)
	}
}

// After calls that were under way at the same time nobody knows which had its effect last.
func TestCallsAtTheSameTimeLeaveALocationUnknown(t *testing.T) {
	s, id := New(), shard1
	attached := plan.Conf{Mode: neon.AttachedSingle, Generation: 4}
	for _, last := range []plan.Conf{{}, attached} {
		s.BeginCall(id, 5, 4)
		s.BeginCall(id, 5, 0)
		s.EndCall(id, 5, attached, true)
		if at := sightOf(s, id, 5); at.Known {
			t.Errorf("known while the other one is under way: %v", at)
		}
		if s.Looked(id, 5, &attached, s.Clock()) {
			t.Error("a look is said to have settled it meanwhile")
		}
		s.EndCall(id, 5, last, true)
		if at := sightOf(s, id, 5); at.Known {
			t.Errorf("known though the first may have come last: %v", at)
		}
		if !s.Looked(id, 5, &attached, s.Clock()) || !sightOf(s, id, 5).Attached() {
			t.Error("a look after both is not believed")
		}
		s.BeginCall(id, 5, 0)
		s.EndCall(id, 5, plan.Conf{}, true)
		if at := sightOf(s, id, 5); !at.Absent() {
			t.Errorf("after a call alone: %v", at)
		}
	}
}

// An answer that was under way while a call was made says nothing about after it.
func TestSeenIgnoresAnswersOlderThanACall(t *testing.T) {
	s, id := New(), shard1
	began := s.Clock()
	s.BeginCall(id, 5, 4)
	s.List(5, 0, began, map[neon.ShardID]*plan.Conf{id: &single})
	s.Looked(id, 5, &single, began)
	if at := sightOf(s, id, 5); at.Known {
		t.Fatalf("an older answer settled it during the call: %v", at)
	}
	s.EndCall(id, 5, plan.Conf{}, true)
	s.List(5, 0, began, map[neon.ShardID]*plan.Conf{id: &single})
	if at := sightOf(s, id, 5); at.Attached() {
		t.Fatalf("an older answer settled it after the call: %v", at)
	}
}

// A number that a call has carried is not fresh any more, whatever came of it.
func TestSeenFreshGenerationIsUsedOnce(t *testing.T) {
	s, id := New(), shard1
	s.Grant([]fsm.Grant{{Shard: id, Generation: 7, Node: 5}})
	fresh := func() neon.Generation {
		sc := &plan.Scene{Shard: fsm.Shard{ID: id}}
		s.Describe(sc, func(neon.NodeID, uint64) bool { return true })
		return sc.Fresh
	}
	if fresh() != 7 {
		t.Fatalf("fresh is %s", fresh())
	}
	s.BeginCall(id, 5, 7)
	s.EndCall(id, 5, plan.Conf{}, false)
	if fresh() != 0 {
		t.Fatalf("still fresh after a call: %s", fresh())
	}
}

func TestSeenForgetsANodeWhoseProcessChanged(t *testing.T) {
	s, a, b := New(), shard1, shard2
	s.List(5, 1, s.Clock(), map[neon.ShardID]*plan.Conf{a: &single})
	s.ForgetNode(5)
	for _, id := range []neon.ShardID{a, b} {
		if at := sightOf(s, id, 5); at.Known {
			t.Fatalf("%s is known on a node that restarted: %v", id, at)
		}
	}
}

func TestWhatVanishedWhileANodeRestartedIsNoted(t *testing.T) {
	attached := map[neon.ShardID]*plan.Conf{shard1: &single}
	for name, tt := range map[string]struct {
		between func(*Locations)
		found   map[neon.ShardID]*plan.Conf
		want    neon.NodeID
	}{
		"it is gone":          {want: 5},
		"it restarted twice":  {between: func(s *Locations) { s.ForgetNode(5) }, want: 5},
		"it is there":         {found: attached},
		"its disk is empty":   {between: func(s *Locations) { s.ClearNode(5) }},
		"the node is deleted": {between: func(s *Locations) { s.DropNode(5) }},
		"a call meanwhile": {between: func(s *Locations) {
			s.BeginCall(shard1, 5, 4)
			s.EndCall(shard1, 5, single, false)
		}},
	} {
		s := New()
		s.List(5, 0, s.Clock(), attached)
		s.List(5, 0, s.Clock(), nil)
		if n, _ := s.Vanished(shard1); n != 0 {
			t.Errorf("%s: noted without a restart", name)
		}
		s.List(5, 0, s.Clock(), attached)
		s.ForgetNode(5)
		if tt.between != nil {
			tt.between(s)
		}
		s.List(5, 1, s.Clock(), tt.found)
		if n, at := s.Vanished(shard1); n != tt.want || (n != 0) == at.IsZero() {
			t.Errorf("%s: from node %d at %v, want %d", name, n, at, tt.want)
		}
		s.BeginCall(shard1, 5, 4)
		if n, _ := s.Vanished(shard1); n != 0 {
			t.Errorf("%s: noted after it was attached again", name)
		}
	}
}

// TestAModeOfANewerPageserverIsNotAnAbsence: what is there is not known, but something is.
func TestAModeOfANewerPageserverIsNotAnAbsence(t *testing.T) {
	s := New()
	s.List(5, 1, s.Clock(), map[neon.ShardID]*plan.Conf{shard1: {Mode: "AttachedTwice"}})
	if at := sightOf(s, shard1, 5); at.Known {
		t.Errorf("taken for %v", at)
	}
	if ids := s.AnyOn(5); len(ids) != 1 {
		t.Errorf("may be on the node: %v", ids)
	}
}

// TestSeenIgnoresAnswersOfAnEarlierProcess: what was asked before a node restarted
// tells nothing of what it holds now, also of shards that were not known there.
func TestSeenIgnoresAnswersOfAnEarlierProcess(t *testing.T) {
	s, id := New(), shard1
	began := s.Clock()
	s.ForgetNode(5)
	s.List(5, 1, began, map[neon.ShardID]*plan.Conf{id: &single})
	if at := sightOf(s, id, 5); at.Known {
		t.Errorf("a listing of the earlier process settled it: %v", at)
	}
	s.Looked(id, 5, &single, began)
	if at := sightOf(s, id, 5); at.Known {
		t.Errorf("a look at the earlier process settled it: %v", at)
	}
	s.List(5, 2, s.Clock(), map[neon.ShardID]*plan.Conf{id: &single})
	if at := sightOf(s, id, 5); !at.Attached() {
		t.Errorf("a listing of the new process did not: %v", at)
	}
}

// TestWhatIsDetachedIsNotThere: a location that was detached leaves no entry that
// could be taken for one.
func TestWhatIsDetachedIsNotThere(t *testing.T) {
	s, id := New(), shard1
	s.List(5, 1, s.Clock(), map[neon.ShardID]*plan.Conf{id: &single})
	s.BeginCall(id, 5, 0)
	s.EndCall(id, 5, plan.Conf{}, true)
	if at := sightOf(s, id, 5); !at.Absent() {
		t.Errorf("after a detach: %v", at)
	}
	if o := s.Wire(&fsm.Shard{ID: id}); len(o) != 0 {
		t.Errorf("people are shown %v", o)
	}
	if c := plan.ConfOf(&neon.LocationConfig{Mode: neon.Detached}); *c != (plan.Conf{}) {
		t.Errorf("a listed detached location is %v", c)
	}
}

// TestADestinationServesOnceItHasCaughtUp: before, compute would read old data there.
func TestADestinationServesOnceItHasCaughtUp(t *testing.T) {
	s := New()
	sh := &fsm.Shard{ID: shard1, Generation: 4, GenNode: 5}
	if s.Serves(sh) {
		t.Error("a shard serves of which nothing was seen")
	}
	multi := plan.Conf{Mode: neon.AttachedMulti, Generation: 4}
	s.List(5, 1, s.Clock(), map[neon.ShardID]*plan.Conf{shard1: &multi})
	if s.Serves(sh) {
		t.Error("the destination of a migration serves before it has caught up")
	}
	if ids := s.CuttingOver(); len(ids) != 1 || ids[0] != shard1 {
		t.Errorf("cutting over: %v", ids)
	}
	if s.SetCaughtUp(shard1, 5); !s.Serves(sh) {
		t.Error("it does not serve after it has caught up")
	}
	sh.Generation++
	if s.Serves(sh) {
		t.Error("an older generation serves")
	}
	s.List(5, 1, s.Clock(), map[neon.ShardID]*plan.Conf{shard1: {
		Mode: neon.AttachedSingle, Generation: 5,
	}})
	if !s.Serves(sh) {
		t.Error("a location that is attached alone does not serve")
	}
}

// TestPlacesThatOthersChangeAreUnknown: also if they were just listed.
func TestPlacesThatOthersChangeAreUnknown(t *testing.T) {
	s := New()
	s.List(5, 1, s.Clock(), map[neon.ShardID]*plan.Conf{shard1: &single})
	if ids := s.AttachedOn(5); len(ids) != 1 {
		t.Fatalf("attached are %v", ids)
	}
	s.Forget([]fsm.Leftover{{Shard: shard1, Node: 5}, {Shard: shard2, Node: 6}})
	for _, p := range []fsm.Leftover{{Shard: shard1, Node: 5}, {Shard: shard2, Node: 6}} {
		if at := sightOf(s, p.Shard, p.Node); at.Known {
			t.Errorf("%s is known on node %d: %v", p.Shard, p.Node, at)
		}
		if ids := s.AnyOn(p.Node); len(ids) != 1 || ids[0] != p.Shard {
			t.Errorf("on node %d may be %v", p.Node, ids)
		}
		if conf, shown := s.Wire(&fsm.Shard{ID: p.Shard})[p.Node]; !shown || conf != nil {
			t.Errorf("people are shown %v, %v", conf, shown)
		}
	}
	s.DropNode(5)
	if ids := s.AnyOn(5); len(ids) != 0 || s.EverListed(5) {
		t.Errorf("a deleted node has %v", ids)
	}
}

// A disk that was lost is believed for what is shown. What is on the node is unknown all
// the same until it is listed: a late report must not let a deletion go on.
func TestClearedNodeShowsNothingAndIsKnownByItsNextListing(t *testing.T) {
	s, id := New(), shard1
	s.List(5, 0, s.Clock(), map[neon.ShardID]*plan.Conf{id: &single})
	s.BeginCall(shard2, 5, 4)
	began := s.Clock()
	s.ClearNode(5)
	if shown := s.Wire(&fsm.Shard{ID: id}); len(shown) != 0 {
		t.Errorf("shown: %v", shown)
	}
	if shown := s.Wire(&fsm.Shard{ID: shard2}); len(shown) != 1 || shown[5] != nil {
		t.Errorf("while a call is under way: %v", shown)
	}
	if at := sightOf(s, id, 5); at.Known || s.EverListed(5) {
		t.Errorf("before the listing: %v, listed %v", at, s.EverListed(5))
	}
	s.List(5, 1, began, map[neon.ShardID]*plan.Conf{id: &single})
	if at := sightOf(s, id, 5); at.Known {
		t.Errorf("an older listing made it %v", at)
	}
	s.List(5, 1, s.Clock(), nil)
	if at := sightOf(s, id, 5); !at.Absent() || !s.EverListed(5) {
		t.Errorf("after the listing: %v", at)
	}
}
