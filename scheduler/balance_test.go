package scheduler

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"quorate/api/neon"
	"quorate/fsm"
)

// unlimited is a balancing that nothing holds up.
func unlimited(sizes map[neon.ShardID]uint64) Balancing {
	o := Balancing{Moves: 16, PerNode: 16}
	if len(sizes) > 0 {
		o.Size = func(sh *fsm.Shard) uint64 { return sizes[sh.ID] }
	}
	return o
}

// even balances and optimises until there is nothing to do, and completes the moves in
// between. It returns how many moves there were, and fails when a shard goes back to where
// it was.
func (w *world) even(o Balancing, limit int) (moves int) {
	w.t.Helper()
	o.Left = make(map[neon.ShardID][]neon.NodeID)
	for {
		s := w.scheduler()
		intents := s.Balance(o)
		if len(intents) == 0 {
			return moves
		}
		for _, in := range intents {
			w.mayGo(in, o.Left)
		}
		w.commit(s, fsm.SetIntents{Intents: intents})
		w.arrive()
		if moves += len(intents); moves > limit {
			w.t.Fatalf("still balancing after %d moves: %+v", moves, intents)
		}
	}
}

// mayGo demands of one move what holds for every one.
func (w *world) mayGo(in fsm.Intent, left map[neon.ShardID][]neon.NodeID) {
	w.t.Helper()
	sh, _ := w.state.Shard(in.Shard)
	if in.PreferredNode == 0 { // a secondary, for a disk
		w.steady(in)
		left[sh.ID] = append(left[sh.ID], sh.Attached)
		return
	}
	from, _ := w.state.Node(sh.Attached)
	to, _ := w.state.Node(in.PreferredNode)
	if l := w.loads[to.ID]; !to.Schedulable() || l.Silent || l.Unsteady ||
		in.Attached != sh.Attached || in.Issue {
		w.t.Fatalf("%+v goes to %+v: %+v", sh, to, in)
	}
	if from.AZ == sh.PreferredAZ && to.AZ != from.AZ {
		w.t.Fatalf("%+v leaves its home: %+v", sh, in)
	}
	if slices.Contains(left[sh.ID], to.ID) {
		w.t.Fatalf("%s goes back from node %d to %d", sh.ID, from.ID, to.ID)
	}
	left[sh.ID] = append(left[sh.ID], from.ID)
	tenant, _ := w.state.Tenant(sh.ID.Tenant)
	if tenant.Scheduling != neon.ShardActive {
		w.t.Fatalf("a pinned tenant moves: %+v", in)
	}
	others := func(n neon.NodeID) (count int) {
		for other := range w.state.TenantShards(sh.ID.Tenant) {
			if other.ID != sh.ID && other.Intends(n) {
				count++
			}
		}
		return count
	}
	if others(to.ID) > others(from.ID) {
		w.t.Fatalf("%+v goes where more of its tenant is: %+v", sh, in)
	}
}

// holders counts what nodes have and may have.
func (w *world) holders(sizes map[neon.ShardID]uint64) []holder {
	b := newBalance(&w.scheduler().round, unlimited(sizes))
	b.census()
	return b.holders
}

// needed is the least number of moves that brings the numbers within their bounds.
func needed(hs []holder) int {
	over, under := 0.0, 0.0
	for _, h := range hs {
		over += max(0, h.load[byNumber]-h.most)
		under += max(0, h.least-h.load[byNumber])
	}
	return int(max(over, under))
}

// checkEven demands that every node is within its bounds.
func (w *world) checkEven(sizes map[neon.ShardID]uint64) {
	w.t.Helper()
	for _, h := range w.holders(sizes) {
		if h.load[byNumber] > h.most || h.load[byNumber] < h.least {
			w.t.Fatalf("node %d has %v shards of %v to %v", h.id, h.load[byNumber], h.least,
				h.most)
		}
		var largest uint64
		for sh := range w.state.AttachedOn(h.id, neon.ShardID{}) {
			largest = max(largest, sizes[sh.ID])
		}
		excess := h.load[bySize] - h.fair[bySize]
		if h.oversized() && excess > 4./3*float64(largest) {
			w.t.Fatalf("node %d has %v bytes of %v, and its largest shard %d", h.id,
				h.load[bySize], h.fair[bySize], largest)
		}
	}
}

