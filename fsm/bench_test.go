package fsm

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"testing"

	"quorate/api/neon"
)

// crowd is a state with six nodes and so many shards in tenants of four, each
// attached with a generation and with one secondary.
func crowd(b testing.TB, shards int) *State {
	b.Helper()
	w := begin(NewState())
	run := func(c Command) {
		if r := w.run(w.Index+1, RequestID{}, c); r.Err != nil || len(r.Refused) > 0 {
			b.Fatalf("%T: %+v", c, r)
		}
	}
	for id := neon.NodeID(1); id <= 6; id++ {
		run(RegisterNode{
			ID: id, AZ: neon.MakeAZ(string(rune('a' + id%3))), Addr: NodeAddr{HTTPHost: "ps"},
		})
		run(SetNodeAvailability{Verdicts: []Verdict{{Node: id, To: neon.NodeActive}}})
	}
	for n := range shards / 4 {
		c := CreateTenant{
			ID: crowdTenant(n), Count: 4, Stripe: neon.DefaultStripeSize, Policy: neon.Attached(1),
			Scheduling: neon.ShardActive,
		}
		var issues []Issue
		for i, id := range neon.ShardIDs(c.ID, 4) {
			on := neon.NodeID((n+i)%6 + 1)
			c.Shards = append(c.Shards, NewShard{
				Attached: on, Secondary: []neon.NodeID{on%6 + 1}, PreferredAZ: neon.MakeAZ("a"),
			})
			issues = append(issues, Issue{Shard: id, Node: on})
		}
		run(c)
		run(IssueGenerations{Items: issues})
	}
	w.touched = Touched{}
	return w.snapshot()
}

func crowdTenant(n int) neon.TenantID {
	return neon.TenantID{byte(n * 151), byte(n >> 16), byte(n >> 8), byte(n), 15: 1}
}

// moves are the intents that take so many shards to the next node.
func moves(s *State, count int, issue bool) SetIntents {
	var c SetIntents
	for sh := range s.ShardsFrom(neon.ShardID{}) {
		if len(c.Intents) == count {
			break
		}
		c.Intents = append(c.Intents, Intent{
			Shard: sh.ID, Sequence: sh.Sequence, Attached: sh.Secondary[0],
			Secondary: []neon.NodeID{sh.Attached}, Issue: issue,
		})
	}
	return c
}

// BenchmarkFailOver10k applies what an offline node with 10,000 of 100,000 shards
// takes, decoding included: intents with their generations in one go, and intents
// followed by the generations, in entries of 1,024 items.
func BenchmarkFailOver10k(b *testing.B) {
	s := crowd(b, 100_000)
	together := inEntries(b, s.Index, moves(s, 10_000, true))
	apart := inEntries(b, s.Index, moves(s, 10_000, false))
	var issues IssueGenerations
	for _, in := range moves(s, 10_000, false).Intents {
		sh, _ := s.Shard(in.Shard)
		issues.Items = append(issues.Items,
			Issue{Shard: in.Shard, Node: in.Attached, Generation: sh.Generation})
	}
	for i := 0; i < len(issues.Items); i += 1024 {
		chunk := IssueGenerations{issues.Items[i:min(i+1024, len(issues.Items))]}
		apart = append(apart, entry(b, s.Index+100+uint64(i), RequestID{}, chunk))
	}
	for name, batch := range map[string][]Entry{"together": together, "apart": apart} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				b.StopTimer()
				store := NewStore()
				store.reset(s)
				b.StartTimer()
				granted := 0
				for _, r := range store.Apply(batch) {
					granted += len(r.Grants)
				}
				if granted != 10_000 {
					b.Fatalf("%d granted", granted)
				}
			}
		})
	}
}

func inEntries(b *testing.B, index uint64, c SetIntents) (batch []Entry) {
	for i := 0; i < len(c.Intents); i += 1024 {
		chunk := SetIntents{c.Intents[i:min(i+1024, len(c.Intents))]}
		batch = append(batch, entry(b, index+uint64(i)+1, RequestID{}, chunk))
	}
	return batch
}

// BenchmarkSmallCommands applies a batch of 1,024 entries of one shard each, the
// most that the log hands over at once.
func BenchmarkSmallCommands(b *testing.B) {
	s := crowd(b, 100_000)
	var batch []Entry
	for i, in := range moves(s, 1024, true).Intents {
		batch = append(batch, entry(b, s.Index+uint64(i)+1, RequestID{byte(i), byte(i >> 8), 1},
			SetIntents{[]Intent{in}}))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		store := NewStore()
		store.reset(s)
		b.StartTimer()
		store.Apply(batch)
	}
}

// BenchmarkMemory tells the live bytes per shard.
func BenchmarkMemory(b *testing.B) {
	for _, shards := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("shards=%d", shards), func(b *testing.B) {
			for range b.N {
				before := live()
				s := crowd(b, shards)
				b.ReportMetric(float64(live()-before)/float64(s.ShardCount()), "B/shard")
				runtime.KeepAlive(s)
			}
		})
	}
}

func live() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkSnapshot writes and reads 100,000 shards.
func BenchmarkSnapshot(b *testing.B) {
	s := crowd(b, 100_000)
	data := snapshotOf(b, s)
	b.Run("write", func(b *testing.B) {
		b.ReportMetric(float64(len(data))/100_000, "file-B/shard")
		for range b.N {
			if _, err := (SnapshotWriter{s}).WriteTo(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		for range b.N {
			if _, err := ReadSnapshot(bytes.NewReader(data)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("take", func(b *testing.B) {
		w := begin(s)
		for range b.N {
			_ = w.snapshot()
		}
	})
}

// BenchmarkReAttach applies the start of a pageserver that has 1,667 of 10,000 shards
// attached and as many as secondaries.
func BenchmarkReAttach(b *testing.B) {
	s := crowd(b, 10_000)
	batch := []Entry{entry(b, s.Index+1, RequestID{}, ReAttach{Node: 3})}
	b.ReportAllocs()
	for range b.N {
		b.StopTimer()
		store := NewStore()
		store.reset(s)
		b.StartTimer()
		if r := store.Apply(batch)[0]; len(r.Grants) < 1500 || len(r.ReAttached) < 3000 {
			b.Fatalf("%d of %d", len(r.Grants), len(r.ReAttached))
		}
	}
}
