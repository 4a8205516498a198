package scheduler

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"quorate/api/neon"
	"quorate/fsm"
)

// optimise runs rounds, of one proposal a tenant and at most 16, until there are
// none, and completes the moves between them as if everything became warm. It
// returns how many proposals there were.
func (w *world) optimise(limit int) (steps int) {
	w.t.Helper()
	for {
		s := w.scheduler()
		var intents []fsm.Intent
		for tenant := range w.state.TenantsFrom(neon.TenantID{}) {
			for sh := range w.state.TenantShards(tenant.ID) {
				if in, ok := s.Optimise(sh); ok {
					intents = append(intents, in)
					break
				}
			}
			if len(intents) == 16 {
				break
			}
		}
		if len(intents) == 0 {
			return steps
		}
		for _, in := range intents {
			w.steady(in)
		}
		w.commit(s, fsm.SetIntents{Intents: intents})
		was := w.state
		w.arrive()
		if w.left != nil {
			w.left.watch(w, was)
		}
		if steps += len(intents); steps > limit {
			w.t.Fatalf("still optimising after %d steps: %+v", steps, intents)
		}
	}
}

// steady demands that a better place is on no node that has come back only lately, or whose
// disk is full.
func (w *world) steady(in fsm.Intent) {
	w.t.Helper()
	sh, _ := w.state.Shard(in.Shard)
	for _, id := range append(in.Secondary, in.Attached) {
		if l := w.loads[id]; !sh.Intends(id) && (l.Unsteady || l.Full) {
			w.t.Fatalf("%+v goes to node %d, which does not take it: %+v", sh, id, in)
		}
	}
}

// arrive completes every move that is under way.
func (w *world) arrive() {
	w.t.Helper()
	s := w.scheduler()
	var intents []fsm.Intent
	for sh := range w.state.ShardsFrom(neon.ShardID{}) {
		if in, ok := s.Arrive(sh); ok {
			intents = append(intents, in)
		}
	}
	w.commit(s, fsm.SetIntents{Intents: intents})
}

func (w *world) locations() (n int) {
	for sh := range w.state.ShardsFrom(neon.ShardID{}) {
		n += 1 + len(sh.Secondary)
	}
	return n
}

// disordered is a world of some nodes and tenants, and what operators have made of it.
func disordered(t *rapid.T, mostTenants int) (w *world, nodes int) {
	w = newWorld(t)
	for id := range neon.NodeID(rapid.IntRange(2, 7).Draw(t, "nodes")) {
		w.addNode(id+1, zonesDrawn.Draw(t, "zone"))
	}
	nodes = w.countNodes()
	for n := range rapid.IntRange(1, mostTenants).Draw(t, "tenants") {
		count := rapid.SampledFrom([]neon.ShardCount{0, 1, 4, 8}).Draw(t, "count")
		_ = w.create(tenantID(n+1), count, placements.Draw(t, "policy"))
	}
	for range rapid.IntRange(0, 12).Draw(t, "disorder") {
		w.disturb(t, nodes)
	}
	return w, nodes
}

// Whatever the shards' places and the states of the nodes were, optimising comes to
// rest in a bounded number of steps, and then neither repairs nor anything that only
// fluctuates make it begin again.
func TestOptimisingComesToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, nodes := disordered(t, 4)
		full := make(map[neon.NodeID]bool)
		for id := range neon.NodeID(nodes) {
			switch rapid.IntRange(0, 7).Draw(t, "state") {
			case 0:
				w.apply(fsm.SetNodeScheduling{Node: id + 1, Scheduling: neon.SchedulingPause})
			case 1:
				w.judge(id+1, neon.NodeOffline)
				w.evacuate(id+1, 10)
				w.replaceSecondaries(id+1, 10)
			case 2:
				full[id+1] = true
			}
		}
		w.fluctuate(t, full)
		w.repair()
		w.optimise(10 * w.locations())
		for range 3 {
			w.fluctuate(t, full)
			w.repair()
			if steps := w.optimise(0); steps > 0 {
				t.Fatalf("utilisation alone was a reason for %d moves", steps)
			}
		}
	})
}

// fluctuate changes the loads of all nodes; the full ones stay full and the others
// do not become so.
func (w *world) fluctuate(t *rapid.T, full map[neon.NodeID]bool) {
	for n := range w.state.Nodes() {
		least, most := uint64(0), uint64(190)
		if full[n.ID] {
			least, most = 200, 900
		}
		w.loads[n.ID] = Load{
			DiskWanted: rapid.Uint64Range(least, most).Draw(t, "wanted"), DiskUsable: 100,
			Shards: rapid.IntRange(0, 4000).Draw(t, "shards"),
		}
	}
}

