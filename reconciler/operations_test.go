package reconciler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/wait"
)

// begin starts an operation on a node and returns its name.
func (b *bench) begin(n neon.NodeID, kind fsm.OperationKind) uint64 {
	b.t.Helper()
	node, _ := b.log.State().Node(n)
	return b.must(fsm.BeginNodeOperation{Node: n, Kind: kind, Prior: node.Scheduling}).Index
}

func (b *bench) policy(n neon.NodeID) neon.NodeScheduling {
	node, _ := b.log.State().Node(n)
	return node.Scheduling
}

// ended waits, in virtual time, until no operation is left.
func (b *bench) ended() {
	b.t.Helper()
	for range 600 {
		if operating(b.log.State()) == 0 {
			return
		}
		elapse(time.Second)
	}
	b.t.Error("an operation does not end")
}

// moving is the largest number of shards that are warmed at a time.
func (b *bench) preferring() (n int) {
	for sh := range b.log.State().ShardsFrom(neon.ShardID{}) {
		if sh.PreferredNode != 0 {
			n++
		}
	}
	return n
}

// A drain empties the node, whether shards have secondaries or not, wherever in it
// the leader is replaced, and fill brings the share back.
func TestDrainAndFillEndTheSameWhereverTheLeaderDies(t *testing.T) {
	for _, kill := range []time.Duration{0, 1, 5, 20, 60, 120, 300, 500, 900} {
		scenario(t, 4, func(b *bench) {
			b.create(40, 1, neon.Attached(1))
			b.create(40, 2, neon.Attached(0))
			b.awaitIdle()
			b.fleet.set(func() { b.fleet.latency = 5 * time.Millisecond })
			n := b.busiest()
			had := b.attachedOn(n)
			b.begin(n, fsm.OperationDrain)
			if kill > 0 {
				elapse(kill * time.Millisecond)
				b.depose()
				b.lead()
			}
			b.ended()
			if p := b.policy(n); p != neon.SchedulingPauseForRestart || b.attachedOn(n) != 0 {
				b.t.Errorf("killed after %d ms: drained of %d shards, node %d is %s and has %d",
					kill, had, n, p, b.attachedOn(n))
			}
			b.check()
			b.must(fsm.SetNodeScheduling{Node: n, Scheduling: neon.SchedulingActive})
			b.begin(n, fsm.OperationFill)
			if kill > 0 {
				elapse(kill * time.Millisecond)
				b.depose()
				b.lead()
			}
			b.ended()
			if p := b.policy(n); p != neon.SchedulingActive || b.attachedOn(n) == 0 {
				b.t.Errorf("killed after %d ms: filled, node %d is %s and has %d", kill, n, p,
					b.attachedOn(n))
			}
			b.awaitIdle()
			b.check()
		})
	}
}

// The end of a move begins the next, and the command of a client the first one: an operation
// is as fast as what it moves, however rarely it is looked at. It has no more moves at a node
// than that takes part in.
func TestAnOperationDoesNotWaitForAClock(t *testing.T) {
	scenario(t, 4, func(b *bench) {
		b.create(4000, 1, neon.Attached(1))
		b.depose()
		b.opts.OperationInterval = time.Minute
		b.lead()
		b.awaitIdle()
		n := b.busiest()
		for _, kind := range []fsm.OperationKind{fsm.OperationDrain, fsm.OperationFill} {
			before, began, most := b.attachedOn(n), time.Now(), 0
			b.begin(n, kind)
			for operating(b.log.State()) > 0 && time.Since(began) < time.Hour {
				elapse(time.Millisecond)
				most = max(most, b.crowd())
			}
			took := time.Since(began)
			moves := max(b.attachedOn(n)-before, before-b.attachedOn(n))
			if moves < 900 || took > 250*time.Millisecond || most > 256 {
				b.t.Errorf("%s: %d moves took %s, %d at a time", kind, moves, took, most)
			}
			b.must(fsm.SetNodeScheduling{Node: n, Scheduling: neon.SchedulingActive})
		}
	})
}

