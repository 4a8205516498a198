package reconciler

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/scheduler"
)

// meanwhile has something happen once, between a decision and its entry in the log.
func (b *bench) meanwhile(decided func(fsm.Command) bool, happens func()) *atomic.Bool {
	happened := new(atomic.Bool)
	b.deny(func(c fsm.Command) []neon.ShardID {
		if decided(c) && happened.CompareAndSwap(false, true) {
			happens()
		}
		return nil
	})
	return happened
}

func evacuates(c fsm.Command) bool {
	in, ok := c.(fsm.SetIntents)
	return ok && slices.ContainsFunc(in.Intents, func(in fsm.Intent) bool { return in.Issue })
}

func (b *bench) schedule(id neon.TenantID, to neon.ShardScheduling) {
	b.t.Helper()
	tenant, _ := b.log.State().Tenant(id)
	b.must(fsm.UpdateTenant{ID: id, Sequence: tenant.Sequence, Scheduling: &to})
}

// A node that is back when its evacuation gets into the log keeps its shards: it would
// hand nothing over.
func TestANodeThatIsBackIsNotEvacuated(t *testing.T) {
	for name, back := range map[string]func(*bench, neon.NodeID){
		"restarted": (*bench).restart,
		"answers":   func(*bench, neon.NodeID) { elapse(2 * time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			scenario(t, 3, func(b *bench) {
				b.create(20, 1, neon.Attached(1))
				b.awaitIdle()
				n := b.busiest()
				ids := b.attachedTo(n)
				happened := b.meanwhile(evacuates, func() {
					b.fleet.set(func() { b.fleet.down[n] = false })
					back(b, n)
				})
				b.fleet.set(func() { b.fleet.down[n] = true })
				elapse(b.opts.MaxOffline + 5*time.Second)
				if !happened.Load() {
					t.Fatal("it is not evacuated")
				}
				for _, id := range ids {
					if sh, _ := b.log.State().Shard(id); sh.Attached != n || sh.GenNode != n {
						t.Errorf("%s was taken from node %d: %+v", id, n, sh)
					}
				}
				b.awaitIdle()
				b.check()
			})
		})
	}
}

// An evacuation that was refused, because something has changed since it was decided, is
// decided again at once.
func TestARefusedEvacuationIsDecidedAgainAtOnce(t *testing.T) {
	scenario(t, 4, func(b *bench) {
		tenants := b.create(20, 1, neon.Attached(1))
		b.awaitIdle()
		n := b.busiest()
		ids := b.attachedTo(n)
		happened := b.meanwhile(evacuates, func() { b.configure(tenants, `{"gc_horizon":7}`) })
		b.fleet.set(func() { b.fleet.down[n] = true })
		for !happened.Load() {
			elapse(10 * time.Millisecond)
		}
		if took := b.served(ids, time.Minute); took > time.Second {
			t.Errorf("the shards were served again %s after a refusal", took)
		}
		b.awaitIdle()
		b.check()
	})
}

// After a stop that was acknowledged nobody attaches anything.
func TestNoNumberIsIssuedAfterAStop(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(0))[0], Count: 1}
		b.awaitIdle()
		sh, _ := b.log.State().Shard(id)
		happened := b.meanwhile(
			func(c fsm.Command) bool { _, ok := c.(fsm.IssueGenerations); return ok },
			func() { b.schedule(id.Tenant, neon.ShardStop) })
		to := migrate(b, sh)
		elapse(20 * time.Second)
		if now, _ := b.log.State().Shard(id); !happened.Load() || now.Generation != sh.Generation {
			t.Errorf("stopped %v, and then it is %+v", happened.Load(), now)
		}
		b.schedule(id.Tenant, neon.ShardEssential)
		b.awaitIdle()
		b.check()
		if now, _ := b.log.State().Shard(id); now.GenNode != to {
			t.Errorf("it does not go on: %+v", now)
		}
	})
}

