package reconciler

import (
	"maps"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/scheduler"
)

// createOn creates tenants of one shard that are attached on a node and at home in its
// zone, with a secondary in another zone.
func (b *bench) createOn(n neon.NodeID, count int) {
	b.t.Helper()
	st := b.log.State()
	node, _ := st.Node(n)
	var others []neon.NodeID
	for other := range st.Nodes() {
		if other.AZ != node.AZ {
			others = append(others, other.ID)
		}
	}
	for i := range count {
		b.must(fsm.CreateTenant{
			ID: neon.TenantID{0xbb, byte(n), byte(i >> 8), byte(i)}, Stripe: 2048,
			Policy: neon.Attached(1), Scheduling: neon.ShardActive,
			Shards: []fsm.NewShard{{
				Attached: n, Secondary: others[i%len(others):][:1], PreferredAZ: node.AZ,
			}},
		})
	}
}

// backAfterRestart is what a pageserver does that was drained: its process ends, starts again and
// re-attaches, and the node is used again.
func (b *bench) backAfterRestart(n neon.NodeID, after time.Duration) {
	b.t.Helper()
	b.fleet.set(func() { b.fleet.down[n] = true })
	elapse(after)
	b.fleet.set(func() { b.fleet.down[n] = false })
	b.must(fsm.ReAttach{Node: n})
	b.now.ReAttached(n)
	elapse(3 * time.Second)
	b.must(fsm.SetNodeScheduling{Node: n, Scheduling: neon.SchedulingActive})
}

// numbers are the attached shards of every node.
func (b *bench) numbers() map[neon.NodeID]int {
	got := make(map[neon.NodeID]int)
	for n := range b.log.State().Nodes() {
		got[n.ID] = b.attachedOn(n.ID)
	}
	return got
}

// awaitEven waits until every node has between least and most shards, and demands that
// then nothing moves any more.
func (b *bench) awaitEven(least, most int, limit time.Duration) {
	b.t.Helper()
	out := func() (ids []neon.NodeID) {
		for id, n := range b.numbers() {
			if n < least || n > most {
				ids = append(ids, id)
			}
		}
		return ids
	}
	began := time.Now()
	for len(out()) > 0 {
		if elapse(time.Second); time.Since(began) > limit {
			b.t.Errorf("after %s nodes %v do not have %d to %d shards: %v", limit, out(), least,
				most, b.numbers())
			return
		}
	}
	b.t.Logf("even after %s: %v", time.Since(began), b.numbers())
	elapse(2 * b.opts.SteadyAfter) // what has fallen is counted on again
	b.awaitIdle()
	b.check()
	before := b.log.State().Hash()
	elapse(10 * time.Minute)
	if b.log.State().Hash() != before {
		b.t.Errorf("it does not rest: %v", b.numbers())
	}
}

// TestAFleetBecomesEvenAgain: whatever has made it lopsided, and whoever leads.
func TestAFleetBecomesEvenAgain(t *testing.T) {
	for name, c := range map[string]struct {
		spoil       func(b *bench)
		least, most int
	}{
		"two nodes drained, restarted and filled": {func(b *bench) {
			for _, n := range []neon.NodeID{1, 2} {
				b.begin(n, fsm.OperationDrain)
				b.ended()
				b.backAfterRestart(n, 80*time.Second)
				b.begin(n, fsm.OperationFill)
				b.ended()
			}
		}, 19, 21},
		"a node died and came back": {func(b *bench) {
			b.fleet.set(func() { b.fleet.down[1] = true })
			elapse(10 * time.Minute)
			b.backAfterRestart(1, time.Second)
		}, 19, 21},
		"a new node": {func(b *bench) {
			b.must(fsm.RegisterNode{
				ID: 7, Addr: fsm.NodeAddr{HTTPHost: "h", HTTPPort: 7}, AZ: neon.MakeAZ("az-1"),
			})
		}, 11, 21},
		"a new node, and leaders that change": {func(b *bench) {
			b.must(fsm.RegisterNode{
				ID: 7, Addr: fsm.NodeAddr{HTTPHost: "h", HTTPPort: 7}, AZ: neon.MakeAZ("az-1"),
			})
			for range 4 {
				elapse(21 * time.Second)
				b.depose()
				b.lead()
			}
		}, 11, 21},
	} {
		t.Run(name, func(t *testing.T) {
			scenario(t, 6, func(b *bench) {
				for n := range neon.NodeID(6) {
					b.createOn(n+1, 20)
				}
				b.awaitIdle()
				b.check()
				c.spoil(b)
				b.awaitEven(c.least, c.most, 15*time.Minute)
			})
		})
	}
}