// disturb puts one shard where it is as an operator might.
func (w *world) disturb(t *rapid.T, nodes int) {
	at := rapid.IntRange(0, max(0, w.state.ShardCount()-1)).Draw(t, "shard")
	for sh := range w.state.ShardsFrom(neon.ShardID{}) {
		if at--; at >= 0 {
			continue
		}
		to := neon.NodeID(rapid.IntRange(1, nodes).Draw(t, "to"))
		s := w.scheduler()
		move := rapid.SampledFrom([]func(fsm.Shard, neon.NodeID) (fsm.Intent, error){
			func(
				sh fsm.Shard, to neon.NodeID,
			) (fsm.Intent, error) {
				return s.Migrate(sh, to, OverrideScheduler)
			},
			s.MigrateSecondary,
		}).Draw(t, "move")
		if in, err := move(sh, to); err == nil {
			w.commit(s, fsm.SetIntents{Intents: []fsm.Intent{in}})
		}
		return
	}
}

func (w *world) countNodes() (n int) {
	for range w.state.Nodes() {
		n++
	}
	return n
}

// What was placed on nodes that are all alike needs no optimising.
func TestFreshPlacementIsOptimal(t *testing.T) {
	for nodes := 1; nodes <= 9; nodes++ {
		for zones := 1; zones <= 3; zones++ {
			for _, count := range []neon.ShardCount{0, 1, 2, 4, 8, 16, 32} {
				for _, policy := range []neon.Placement{
					neon.Attached(0), neon.Attached(1), neon.Attached(2),
					{Kind: neon.PlaceSecondary},
				} {
					w := newWorld(t)
					for id := range neon.NodeID(nodes) {
						w.addNode(id+1, fmt.Sprintf("az-%d", int(id)%zones))
					}
					for n := range 5 {
						_ = w.create(tenantID(n+1), count, policy)
					}
					s := w.scheduler()
					for sh := range w.state.ShardsFrom(neon.ShardID{}) {
						if in, ok := s.Optimise(sh); ok {
							t.Errorf("%d nodes in %d zones, %d shards, %s: %+v should be %+v",
								nodes, zones, count, policy, sh, in)
							break
						}
					}
				}
			}
		}
	}
}

// A shard that lost its place at home comes back: warmed first, and with as many
// secondaries as wanted in the end, none of them at home.
func TestAShardComesHomeInOneMove(t *testing.T) {
	w := newWorld(t)
	w.addNode(1, "a")
	w.addNode(2, "a")
	w.addNode(3, "b")
	w.addNode(4, "c")
	_ = w.create(tenantID(1), 0, neon.Attached(1))
	sh := w.shards(tenantID(1))[0]
	home, away := sh.Attached, sh.Secondary[0]
	w.judge(home, neon.NodeOffline)
	w.evacuate(home, 10)
	w.replaceSecondaries(home, 10)
	if steps := w.optimise(2); steps != 1 {
		t.Errorf("it took %d steps to come home", steps)
	}
	sh = w.shards(tenantID(1))[0]
	if n, _ := w.state.Node(sh.Attached); n.AZ != sh.PreferredAZ || len(sh.Secondary) != 1 ||
		sh.Secondary[0] == home {
		t.Errorf("was on %d and %d: %+v", home, away, sh)
	}
}

// Pinned tenants and nodes that cannot be compared are left alone.
func TestWhatCannotBeComparedIsNotMoved(t *testing.T) {
	for name, change := range map[string]func(*world){
		"paused tenant": func(
			w *world,
		) {
			_ = w.update(tenantID(1), neon.Attached(0), neon.ShardPause)
		},
		"essential": func(
			w *world,
		) {
			_ = w.update(tenantID(1), neon.Attached(0), neon.ShardEssential)
		},
		"paused node": func(
			w *world,
		) {
			w.apply(fsm.SetNodeScheduling{Node: 2, Scheduling: neon.SchedulingPause})
		},
		"full node": func(w *world) { w.loads[1] = Load{Shards: 6000} },
	} {
		w := newWorld(t)
		w.addNode(1, "a")
		w.addNode(2, "b")
		_ = w.create(tenantID(1), 0, neon.Attached(0))
		sh := w.shards(tenantID(1))[0]
		s := w.scheduler()
		in, err := s.Migrate(sh, 2, OverrideScheduler)
		if err != nil {
			t.Fatal(err)
		}
		w.commit(s, fsm.SetIntents{Intents: []fsm.Intent{in}})
		if in, ok := w.scheduler().Optimise(w.shards(tenantID(1))[0]); !ok ||
			in.PreferredNode != 1 {
			t.Fatalf("it should go home: %+v", in)
		}
		change(w)
		if in, ok := w.scheduler().Optimise(w.shards(tenantID(1))[0]); ok {
			t.Errorf("%s: %+v", name, in)
		}
	}
}