// A graceful deletion moves everything, secondaries included, and only then makes
// a tombstone; by force it waits for nothing. Neither leaves anything behind.
func TestDeletionEndsInATombstoneWhereverTheLeaderDies(t *testing.T) {
	for _, force := range []bool{false, true} {
		for _, kill := range []time.Duration{0, 1, 5, 20, 60, 120, 300, 500, 900} {
			scenario(t, 4, func(b *bench) {
				b.create(40, 1, neon.Attached(1))
				b.create(40, 2, neon.Attached(0))
				b.awaitIdle()
				b.fleet.set(func() { b.fleet.latency = 5 * time.Millisecond })
				n := b.busiest()
				b.must(fsm.BeginNodeOperation{
					Node: n, Kind: fsm.OperationDelete, Force: force, Prior: neon.SchedulingActive,
				})
				if kill > 0 {
					elapse(kill * time.Millisecond)
					b.depose()
					b.lead()
				}
				b.ended()
				if node, _ := b.log.State().Node(n); !node.Tombstone ||
					b.log.State().Counts(n).Shards != 0 {
					b.t.Errorf("force %v, killed after %d ms: %+v with %+v", force, kill, node,
						b.log.State().Counts(n))
				}
				if left := len(b.fleet.at[n]); left > 0 && !force {
					b.t.Errorf("killed after %d ms: %d locations are left on the deleted node",
						kill, left)
				}
				b.fleet.set(func() { b.fleet.down[n] = true })
				b.awaitIdle()
				b.check()
			})
		}
	}
}

// A pageserver that dies while it is drained, or that is drained to, costs nothing
// but time.
func TestAPageserverThatDiesInADrainDelaysIt(t *testing.T) {
	for _, which := range []string{"drained", "destination"} {
		for _, kind := range []fsm.OperationKind{fsm.OperationDrain, fsm.OperationDelete} {
			t.Run(fmt.Sprintf("%s %s", kind, which), func(t *testing.T) {
				scenario(t, 4, func(b *bench) {
					b.create(60, 1, neon.Attached(1))
					b.awaitIdle()
					b.fleet.set(func() { b.fleet.latency = 20 * time.Millisecond })
					n := b.busiest()
					b.begin(n, kind)
					elapse(30 * time.Millisecond)
					dies := n
					if which == "destination" {
						dies = n%4 + 1
					}
					b.fleet.set(func() { b.fleet.down[dies] = true })
					b.ended()
					if b.attachedOn(n) != 0 {
						b.t.Errorf("node %d still has %d", n, b.attachedOn(n))
					}
					b.awaitIdle()
					b.check()
				})
			})
		}
	}
}

// A node that dies with shards that no other node may take does not keep its operation
// from ending: it could not be cancelled.
func TestAnOperationOfADeadNodeEnds(t *testing.T) {
	for _, kind := range []fsm.OperationKind{fsm.OperationDrain, fsm.OperationFill} {
		scenario(t, 3, func(b *bench) {
			b.create(20, 1, neon.Attached(1))
			b.awaitIdle()
			if kind == fsm.OperationFill {
				b.begin(1, fsm.OperationDrain)
				b.ended()
				b.must(fsm.SetNodeScheduling{Node: 1, Scheduling: neon.SchedulingActive})
				b.awaitIdle()
			}
			b.fleet.set(func() { b.fleet.hookErr = errors.New("not now") })
			b.begin(1, kind)
			elapse(time.Second)
			for n := neon.NodeID(2); n <= 3; n++ {
				b.must(fsm.SetNodeScheduling{Node: n, Scheduling: neon.SchedulingPause})
			}
			b.fleet.set(func() { b.fleet.down[1] = true })
			began := time.Now()
			b.ended()
			if took := time.Since(began); took > 15*time.Second || b.preferring() > 0 {
				b.t.Errorf("%s: took %s, %d shards are on their way", kind, took, b.preferring())
			}
			b.fleet.set(func() { b.fleet.hookErr, b.fleet.down[1] = nil, false })
			for n := neon.NodeID(1); n <= 3; n++ {
				b.must(fsm.SetNodeScheduling{Node: n, Scheduling: neon.SchedulingActive})
			}
			b.awaitIdle()
			b.check()
		})
	}
}

