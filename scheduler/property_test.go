package scheduler

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"quorate/api/neon"
	"quorate/fsm"
)

// machine drives random decisions over a random cluster. Every committed batch is
// compared with what the scheduler counted (see world.commit) and every state is
// checked by fsm.Check, which knows that no shard is twice on one node.
type machine struct {
	*world
	tenants int
}

func (m *machine) anyNode(t *rapid.T) neon.NodeID {
	nodes := slices.Collect(m.state.Nodes())
	return rapid.SampledFrom(nodes).Draw(t, "node").ID
}

func (m *machine) anyTenant(t *rapid.T) neon.TenantID {
	if m.tenants == 0 {
		t.Skip("no tenants")
	}
	return tenantID(rapid.IntRange(1, m.tenants).Draw(t, "tenant"))
}

var (
	zonesDrawn = rapid.SampledFrom([]string{"a", "b", "c", ""})
	placements = rapid.SampledFrom([]neon.Placement{
		neon.Attached(0), neon.Attached(1), neon.Attached(2), {Kind: neon.PlaceSecondary}, {},
	})
	schedulings = rapid.SampledFrom([]neon.ShardScheduling{
		neon.ShardActive, neon.ShardEssential, neon.ShardPause, neon.ShardStop,
	})
	availabilities = rapid.SampledFrom([]neon.NodeAvailability{
		neon.NodeActive, neon.NodeActive, neon.NodeWarmingUp, neon.NodeOffline,
	})
	nodePolicies = rapid.SampledFrom([]neon.NodeScheduling{
		neon.SchedulingActive, neon.SchedulingFilling, neon.SchedulingPause,
		neon.SchedulingDraining,
	})
)

func (m *machine) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"node": func(
			t *rapid.T,
		) {
			m.addNode(neon.NodeID(m.countNodes()+1), zonesDrawn.Draw(t, "zone"))
		},
		"availability": func(t *rapid.T) {
			m.judge(m.anyNode(t), availabilities.Draw(t, "availability"))
		},
		"node policy": func(t *rapid.T) {
			m.apply(fsm.SetNodeScheduling{
				Node: m.anyNode(t), Scheduling: nodePolicies.Draw(t, "policy"),
			})
		},
		"load": func(t *rapid.T) {
			m.loads[m.anyNode(t)] = Load{
				DiskWanted: rapid.Uint64().Draw(t, "wanted"),
				DiskUsable: rapid.Uint64().Draw(t, "usable"),
				Shards:     rapid.IntRange(0, 6000).Draw(t, "shards"),
			}
		},
		"create": func(t *rapid.T) {
			m.tenants++
			count := rapid.SampledFrom([]neon.ShardCount{0, 1, 2, 4}).Draw(t, "count")
			m.placed(t, func() error {
				return m.create(tenantID(m.tenants), count,
					placements.Draw(t, "policy"))
			})
		},
		"policy": func(t *rapid.T) {
			id := m.anyTenant(t)
			m.placed(t, func() error {
				return m.update(id, placements.Draw(t, "policy"),
					schedulings.Draw(t, "scheduling"))
			})
		},
		"evacuate": m.evacuateAny,
		"rehome": func(t *rapid.T) {
			id := m.anyNode(t)
			m.placed(t, func() error {
				m.replaceSecondaries(id,
					rapid.IntRange(1, 4).Draw(t, "batch"))
				return nil
			})
		},
		"repair":  m.repairAll,
		"migrate": m.migrateAny,
		"arrive":  m.arriveAny,
		"upgrade": func(t *rapid.T) {
			if !m.state.KnowsBasis() {
				m.apply(fsm.SetLevel{Level: fsm.Level})
			}
		},
	}
}

// placed runs a decision and demands that every location it added is on a node
// that was schedulable, or is a demoted one.
func (m *machine) placed(t *rapid.T, decide func() error) {
	before := m.state
	_ = decide()
	for sh := range m.state.ShardsFrom(neon.ShardID{}) {
		old, _ := before.Shard(sh.ID)
		for _, id := range append([]neon.NodeID{sh.Attached}, sh.Secondary...) {
			n, _ := m.state.Node(id)
			if id != 0 && !old.Intends(id) && !n.Schedulable() {
				t.Fatalf("%s was placed on node %d, which takes nothing: %+v", sh.ID, id, n)
			}
		}
	}
}

func (m *machine) open() (n int) {
	for node := range m.state.Nodes() {
		if node.Schedulable() {
			n++
		}
	}
	return n
}

func (m *machine) evacuateAny(t *rapid.T) {
	id := m.anyNode(t)
	node, _ := m.state.Node(id)
	before := m.state
	var moved int
	m.placed(t,
		func() error { moved = m.evacuate(id, rapid.IntRange(1, 4).Draw(t, "batch")); return nil })
	if m.open() == 0 || node.Availability != neon.NodeOffline {
		if moved > 0 {
			t.Fatalf("%d shards were moved off %+v with %d nodes to go to", moved, node, m.open())
		}
		return
	}
	for sh := range m.state.AttachedOn(id, neon.ShardID{}) {
		if tenant, _ := m.state.Tenant(sh.ID.Tenant); tenant.Scheduling != neon.ShardStop {
			t.Fatalf("%s is still attached on the dead node %d", sh.ID, id)
		}
	}
	for old := range before.AttachedOn(id, neon.ShardID{}) {
		sh, _ := m.state.Shard(old.ID)
		if sh.Attached != id && (sh.Generation != old.Generation+1 || sh.GenNode != sh.Attached) {
			t.Fatalf("%s was moved without a generation: %+v", sh.ID, sh)
		}
	}
}