// A move that waits for its destination to be warm ends with the reason for it.
func TestAMoveThatWasBegunArrivesOnlyWhereItMay(t *testing.T) {
	pause := func(b *bench, _ neon.TenantID, to neon.NodeID) {
		b.must(fsm.SetNodeScheduling{Node: to, Scheduling: neon.SchedulingPause})
	}
	pin := func(to neon.ShardScheduling) func(*bench, neon.TenantID, neon.NodeID) {
		return func(b *bench, id neon.TenantID, _ neon.NodeID) { b.schedule(id, to) }
	}
	for name, change := range map[string]func(*bench, neon.TenantID, neon.NodeID){
		"paused": pause,
		"drained": func(b *bench, _ neon.TenantID, to neon.NodeID) {
			b.begin(to, fsm.OperationDrain)
		},
		"pinned": pin(neon.ShardPause), "stopped": pin(neon.ShardStop),
		"essential": pin(neon.ShardEssential),
	} {
		for _, when := range []string{"while it is cold", "at the cut-over"} {
			t.Run(name+" "+when, func(t *testing.T) {
				scenario(t, 3, func(b *bench) {
					id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(1))[0], Count: 1}
					b.awaitIdle()
					sh, _ := b.log.State().Shard(id)
					to := b.other(sh)
					b.fleet.set(func() { b.fleet.lag = 50 << 30 })
					node, _ := b.log.State().Node(to)
					b.must(fsm.SetPreferredAZs{Items: []fsm.PreferredAZ{{Shard: id, AZ: node.AZ}}})
					elapse(45 * time.Second)
					if now, _ := b.log.State().Shard(id); now.PreferredNode != to {
						t.Fatalf("it does not move: %+v", now)
					}
					changed := func() { change(b, id.Tenant, to) }
					if when == "while it is cold" {
						changed()
						elapse(10 * time.Second)
					} else {
						b.meanwhile(func(c fsm.Command) bool {
							in, ok := c.(fsm.SetIntents)
							return ok && in.Intents[0].Attached == to
						}, changed)
					}
					b.fleet.set(func() { b.fleet.lag = 0 })
					elapse(2 * time.Minute)
					now, _ := b.log.State().Shard(id)
					if now.Attached != sh.Attached || now.PreferredNode != 0 {
						t.Errorf("it is on node %d, which is %s: %+v", now.Attached, b.policy(to), now)
					}
					if q := b.now.Status(id); q.Failures > 0 {
						t.Errorf("it fails: %s", q.LastError)
					}
				})
			})
		}
	}
}

// An operator may insist on a node that takes nothing, and on moving what is pinned.
func TestAMoveOnWhichAnOperatorInsistsArrives(t *testing.T) {
	for name, change := range map[string]func(*bench, neon.TenantID, neon.NodeID){
		"paused": func(b *bench, _ neon.TenantID, to neon.NodeID) {
			b.must(fsm.SetNodeScheduling{Node: to, Scheduling: neon.SchedulingPause})
		},
		"pinned": func(b *bench, id neon.TenantID, _ neon.NodeID) {
			b.schedule(id, neon.ShardPause)
		},
	} {
		for _, level := range []func(*testing.T, int, func(*bench)){scenario, oldScenario} {
			t.Run(name, func(t *testing.T) {
				level(t, 3, func(b *bench) {
					id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(1))[0], Count: 1}
					b.awaitIdle()
					sh, _ := b.log.State().Shard(id)
					to := b.other(sh)
					change(b, id.Tenant, to)
					in, err := scheduler.New(b.log.State(), nil).Prewarm(sh, to,
						scheduler.OverrideScheduler)
					if err != nil {
						t.Fatal(err)
					}
					in.Insisted = b.log.State().KnowsBasis()
					b.must(fsm.SetIntents{Intents: []fsm.Intent{in}})
					elapse(20 * time.Second)
					if now, _ := b.log.State().Shard(id); now.Attached != to || now.Insisted {
						t.Errorf("it does not arrive: %+v", now)
					}
					b.awaitIdle()
					b.check()
				})
			})
		}
	}
}