// What is cancelled stops, and shards whose destination is far behind stay.
func TestADrainSkipsColdShardsAndCanBeCancelled(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		ids := b.create(30, 1, neon.Attached(1))
		b.awaitIdle()
		n := b.busiest()
		had := b.attachedOn(n)
		paused := b.firstOn(n)
		tenant, _ := b.log.State().Tenant(paused.Tenant)
		b.must(fsm.UpdateTenant{
			ID: paused.Tenant, Sequence: tenant.Sequence, Scheduling: new(neon.ShardPause),
		})
		b.fleet.set(func() { b.fleet.lag = 257 << 20 })
		b.begin(n, fsm.OperationDrain)
		b.ended()
		if b.attachedOn(n) != had || b.policy(n) != neon.SchedulingPauseForRestart ||
			b.preferring() != 0 {
			b.t.Errorf("%d of %d shards stayed, %d are still to move; policy %s", b.attachedOn(n),
				had, b.preferring(), b.policy(n))
		}
		b.must(fsm.SetNodeScheduling{Node: n, Scheduling: neon.SchedulingActive})
		b.fleet.set(func() { b.fleet.lag = 255 << 20; b.fleet.latency = 100 * time.Millisecond })
		begun := b.begin(n, fsm.OperationDrain)
		elapse(50 * time.Millisecond)
		b.must(fsm.EndNodeOperation{Node: n, Begun: begun, Ending: fsm.Cancelled})
		elapse(time.Minute)
		if b.policy(n) != neon.SchedulingActive {
			b.t.Errorf("cancelled, node %d is %s", n, b.policy(n))
		}
		b.begin(n, fsm.OperationDrain)
		b.ended()
		if b.attachedOn(n) != 1 || b.firstOn(n) != paused {
			b.t.Errorf("of %d tenants, one of them paused, %d are left", len(ids), b.attachedOn(n))
		}
	})
}

// places are the failpoints of a test.
type places struct {
	mu    sync.Mutex
	sleep map[string]time.Duration
	hold  map[string]chan struct{}
}

func (p *places) Sleep(ctx context.Context, name string) error {
	p.mu.Lock()
	d := p.sleep[name]
	p.mu.Unlock()
	return wait.Sleep(ctx, d)
}

func (p *places) Pausable(ctx context.Context, name string) error {
	p.mu.Lock()
	c := p.hold[name]
	p.mu.Unlock()
	if c == nil {
		return nil
	}
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *places) Return(context.Context, string) (arg string, hit bool, err error) {
	return "", false, nil
}

func (p *places) Armed(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hold[name] != nil
}

// While the loop of an operation is slowed down its end takes effect at once, and
// nothing is done for it afterwards.
func TestASlowedOperationIsCancelledAtOnce(t *testing.T) {
	for _, c := range []struct {
		kind  fsm.OperationKind
		force bool
		place string
	}{
		{fsm.OperationDrain, false, "sleepy-drain-loop"},
		{fsm.OperationFill, false, "sleepy-fill-loop"},
		{fsm.OperationDelete, false, "sleepy-delete-loop"},
		{fsm.OperationDelete, true, "sleepy-delete-loop"},
		{fsm.OperationDelete, false, "delete-node-after-reconciles-spawned"},
		{fsm.OperationDelete, true, "delete-node-after-reconciles-spawned"},
	} {
		scenario(t, 4, func(b *bench) {
			held := make(chan struct{})
			b.depose()
			b.points = &places{
				sleep: map[string]time.Duration{c.place: 10 * time.Second},
				hold:  map[string]chan struct{}{c.place: held},
			}
			b.lead()
			b.create(40, 1, neon.Attached(1))
			b.awaitIdle()
			n := b.busiest()
			begun := b.must(fsm.BeginNodeOperation{
				Node: n, Kind: c.kind, Force: c.force, Prior: neon.SchedulingActive,
			}).Index
			elapse(5 * time.Second)
			if node, _ := b.log.State().Node(n); node.Operation.Kind != c.kind {
				b.t.Errorf("%+v: it did not wait: %+v", c, node)
			}
			b.must(fsm.EndNodeOperation{Node: n, Begun: begun, Ending: fsm.Cancelled})
			close(held)
			elapse(time.Minute)
			if node, ok := b.log.State().Node(n); !ok || node.Tombstone ||
				node.Scheduling != neon.SchedulingActive ||
				node.Operation.Kind != fsm.OperationNone {
				b.t.Errorf("%+v: %+v", c, node)
			}
			b.awaitIdle()
			b.check()
		})
	}
}