// put creates a tenant of one shard where it is wanted.
func (w *world) put(n int, home string, policy neon.Placement, nodes ...neon.NodeID) neon.ShardID {
	w.t.Helper()
	w.apply(fsm.CreateTenant{
		ID: tenantID(n), Policy: policy, Scheduling: neon.ShardActive,
		Shards: []fsm.NewShard{{
			Attached: nodes[0], Secondary: nodes[1:], PreferredAZ: neon.MakeAZ(home),
		}},
	})
	return neon.Unsharded(tenantID(n))
}

// Whatever the fleet, as long as all shards have a home or none has: it comes to rest
// within the bounds, with few moves, and none of them is taken back.
func TestBalancingComesToRestWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		zones := rapid.IntRange(1, 3).Draw(t, "zones")
		nodes := rapid.IntRange(2, 9).Draw(t, "nodes")
		alike, homeless := rapid.Bool().Draw(t, "alike"), rapid.Bool().Draw(t, "homeless")
		for id := range neon.NodeID(nodes) {
			w.addNode(id+1, string(rune('a'+int(id)%zones)))
			if !alike {
				w.loads[id+1] = Load{DiskUsable: rapid.Uint64Range(1, 4).Draw(t, "disk") << 40}
			}
		}
		sizes := make(map[neon.ShardID]uint64)
		places := rapid.SliceOfN(rapid.IntRange(0, nodes*nodes-1), 0, 150).Draw(t, "places")
		largest := rapid.IntRange(0, 9).Draw(t, "largest") // as a power of two
		for n, at := range places {
			id := neon.NodeID(at%nodes*at%nodes + 1) // more of the first ones
			node, _ := w.state.Node(id)
			home := node.AZ.String()
			if homeless {
				home = ""
			}
			policy, where := neon.Attached(0), []neon.NodeID{id}
			if at%2 == 0 {
				policy, where = neon.Attached(1), append(where, id%neon.NodeID(nodes)+1)
			}
			sh := w.put(n+1, home, policy, where...)
			sizes[sh] = uint64(1+rapid.IntRange(0, 1<<largest).Draw(t, "size")) << 30
		}
		if closed := rapid.IntRange(1, 3*nodes).Draw(t, "closed"); closed <= nodes && nodes > 2 {
			w.apply(fsm.SetNodeScheduling{
				Node: neon.NodeID(closed), Scheduling: neon.SchedulingPause,
			})
		}
		least := needed(w.holders(nil))
		if moves := w.even(unlimited(nil), 2*least); moves < least {
			t.Fatalf("it took %d moves, fewer than the %d needed", moves, least)
		}
		w.checkEven(nil)
		bySize := w.even(unlimited(sizes), 20+len(places))
		w.checkEven(sizes)
		if steps := w.optimise(len(places)); steps > 0 && bySize > 0 {
			t.Logf("%d steps", steps)
		}
		w.checkEven(nil)
	})
}

// Whatever the disks: where tenants are placed, nothing is to be moved by number afterwards.
// What a node's death leaves is placed so too.
func TestPlacementKeepsToTheFairShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		zones := rapid.IntRange(1, 3).Draw(t, "zones")
		nodes := rapid.IntRange(2*zones, 12).Draw(t, "nodes")
		for id := range neon.NodeID(nodes) {
			w.addNode(id+1, string(rune('a'+int(id)%zones)))
			disk := rapid.Uint64Range(1, 4).Draw(t, "disk") << 40
			w.loads[id+1] = Load{
				DiskUsable: disk, DiskWanted: rapid.Uint64Range(0, disk).Draw(t, "wanted"),
			}
		}
		policy := rapid.SampledFrom([]neon.Placement{neon.Attached(0), neon.Attached(1)}).Draw(t,
			"policy")
		for n := range rapid.IntRange(0, 300).Draw(t, "tenants") {
			if err := w.create(tenantID(n+1), 0, policy); err != nil {
				t.Fatal(err)
			}
		}
		w.checkEven(nil)
		if intents := w.scheduler().Balance(unlimited(nil)); len(intents) > 0 {
			t.Fatalf("%d shards are moved at once", len(intents))
		}
		if policy.WantedSecondaries() == 0 {
			w.judge(1, neon.NodeOffline)
			w.evacuate(1, 10)
			w.checkEven(nil)
		}
	})
}

