package scheduler

import (
	"fmt"
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
)

// full is a cluster in three zones with 10,000 shards attached on node 1 and, in
// all, that many per node; tenants have four shards.
func full(b *testing.B, nodes int, policy neon.Placement, crowd int) *world {
	w := newWorld(b)
	for i := range nodes {
		w.addNode(neon.NodeID(i+1), string(rune('a'+i%3)))
	}
	secondary := func(n, i int) []neon.NodeID {
		if policy.WantedSecondaries() == 0 {
			return nil
		}
		return []neon.NodeID{neon.NodeID(2 + (n*7+i)%(nodes-1))}
	}
	for n := range crowd / 4 {
		shards := make([]fsm.NewShard, 4)
		for i := range shards {
			shards[i] = fsm.NewShard{
				Attached: 1, Secondary: secondary(n, i), PreferredAZ: neon.MakeAZ("a"),
			}
		}
		w.apply(fsm.CreateTenant{
			ID: tenantID(n), Count: 4, Policy: policy, Scheduling: neon.ShardActive, Shards: shards,
		})
	}
	w.judge(1, neon.NodeOffline)
	return w
}

// BenchmarkEvacuate decides where the 10,000 shards of a dead node go.
func BenchmarkEvacuate(b *testing.B) {
	for _, nodes := range []int{6, 300} {
		for _, policy := range []neon.Placement{neon.Attached(0), neon.Attached(1)} {
			b.Run(fmt.Sprintf("nodes=%d/%s", nodes, policy), func(b *testing.B) {
				w := full(b, nodes, policy, 10_000)
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					if intents, _, more := w.scheduler().Evacuate(1, neon.ShardID{},
						1<<20); len(intents) != 10_000 || more {
						b.Fatalf("%d shards moved", len(intents))
					}
				}
			})
		}
	}
}

// BenchmarkPlace places 10,000 shards with a secondary each in tenants of four.
func BenchmarkPlace(b *testing.B) {
	for _, nodes := range []int{6, 300} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			w := full(b, nodes, neon.Attached(1), 0)
			b.ReportAllocs()
			for range b.N {
				s := w.scheduler()
				for n := range 2500 {
					if _, err := s.PlaceTenant(tenantID(n), 4, neon.Attached(1)); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkRepairIdle asks for each of 10,000 shards whether anything is missing.
func BenchmarkRepairIdle(b *testing.B) {
	w := full(b, 300, neon.Attached(1), 10_000)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		s := w.scheduler()
		for sh := range w.state.ShardsFrom(neon.ShardID{}) {
			if in, ok := s.Repair(sh); ok {
				b.Fatal(in)
			}
		}
	}
}

// BenchmarkNew is what one single decision costs on top.
func BenchmarkNew(b *testing.B) {
	w := full(b, 300, neon.Attached(0), 0)
	b.ResetTimer()
	for range b.N {
		_ = w.scheduler()
	}
}

// BenchmarkBalance looks for moves on 300 nodes with 100,000 shards: when there is
// nothing to do, when one node has nothing, and when nodes differ in their bytes.
func BenchmarkBalance(b *testing.B) {
	const nodes, shards = 300, 100_000
	w := newWorld(b)
	for i := range nodes {
		w.addNode(neon.NodeID(i+1), string(rune('a'+i%3)))
	}
	sizes := make(map[neon.ShardID]uint64)
	for n := range shards / 4 {
		t := fsm.CreateTenant{
			ID: tenantID(n), Count: 4, Policy: neon.Attached(1), Scheduling: neon.ShardActive,
		}
		for i := range 4 {
			at := (n*4 + i) % nodes
			t.Shards = append(t.Shards, fsm.NewShard{
				Attached: neon.NodeID(at + 1), PreferredAZ: neon.MakeAZ(string(rune('a' + at%3))),
				Secondary: []neon.NodeID{neon.NodeID((at+1)%nodes + 1)},
			})
			sizes[neon.ShardID{Tenant: t.ID, Number: neon.ShardNumber(i), Count: 4}] =
				uint64(1+at*7) << 28
		}
		w.apply(t)
	}
	look := func(name string, o Balancing, want bool) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				if n := len(w.scheduler().Balance(o)); (n > 0) != want {
					b.Fatalf("%d moves", n)
				}
			}
		})
	}
	look("even", unlimited(nil), false)
	look("sizes", unlimited(sizes), true)
	w.addNode(nodes+1, "a")
	look("a new node", unlimited(nil), true)
}