// The operation of a node that restarts goes on until its loop comes round, as
// clients expect, and then ends without a trace.
func TestAnInterruptedOperationEnds(t *testing.T) {
	for _, kind := range []fsm.OperationKind{
		fsm.OperationDrain, fsm.OperationFill, fsm.OperationDelete,
	} {
		scenario(t, 4, func(b *bench) {
			b.create(40, 1, neon.Attached(1))
			b.awaitIdle()
			b.fleet.set(func() { b.fleet.latency = 100 * time.Millisecond })
			n := b.busiest()
			b.begin(n, kind)
			b.must(fsm.ReAttach{Node: n})
			b.now.ReAttached(n)
			want := neon.SchedulingActive
			if kind == fsm.OperationDelete {
				want = neon.SchedulingPause
			}
			elapse(time.Minute)
			if node, _ := b.log.State().Node(n); node.Operation.Kind != fsm.OperationNone ||
				node.Scheduling != want || b.preferring() != 0 {
				b.t.Errorf("%s: %+v with %d shards on their way", kind, node, b.preferring())
			}
			b.awaitIdle()
			b.check()
		})
	}
}

// A secondary that is behind and gets nowhere does not hold a drain up for long,
// one that has been made for it is given time, and a destination at which nothing
// works is given up.
func TestADrainWaitsNoLongerThanItShould(t *testing.T) {
	for name, c := range map[string]struct {
		policy neon.Placement
		atMost time.Duration
		spoil  func(*fleet)
	}{
		"behind": {
			neon.Attached(1), 10 * time.Second, func(f *fleet) { f.lag, f.slow = 1<<30, true },
		},
		"new": {
			neon.Attached(0), 45 * time.Second, func(f *fleet) { f.lag, f.slow = 1<<30, true },
		},
		"refusing": {neon.Attached(0), 90 * time.Second, func(f *fleet) { f.refuse = 2 }},
	} {
		t.Run(name, func(t *testing.T) {
			scenario(t, 2, func(b *bench) {
				b.create(10, 1, c.policy)
				b.awaitIdle()
				had := b.attachedOn(1)
				b.fleet.set(func() { c.spoil(b.fleet) })
				began := time.Now()
				b.begin(1, fsm.OperationDrain)
				b.ended()
				if took := time.Since(began); took > c.atMost || b.attachedOn(1) != had ||
					b.preferring() != 0 {
					b.t.Errorf("it took %s, %d of %d stayed, %d are on their way", took,
						b.attachedOn(1), had, b.preferring())
				}
				b.fleet.set(func() { b.fleet.lag, b.fleet.slow, b.fleet.refuse = 0, false, 0 })
				b.awaitIdle()
				b.check()
			})
		})
	}
}