// Balancing and optimising undo nothing of each other, also for tenants of many shards,
// and what Optimise measures does not grow.
func TestBalancingAndOptimisingComeToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, nodes := disordered(t, 12)
		for id := range neon.NodeID(nodes) {
			switch rapid.IntRange(0, 7).Draw(t, "state") {
			case 0:
				w.apply(fsm.SetNodeScheduling{Node: id + 1, Scheduling: neon.SchedulingPause})
			case 1:
				w.judge(id+1, neon.NodeOffline)
				w.evacuate(id+1, 10)
				w.replaceSecondaries(id+1, 10)
				if rapid.Bool().Draw(t, "back") {
					w.judge(id+1, neon.NodeActive)
					w.loads[id+1] = Load{Unsteady: rapid.Bool().Draw(t, "lately")}
				}
			}
		}
		sizes := make(map[neon.ShardID]uint64)
		for sh := range w.state.ShardsFrom(neon.ShardID{}) {
			sizes[sh.ID] = rapid.Uint64Range(0, 1<<36).Draw(t, "size")
		}
		w.repair()
		limit := 10 * w.locations()
		for steps := 0; ; {
			moves := w.even(unlimited(sizes), limit)
			moves += w.optimise(limit)
			if moves == 0 {
				return
			}
			if steps += moves; steps > limit {
				t.Fatalf("no rest after %d moves", steps)
			}
		}
	})
}

// The fleet of six nodes that was lopsided for good after two of them were drained.
func TestNodesThatWereDrainedGetTheirShare(t *testing.T) {
	w := newWorld(t)
	for id := range neon.NodeID(6) {
		w.addNode(id+1, fmt.Sprintf("az-%d", (id+1)%3))
	}
	n := 0
	for id, shards := range map[neon.NodeID]int{3: 20, 4: 40, 5: 40, 6: 20} {
		node, _ := w.state.Node(id)
		for range shards {
			n++
			w.put(n, node.AZ.String(), neon.Attached(1), id, id%3+2)
		}
	}
	if moves := w.even(unlimited(nil), 40); moves != 38 {
		t.Errorf("it took %d moves", moves)
	}
	for id := range neon.NodeID(6) {
		if got := w.state.Counts(id + 1).Attached; got < 19 || got > 21 {
			t.Errorf("node %d has %d shards", id+1, got)
		}
	}
}

// A secondary that changes places with the attached location costs no copy.
func TestSecondariesAreMadeUseOfFirst(t *testing.T) {
	w := newWorld(t)
	w.addNode(1, "")
	w.addNode(2, "")
	w.addNode(3, "")
	for n := range 60 {
		w.put(n+1, "", neon.Attached(1), 1, neon.NodeID(2+n%2))
	}
	for _, in := range w.scheduler().Balance(unlimited(nil)) {
		if len(in.Secondary) != 1 {
			t.Errorf("a copy is made: %+v", in)
		}
	}
	if moves := w.even(unlimited(nil), 60); moves != 39 {
		t.Errorf("it took %d moves", moves)
	}
}