// A drain whose destination takes nothing any more finds another one.
func TestADrainFindsAnotherDestination(t *testing.T) {
	scenario(t, 4, func(b *bench) {
		b.create(12, 1, neon.Attached(1))
		b.awaitIdle()
		n := b.busiest()
		b.fleet.set(func() { b.fleet.lag, b.fleet.slow = 50<<30, true })
		b.begin(n, fsm.OperationDrain)
		elapse(2 * time.Second)
		to := neon.NodeID(0)
		for sh := range b.log.State().AttachedOn(n, neon.ShardID{}) {
			to = sh.PreferredNode
		}
		if to == 0 {
			t.Fatal("nothing moves")
		}
		b.must(fsm.SetNodeScheduling{Node: to, Scheduling: neon.SchedulingPause})
		before := b.attachedOn(to)
		b.fleet.set(func() { b.fleet.lag, b.fleet.slow = 0, false })
		b.ended()
		if left, came := b.attachedOn(n), b.attachedOn(to)-before; left > 0 || came > 0 {
			t.Errorf("%d shards stay, and %d came to the paused node", left, came)
		}
		b.awaitIdle()
		b.check()
	})
}

// The deletion of a node is cancelled while the leader decides on the moves. What gets into the
// log after that must not be carried out: the moves of a cancelled operation are cancelled.
func TestAMoveThatComesAfterItsOperationWasCancelledIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		kind   fsm.OperationKind
		paused bool
	}{
		"drain":                        {fsm.OperationDrain, false},
		"deletion":                     {fsm.OperationDelete, false},
		"deletion, of a paused tenant": {fsm.OperationDelete, true},
	} {
		t.Run(name, func(t *testing.T) {
			scenario(t, 3, func(b *bench) {
				id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(1))[0], Count: 1}
				b.awaitIdle()
				if c.paused {
					b.schedule(id.Tenant, neon.ShardPause)
				} else {
					b.schedule(id.Tenant, neon.ShardEssential)
				}
				sh, _ := b.log.State().Shard(id)
				n := sh.Attached
				happened := b.meanwhile(func(c fsm.Command) bool {
					in, ok := c.(fsm.SetIntents)
					return ok && slices.ContainsFunc(in.Intents,
						func(in fsm.Intent) bool { return in.PreferredNode != 0 })
				}, func() {
					node, _ := b.log.State().Node(n)
					b.must(fsm.EndNodeOperation{
						Node: n, Begun: node.Operation.Begun, Ending: fsm.Cancelled,
					})
				})
				b.begin(n, c.kind)
				elapse(20 * time.Minute)
				if !happened.Load() {
					t.Fatal("nothing was cancelled")
				}
				now, _ := b.log.State().Shard(id)
				q := b.now.Status(id)
				if now.Attached != n || now.PreferredNode != 0 || q.Failures > 0 {
					t.Errorf("20 minutes later it is on node %d, was on %d, and is to move to %d; "+
						"failed %d times: %s", now.Attached, n, now.PreferredNode, q.Failures,
						q.LastError)
				}
			})
		})
	}
}

// A pageserver that attaches nothing has attached, and compute was told, when the entry comes
// that takes what serves nobody from it. That would be without a hand-over.
func TestWhatServesByThenIsNotTakenForUnserved(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		b.create(30, 1, neon.Attached(1))
		b.awaitIdle()
		var served []neon.ShardID
		happened := b.meanwhile(func(c fsm.Command) bool {
			in, ok := c.(fsm.SetIntents)
			if !ok {
				return false
			}
			for _, in := range in.Intents {
				sh, _ := b.log.State().Shard(in.Shard)
				if sh.Attached == 1 && in.Issue {
					served = append(served, sh.ID)
				}
			}
			return len(served) > 0
		}, func() {
			for _, id := range served {
				b.must(fsm.AckNotifications{Acks: []fsm.Ack{{Shard: id, Node: 1}}})
			}
		})
		b.fleet.set(func() {
			b.fleet.stalls = map[neon.NodeID]call{1: callPut}
			b.fleet.down[3] = true
		})
		for range 120 {
			if elapse(time.Second); happened.Load() {
				break
			}
		}
		if !happened.Load() {
			t.Fatal("nothing was taken away")
		}
		for _, id := range served {
			if sh, _ := b.log.State().Shard(id); sh.Attached != 1 {
				t.Errorf("%s was taken from node 1: %+v", id, sh)
			}
		}
	})
}
