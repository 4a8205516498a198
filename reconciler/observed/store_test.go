package observed

import (
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"quorate/api/neon"
)

// TestStoreIsAsASetOfPlaces adds and removes places at random, also while it goes over them.
func TestStoreIsAsASetOfPlaces(t *testing.T) {
	type place struct {
		shard neon.ShardID
		node  neon.NodeID
	}
	shards := neon.ShardIDs(neon.TenantID{7}, 200)
	rng := rand.New(rand.NewPCG(1, 2))
	s, model := newStore(), map[place]bool{}
	for range 50_000 {
		id, n := shards[rng.IntN(len(shards))], neon.NodeID(rng.IntN(9))
		switch rng.IntN(12) {
		case 0:
			for l := range s.on(n) {
				if l.generation%2 == 0 {
					delete(model, place{l.shard, n})
					s.remove(l)
				}
			}
		case 1:
			for l := range s.of(id) {
				delete(model, place{id, s.node(l)})
				s.remove(l)
			}
		case 2, 3:
			if l := s.find(id, n); l != nil {
				delete(model, place{id, n})
				s.remove(l)
			}
		default:
			s.locate(id, n).generation = neon.Generation(rng.Uint32())
			model[place{id, n}] = true
		}
	}
	var have, of, on []place
	for p := range model {
		have = append(have, p)
	}
	for _, id := range shards {
		for l := range s.of(id) {
			of = append(of, place{l.shard, s.node(l)})
		}
	}
	for n := range neon.NodeID(9) {
		count := len(on)
		for l := range s.on(n) {
			on = append(on, place{l.shard, s.node(l)})
		}
		if s.count(n) != len(on)-count {
			t.Errorf("node %d has %d, counted %d", n, len(on)-count, s.count(n))
		}
	}
	order := func(a, b place) int {
		if c := a.shard.Compare(b.shard); c != 0 {
			return c
		}
		return int(a.node) - int(b.node)
	}
	for _, got := range [][]place{have, of, on} {
		slices.SortFunc(got, order)
	}
	if !slices.Equal(have, of) || !slices.Equal(have, on) {
		t.Errorf("%d places; %d by shard, %d by node", len(have), len(of), len(on))
	}
	if room := len(s.chunks) * chunk; room > 9*len(shards)+chunk {
		t.Errorf("room for %d locations: what is removed is not used again", room)
	}
}

// TestALocationIsSmall: there are millions of them.
func TestALocationIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(location{}); size > 64 {
		t.Errorf("a location has %d bytes", size)
	}
}
