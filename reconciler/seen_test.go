package reconciler

import (
	"math/rand/v2"
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/reconciler/plan"
)

func sightOf(s *seen, id neon.ShardID, n neon.NodeID) plan.Sight {
	sc := &plan.Scene{Shard: fsm.Shard{ID: id, Attached: n}}
	s.scene(sc, func(neon.NodeID, uint64) bool { return true })
	return sc.On(n)
}

var single = plan.Conf{Mode: neon.AttachedSingle, Generation: 3}

func TestSeenIsUnknownUntilSomethingWasAnswered(t *testing.T) {
	s, id := newSeen(), shardN(1)
	if at := sightOf(s, id, 5); at.Known {
		t.Fatalf("a node that was never listed is known: %v", at)
	}
	s.list(5, 0, s.reading(), nil)
	if at := sightOf(s, id, 5); !at.Absent() {
		t.Fatalf("after a listing without it: %v", at)
	}
}

// Before a call the location becomes unknown, and a failed call leaves it so.
func TestSeenIsUnknownFromBeforeACallUntilItsAnswer(t *testing.T) {
	s, id := newSeen(), shardN(1)
	s.list(5, 0, s.reading(), map[neon.ShardID]*plan.Conf{id: &single})
	s.beginCall(id, 5, 4)
	if at := sightOf(s, id, 5); at.Known {
		t.Fatalf("known while a call is under way: %v", at)
	}
	s.endCall(id, 5, plan.Conf{Mode: neon.AttachedSingle, Generation: 4}, false)
	if at := sightOf(s, id, 5); at.Known {
		t.Fatalf("known after a call that failed: %v", at)
	}
	s.beginCall(id, 5, 4)
	s.endCall(id, 5, plan.Conf{Mode: neon.AttachedSingle, Generation: 4}, true)
	if at := sightOf(s, id, 5); !at.Attached() || at.Conf.Generation != 4 {
		t.Fatalf("after success: %v", at)
	}
}

// An answer that was under way while a call was made says nothing about after it.
func TestSeenIgnoresAnswersOlderThanACall(t *testing.T) {
	s, id := newSeen(), shardN(1)
	began := s.reading()
	s.beginCall(id, 5, 4)
	s.list(5, 0, began, map[neon.ShardID]*plan.Conf{id: &single})
	s.looked(id, 5, &single, began)
	if at := sightOf(s, id, 5); at.Known {
		t.Fatalf("an older answer settled it during the call: %v", at)
	}
	s.endCall(id, 5, plan.Conf{}, true)
	s.list(5, 0, began, map[neon.ShardID]*plan.Conf{id: &single})
	if at := sightOf(s, id, 5); at.Attached() {
		t.Fatalf("an older answer settled it after the call: %v", at)
	}
}

// A number that a call has carried is not fresh any more, whatever came of it.
func TestSeenFreshGenerationIsUsedOnce(t *testing.T) {
	s, id := newSeen(), shardN(1)
	s.grant([]fsm.Grant{{Shard: id, Generation: 7, Node: 5}})
	fresh := func() neon.Generation {
		sc := &plan.Scene{Shard: fsm.Shard{ID: id}}
		s.scene(sc, func(neon.NodeID, uint64) bool { return true })
		return sc.Fresh
	}
	if fresh() != 7 {
		t.Fatalf("fresh is %s", fresh())
	}
	s.beginCall(id, 5, 7)
	s.endCall(id, 5, plan.Conf{}, false)
	if fresh() != 0 {
		t.Fatalf("still fresh after a call: %s", fresh())
	}
}

func TestSeenForgetsANodeWhoseProcessChanged(t *testing.T) {
	s, a, b := newSeen(), shardN(1), shardN(2)
	s.list(5, 1, s.reading(), map[neon.ShardID]*plan.Conf{a: &single})
	s.forgetNode(5)
	for _, id := range []neon.ShardID{a, b} {
		if at := sightOf(s, id, 5); at.Known {
			t.Fatalf("%s is known on a node that restarted: %v", id, at)
		}
	}
}

func TestEntriesOfEachNodeAreCounted(t *testing.T) {
	s := newSeen()
	shards := neon.ShardIDs(neon.TenantID{7}, 8)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		id, n := shards[rng.IntN(len(shards))], neon.NodeID(1+rng.IntN(3))
		switch rng.IntN(6) {
		case 0:
			s.beginCall(id, n, 1)
		case 1:
			s.endCall(id, n, plan.Conf{Mode: neon.AttachedSingle}, rng.IntN(2) == 0)
		case 2:
			s.looked(id, n, &plan.Conf{}, s.reading())
		case 3:
			found := map[neon.ShardID]*plan.Conf{}
			for _, f := range shards[:rng.IntN(len(shards))] {
				found[f] = &plan.Conf{Mode: neon.AttachedSingle}
			}
			s.list(n, 1, s.reading(), found)
		case 4:
			s.forgetShard(id)
		case 5:
			s.forgetNode(n)
		}
		have := map[neon.NodeID]int{}
		for _, sh := range s.shards {
			for i := range sh.locations {
				have[sh.locations[i].node]++
			}
		}
		for n := neon.NodeID(1); n <= 3; n++ {
			if s.on[n] != have[n] {
				t.Fatalf("node %d has %d entries, counted %d", n, have[n], s.on[n])
			}
		}
	}
}