// repairAll repairs and demands the number of locations each policy wants, as far
// as there are nodes.
func (m *machine) repairAll(t *rapid.T) {
	before := m.state
	m.placed(t, func() error { m.repair(); return nil })
	if m.open() == 0 {
		if m.state.Hash() != before.Hash() &&
			!reflect.DeepEqual(intents(m.state), intents(before)) {
			t.Fatal("something was moved with nobody schedulable")
		}
		return
	}
	for sh := range m.state.ShardsFrom(neon.ShardID{}) {
		tenant, _ := m.state.Tenant(sh.ID.Tenant)
		if tenant.Pinned() {
			if tenant.Scheduling == neon.ShardPause && tenant.Policy.Kind == neon.PlaceAttached &&
				sh.Attached == 0 {
				t.Fatalf("%s of a paused tenant is served nowhere", sh.ID)
			}
			continue
		}
		d := draft{secondary: sh.Secondary, preferred: sh.PreferredNode}
		got, want := d.counted(), tenant.Policy.WantedSecondaries()
		if (sh.Attached != 0) != (tenant.Policy.Kind == neon.PlaceAttached) || got > want {
			t.Fatalf("%s of a tenant placed %s: %+v", sh.ID, tenant.Policy, sh)
		}
		for n := range m.state.Nodes() {
			if got < want && n.Schedulable() && !sh.Intends(n.ID) {
				t.Fatalf("%s lacks a secondary that node %d could take: %+v", sh.ID, n.ID, sh)
			}
		}
	}
}

func intents(s *fsm.State) (all [][]neon.NodeID) {
	for sh := range s.ShardsFrom(neon.ShardID{}) {
		all = append(all, append([]neon.NodeID{sh.Attached}, sh.Secondary...))
	}
	return all
}

func (m *machine) migrateAny(t *rapid.T) {
	shards := m.shards(m.anyTenant(t))
	sh := rapid.SampledFrom(shards).Draw(t, "shard")
	to := m.anyNode(t)
	how := rapid.SampledFrom([]func(*Scheduler) (fsm.Intent, error){
		func(s *Scheduler) (fsm.Intent, error) { return s.Migrate(sh, to, OverrideScheduler) },
		func(s *Scheduler) (fsm.Intent, error) { return s.Migrate(sh, to, RespectScheduler) },
		func(s *Scheduler) (fsm.Intent, error) { return s.Prewarm(sh, to, RespectScheduler) },
		func(s *Scheduler) (fsm.Intent, error) { return s.MigrateSecondary(sh, to) },
	}).Draw(t, "how")
	s := m.scheduler()
	in, err := how(s)
	if err != nil {
		if neon.CodeOf(err) == neon.Internal {
			t.Fatalf("an error without a class: %v", err)
		}
		m.commit(s, fsm.SetIntents{}) // a refusal leaves the counts alone
		return
	}
	in.Insisted = m.state.KnowsBasis()
	m.commit(s, fsm.SetIntents{Intents: []fsm.Intent{in}})
}

// arriveAny ends a move, and demands that it could have been begun now.
func (m *machine) arriveAny(t *rapid.T) {
	sh := rapid.SampledFrom(m.shards(m.anyTenant(t))).Draw(t, "shard")
	tenant, _ := m.state.Tenant(sh.ID.Tenant)
	s := m.scheduler()
	in, ok := s.Arrive(sh)
	if !ok {
		return
	}
	if n, _ := m.state.Node(in.Attached); m.state.KnowsBasis() && !sh.Insisted &&
		(!n.Schedulable() || tenant.Pinned()) {
		t.Fatalf("%+v arrives on %+v", sh, n)
	}
	m.commit(s, fsm.SetIntents{Intents: []fsm.Intent{in}})
}

// TestDecisionsKeepInvariants: whatever the cluster goes through, what is decided
// is accepted, is on schedulable nodes, never twice on one, is counted right, and
// leaves nothing attached on a dead node while another node can take it.
func TestDecisionsKeepInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{world: newWorld(t)}
		for i := range rapid.IntRange(1, 6).Draw(t, "nodes") {
			m.addNode(neon.NodeID(i+1), zonesDrawn.Draw(t, "zone"))
		}
		t.Repeat(m.actions())
	})
}