// No more moves than allowed are begun, in all and for a node, and of a tenant one at a
// time. What waits does not count.
func TestBalancingIsBounded(t *testing.T) {
	w := newWorld(t)
	w.addNode(1, "a")
	w.addNode(2, "a")
	w.addNode(3, "a")
	for n := range 90 {
		w.put(n+1, "a", neon.Attached(0), 1)
	}
	for _, c := range []struct{ moves, perNode, want int }{
		{5, 100, 5}, {100, 4, 4}, {0, 4, 0}, {100, 1, 1},
	} {
		o := Balancing{Moves: c.moves, PerNode: c.perNode}
		if n := len(w.scheduler().Balance(o)); n != c.want {
			t.Errorf("%+v: %d moves were begun", c, n)
		}
	}
	s := w.scheduler()
	w.commit(s, fsm.SetIntents{Intents: s.Balance(Balancing{Moves: 100, PerNode: 4})})
	o := Balancing{Moves: 100, PerNode: 4}
	if n := len(w.scheduler().Balance(o)); n != 0 {
		t.Errorf("%d moves were begun beside four", n)
	}
	o.AtWork = func(neon.ShardID) bool { return false }
	if n := len(w.scheduler().Balance(o)); n != 4 {
		t.Errorf("%d moves were begun beside four that wait", n)
	}
	o.May = func(neon.ShardID) bool { return false }
	if n := len(w.scheduler().Balance(o)); n != 0 {
		t.Errorf("%d shards that may not were moved", n)
	}
}

// Large nodes get more than small ones, and so do zones.
func TestNodesAndZonesHaveWhatTheirDisksAreFor(t *testing.T) {
	w := newWorld(t)
	for id, disk := range []uint64{2, 6, 4, 4} {
		w.addNode(neon.NodeID(id+1), string("abab"[id]))
		w.loads[neon.NodeID(id+1)] = Load{DiskUsable: disk << 40}
	}
	for n := range 160 {
		w.put(n+1, "", neon.Attached(0), 1)
	}
	w.even(unlimited(nil), 160)
	w.checkEven(nil)
	for id, want := range map[neon.NodeID]int{1: 20, 2: 60, 3: 40, 4: 40} {
		if got := w.state.Counts(id).Attached; math.Abs(float64(got-want)) > 3 {
			t.Errorf("node %d has %d shards, not about %d", id, got, want)
		}
	}
	homes := make(map[string]int)
	for n := range 100 {
		_ = w.create(tenantID(1000+n), 0, neon.Attached(0))
		homes[w.shards(tenantID(1000 + n))[0].PreferredAZ.String()]++
	}
	if homes["a"] < 35 || homes["a"] > 40 {
		t.Errorf("zones of 6 and 10 TiB became the home of %v tenants", homes)
	}
}

// A fill brings the fair share: what has a secondary there first, and else what has none.
// Pinned tenants stay; those that are not optimised come.
func TestAFillBringsTheFairShare(t *testing.T) {
	w := newWorld(t)
	for id, zone := range []string{"a", "a", "b", "b"} {
		w.addNode(neon.NodeID(id+1), zone)
	}
	for n := range 40 {
		w.put(n+1, "a", neon.Attached(1), 2, neon.NodeID(3+n%2))
	}
	for n := range 5 {
		w.put(n+101, "a", neon.Attached(1), 2, 1)
		w.put(n+201, "a", neon.Attached(1), 3, 1) // away from home
		_ = w.update(tenantID(n+101), neon.Attached(1), neon.ShardEssential)
		_ = w.update(tenantID(n+1), neon.Attached(1), neon.ShardPause)
	}
	plan := w.scheduler().Fill(1)
	if len(plan) != 25 {
		t.Fatalf("a fill brings %d shards", len(plan))
	}
	for i, id := range plan {
		sh, _ := w.state.Shard(id)
		tenant, _ := w.state.Tenant(id.Tenant)
		if (i < 10) != sh.HasSecondary(1) || (i < 5) != (sh.Attached == 3) ||
			tenant.Scheduling == neon.ShardPause {
			t.Errorf("number %d is %+v", i, sh)
		}
	}
	for _, id := range []neon.NodeID{2, 9} {
		if plan := w.scheduler().Fill(id); len(plan) > 0 {
			t.Errorf("a fill of node %d brings %d shards", id, len(plan))
		}
	}
}