// A plan that is taken up by another leader does not exceed the budget of a node.
func TestASuccessorKeepsToTheBudget(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		b.create(600, 1, neon.Attached(1))
		b.atOnce(64)
		b.fleet.set(func() { b.fleet.latency = time.Second / 2 })
		n := b.busiest()
		b.begin(n, fsm.OperationDelete)
		most := 0
		for i := 0; operating(b.log.State()) > 0 && i < 1000; i++ {
			elapse(50 * time.Millisecond)
			most = max(most, b.crowd())
			if i == 10 || i == 50 {
				b.depose()
				b.lead()
			}
		}
		if most > 64 || most < 40 {
			b.t.Errorf("%d shards were being moved at a time", most)
		}
		b.awaitIdle()
		b.check()
	})
}

func (b *bench) firstOn(n neon.NodeID) (id neon.ShardID) {
	for sh := range b.log.State().AttachedOn(n, neon.ShardID{}) {
		return sh.ID
	}
	return id
}

// Moves for the good of a shard wait until the destination is warm, and what waits
// does not keep others from being moved.
func TestShardsGoHomeWhenItIsWarmThere(t *testing.T) {
	scenario(t, 6, func(b *bench) {
		b.create(100, 1, neon.Attached(1))
		b.awaitIdle()
		dead := b.busiest()
		b.fleet.set(func() { b.fleet.down[dead] = true })
		elapse(15 * time.Minute) // also its secondaries get new places
		b.awaitIdle()
		b.fleet.set(func() { b.fleet.down[dead] = false; b.fleet.lag = 11 << 30 })
		away := func() (n int) {
			for sh := range b.log.State().ShardsFrom(neon.ShardID{}) {
				if node, _ := b.log.State().Node(sh.Attached); node.AZ != sh.PreferredAZ {
					n++
				}
			}
			return n
		}
		before := away()
		elapse(10 * time.Minute)
		if away() != before {
			b.t.Errorf("%d shards were away from home, now %d, though it is cold there", before,
				away())
		}
		b.fleet.set(func() { b.fleet.lag = 0 })
		elapse(10 * time.Minute)
		b.awaitIdle()
		b.check()
		if away() != 0 {
			b.t.Errorf("%d shards are away from home", away())
		}
	})
}

// However many destinations stay cold, they keep no other shard from going home, and
// cause little work.
func TestColdDestinationsHoldUpNobodyElse(t *testing.T) {
	scenario(t, 6, func(b *bench) {
		b.create(400, 1, neon.Attached(1))
		b.awaitIdle()
		b.fleet.set(func() { b.fleet.down[1], b.fleet.down[4] = true, true }) // a whole zone
		elapse(15 * time.Minute)
		b.awaitIdle()
		cold := func(id neon.ShardID) bool { return id.Tenant[1] == 0 && id.Tenant[2] < 200 }
		var looks atomic.Int64
		b.fleet.set(func() {
			clear(b.fleet.down)
			b.fleet.lagOf = func(id neon.ShardID) uint64 {
				if looks.Add(1); cold(id) {
					return 11 << 30
				}
				return 0
			}
		})
		away := func(of func(neon.ShardID) bool) (n int) {
			for sh := range b.log.State().ShardsFrom(neon.ShardID{}) {
				if node, _ := b.log.State().Node(sh.Attached); node.AZ != sh.PreferredAZ &&
					of(sh.ID) {
					n++
				}
			}
			return n
		}
		warm := func(id neon.ShardID) bool { return !cold(id) }
		before := away(cold)
		if before < 40 || away(warm) < 40 {
			b.t.Fatalf("%d and %d shards are away", before, away(warm))
		}
		elapse(10 * time.Minute)
		if n := away(warm); n != 0 || away(cold) != before {
			b.t.Errorf("%d shards could go home and did not, and of %d others %d are still away", n,
				before, away(cold))
		}
		looks.Store(0)
		elapse(time.Minute)
		if n := looks.Load(); n > 2*60/5*coldShare*2 {
			b.t.Errorf("%d looks at cold destinations in a minute", n)
		}
		b.fleet.set(func() { b.fleet.lagOf = nil })
		elapse(5 * time.Minute)
		b.awaitIdle()
		b.check()
		if away(cold) != 0 {
			b.t.Errorf("%d shards are away", away(cold))
		}
	})
}