// TestWhatAnOperatorHasPlacedStays: for an hour, whoever leads. Others move in its stead.
func TestWhatAnOperatorHasPlacedStays(t *testing.T) {
	scenario(t, 6, func(b *bench) {
		for n := range neon.NodeID(6) {
			b.createOn(n+1, 20)
		}
		b.awaitIdle()
		var placed []neon.ShardID
		for sh := range b.log.State().AttachedOn(1, neon.ShardID{}) {
			if placed = append(placed, sh.ID); len(placed) == 15 {
				break
			}
		}
		sched := scheduler.New(b.log.State(), b.now.Loads())
		var intents []fsm.Intent
		for i, id := range placed {
			sh, _ := b.log.State().Shard(id)
			move := sched.Prewarm
			if i%2 == 0 {
				move = sched.Migrate
			}
			in, err := move(sh, 4, scheduler.OverrideScheduler)
			if err != nil {
				b.t.Fatal(err)
			}
			in.Insisted, in.At = true, time.Now().UnixMilli()
			intents = append(intents, in)
		}
		b.must(fsm.SetIntents{Intents: intents})
		there := func() (n int) {
			for _, id := range placed {
				if sh, _ := b.log.State().Shard(id); sh.Attached == 4 {
					n++
				}
			}
			return n
		}
		elapse(time.Minute)
		for range 9 {
			if n := there(); n != len(placed) {
				b.t.Fatalf("%d shards of %d are where they were placed: %v", n, len(placed),
					b.numbers())
			}
			elapse(6 * time.Minute)
			b.depose()
			b.lead()
		}
		b.awaitEven(19, 21, 10*time.Minute)
	})
}

// TestMakingEvenKeepsToItsBudget: no more moves are at work at a time for a node.
func TestMakingEvenKeepsToItsBudget(t *testing.T) {
	scenario(t, 6, func(b *bench) {
		b.depose()
		b.opts.OptimiseInterval, b.opts.OptimisePerNode = time.Second, 4
		b.lead()
		b.createOn(2, 60)
		b.fleet.set(func() { b.fleet.slow = true }) // a download takes five seconds
		most := 0
		for range 5 * 60 {
			elapse(time.Second)
			most = max(most, b.preferring())
		}
		if most > 4 || most < 3 {
			b.t.Errorf("%d shards were being moved at a time", most)
		}
		if n := b.numbers(); n[2] > 31 || n[5] < 29 {
			b.t.Errorf("nodes have %v", n)
		}
	})
}

// TestLoadsAreLeftAloneWhenSaid: with no moves for a node nothing is made even.
func TestLoadsAreLeftAloneWhenSaid(t *testing.T) {
	scenario(t, 6, func(b *bench) {
		b.depose()
		b.opts.OptimisePerNode = -1
		b.lead()
		b.createOn(1, 60)
		elapse(10 * time.Minute)
		if n := b.attachedOn(1); n != 60 {
			b.t.Errorf("%d shards of 60 are there", n)
		}
	})
}

// TestLargeShardsAreSpread: nodes with as many shards as the others, of which one has all the
// large ones; a node that does not say its sizes is not taken for an empty one.
func TestLargeShardsAreSpread(t *testing.T) {
	scenario(t, 6, func(b *bench) {
		for n := range neon.NodeID(6) {
			b.createOn(n+1, 20)
		}
		b.fleet.set(func() {
			b.fleet.bytes = make(map[neon.ShardID]uint64)
			for sh := range b.log.State().AttachedOn(1, neon.ShardID{}) {
				b.fleet.bytes[sh.ID] = 10 << 30
			}
			for sh := range b.log.State().AttachedOn(4, neon.ShardID{}) {
				b.fleet.bytes[sh.ID] = 2 << 30
			}
		})
		elapse(15 * time.Minute)
		held := func(n neon.NodeID) (sum uint64) {
			for sh := range b.log.State().AttachedOn(n, neon.ShardID{}) {
				sum += b.fleet.bytes[sh.ID] >> 30
			}
			return sum
		}
		if one := held(1); one > 138 || one < 102 {
			b.t.Errorf("node 1 has %d GiB, node 4 %d", one, held(4))
		}
		b.awaitEven(19, 21, time.Second)
	})
}

// TestAFillTakesItsShare: also what has no secondary there. What had to be copied and does
// not get warm stays where it is, and is named.
func TestAFillTakesItsShare(t *testing.T) {
	for name, lag := range map[string]uint64{"warm": 0, "cold": 11 << 30} {
		t.Run(name, func(t *testing.T) {
			scenario(t, 6, func(b *bench) {
				b.depose()
				b.opts.OptimisePerNode = -1
				b.lead()
				for n := range neon.NodeID(6) {
					b.createOn(n+1, 20)
				}
				b.awaitIdle()
				b.begin(1, fsm.OperationDrain)
				b.ended()
				b.backAfterRestart(1, 80*time.Second)
				b.awaitIdle()
				b.fleet.set(func() { b.fleet.lag = lag })
				b.begin(1, fsm.OperationFill)
				b.ended()
				want := map[neon.NodeID]int{1: 20, 2: 20, 3: 20, 4: 20, 5: 20, 6: 20}
				if lag > 0 {
					want[1], want[4] = 0, 40
				}
				if got := b.numbers(); !maps.Equal(got, want) {
					b.t.Errorf("nodes have %v", got)
				}
				for o := range b.log.State().Outcomes() {
					if o.Kind == fsm.OperationFill && (o.Left.Count == 20) != (lag > 0) {
						b.t.Errorf("%d shards are said to stay", o.Left.Count)
					}
				}
				b.fleet.set(func() { b.fleet.lag = 0 })
				b.awaitIdle()
				b.check()
			})
		})
	}
}