// TestPlacementSpreadsOverZones: with enough schedulable nodes in two zones or
// more, what is attached is at home and every secondary is away from home, and no
// node has two more shards of a tenant attached than another one at home.
func TestPlacementSpreadsOverZones(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		zones, perZone := rapid.IntRange(2, 4).Draw(t,
			"zones"), rapid.IntRange(1, 4).Draw(t, "nodes a zone")
		for i := range zones * perZone {
			w.addNode(neon.NodeID(i+1), string(rune('a'+i%zones)))
		}
		secondaries := rapid.IntRange(0, min(2, (zones-1)*perZone)).Draw(t, "secondaries")
		for n := 1; n < 5; n++ {
			id := tenantID(n)
			if err := w.create(id, neon.ShardCount(rapid.IntRange(1, 9).Draw(t, "shards")),
				neon.Attached(secondaries)); err != nil {
				t.Fatal(err)
			}
			on := map[neon.NodeID]int{}
			for _, sh := range w.shards(id) {
				on[sh.Attached]++
				if node, _ := w.state.Node(sh.Attached); node.AZ != sh.PreferredAZ {
					t.Fatalf("%+v is attached away from home", sh)
				}
				for _, sec := range sh.Secondary {
					if node, _ := w.state.Node(sec); node.AZ == sh.PreferredAZ {
						t.Fatalf("%+v has a secondary at home", sh)
					}
				}
			}
			least, most := 1<<30, 0
			for node := range w.state.Nodes() {
				if node.AZ == w.shards(id)[0].PreferredAZ {
					least, most = min(least, on[node.ID]), max(most, on[node.ID])
				}
			}
			if most-least > 1 {
				t.Fatalf("uneven over the home zone: %v", on)
			}
		}
	})
}

// TestSameInputSamePlacement: a decision depends on the state and the loads alone.
func TestSameInputSamePlacement(t *testing.T) {
	w := newWorld(t)
	for i := range 7 {
		w.addNode(neon.NodeID(i+1), string(rune('a'+i%3)))
		w.loads[neon.NodeID(i+1)] = Load{DiskWanted: uint64(i % 2), DiskUsable: 10, Shards: i % 3}
	}
	for n := 1; n <= 20; n++ {
		if err := w.create(tenantID(n), 4, neon.Attached(1)); err != nil {
			t.Fatal(err)
		}
	}
	w.judge(3, neon.NodeOffline)
	first, _, _ := w.scheduler().Evacuate(3, neon.ShardID{}, 1000)
	again, _, _ := w.scheduler().Evacuate(3, neon.ShardID{}, 1000)
	if len(first) == 0 || !reflect.DeepEqual(first, again) {
		t.Fatalf("two answers to one question:\n%v\n%v", first, again)
	}
	// One scheduler in batches decides the same as in one go.
	s := w.scheduler()
	var batched []fsm.Intent
	for from, more := (neon.ShardID{}), true; more; {
		var some []fsm.Intent
		some, from, more = s.Evacuate(3, from, 3)
		batched = append(batched, some...)
	}
	if !reflect.DeepEqual(first, batched) {
		t.Fatalf("in batches something else is decided:\n%v\n%v", first, batched)
	}
}

// TestDeletedNodesAreForgotten: a location on a node that is gone is as missing as
// none.
func TestDeletedNodesAreForgotten(t *testing.T) {
	w := newWorld(t)
	w.addNode(1, "a")
	w.addNode(2, "b")
	w.addNode(3, "c")
	if err := w.create(tenantID(1), 1, neon.Attached(1)); err != nil {
		t.Fatal(err)
	}
	sh := w.shards(tenantID(1))[0]
	sh.Attached, sh.Secondary, sh.PreferredNode = 98, []neon.NodeID{2, 99}, 97
	in, ok := w.scheduler().Repair(sh)
	if !ok || in.Attached != 2 || !slices.Equal(in.Secondary, []neon.NodeID{3}) ||
		in.PreferredNode != 0 {
		t.Fatalf("got %+v, %v", in, ok)
	}
}

func TestUtilisationSaturates(t *testing.T) {
	for _, c := range []struct{ part, whole, want uint64 }{
		{1, 2, 500_000}, {5, 0, 0}, {0, 7, 0}, {1 << 63, 1, 1<<64 - 1},
		{1 << 63, 1 << 62, 2_000_000},
	} {
		if got := permillion(c.part, c.whole); got != c.want {
			t.Errorf("%d of %d: %d, want %d", c.part, c.whole, got, c.want)
		}
	}
}

// TestScoresAreATotalOrder: comparing is antisymmetric and transitive, else the
// choice would depend on the order of the nodes.
func TestScoresAreATotalOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	some := func() Score {
		return Score{
			Overloaded: r.IntN(2) == 0, Zone: uint8(r.IntN(3)), Affinity: r.IntN(2),
			Filled: r.Uint64N(2), Utilisation: r.Uint64N(2), Node: neon.NodeID(r.IntN(3)),
		}
	}
	for range 20_000 {
		a, b, c := some(), some(), some()
		if a.Compare(b) != -b.Compare(a) || (a.Compare(b) == 0) != (a == b) {
			t.Fatalf("%+v against %+v", a, b)
		}
		if a.Compare(b) <= 0 && b.Compare(c) <= 0 && a.Compare(c) > 0 {
			t.Fatalf("%+v, %+v, %+v are in no order", a, b, c)
		}
	}
}
