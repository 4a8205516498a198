package reconciler

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/scheduler"
)

// configureAll changes the configuration of every tenant.
func (b *bench) configureAll(config string) {
	b.t.Helper()
	conf, err := neon.ParseTenantConfig([]byte(config), neon.RejectUnknown)
	if err != nil {
		b.t.Fatal(err)
	}
	var all []fsm.Tenant
	for tenant := range b.log.State().TenantsFrom(neon.TenantID{}) {
		all = append(all, tenant)
	}
	for _, tenant := range all {
		b.must(fsm.UpdateTenant{ID: tenant.ID, Sequence: tenant.Sequence, Config: &conf})
	}
}

// few begins a term with few workers, so that a test needs few shards.
func (b *bench) few() {
	b.depose()
	b.opts.HighWorkers, b.opts.NormalWorkers, b.opts.SlowWorkers = 32, 16, 32
	b.opts.PerNode = 8
	b.lead()
	b.awaitIdle()
}

// attachedTo lists the shards that are to be attached on a node.
func (b *bench) attachedTo(n neon.NodeID) (ids []neon.ShardID) {
	for sh := range b.log.State().AttachedOn(n, neon.ShardID{}) {
		ids = append(ids, sh.ID)
	}
	return ids
}

// unserved counts the shards that no running pageserver has in their newest generation.
func (b *bench) unserved(ids []neon.ShardID) (n int) {
	b.fleet.mu.Lock()
	defer b.fleet.mu.Unlock()
	for _, id := range ids {
		sh, _ := b.log.State().Shard(id)
		c := b.fleet.at[sh.Attached][id]
		if b.fleet.down[sh.Attached] || !c.Mode.Attached() || *c.Generation != sh.Generation {
			n++
		}
	}
	return n
}

// served waits until the shards are, and returns how long that took.
func (b *bench) served(ids []neon.ShardID, atMost time.Duration) time.Duration {
	began := time.Now()
	for b.unserved(ids) > 0 && time.Since(began) < atMost {
		elapse(100 * time.Millisecond)
	}
	return time.Since(began)
}

// TestUnresponsiveNodesHoldUpNoEvacuation: pageservers that answer their heartbeats and
// do not answer other calls hold the workers and the slots of none but themselves. The
// shards of a dead node are served again as soon as without them.
func TestUnresponsiveNodesHoldUpNoEvacuation(t *testing.T) {
	for _, tt := range []struct {
		nodes       int
		secondaries int
		calls       call
	}{
		{0, 0, callPut}, {1, 0, callPut}, {2, 0, callPut}, {4, 0, callPut},
		{0, 1, callPut}, {2, 1, callPut}, {4, 1, callPut}, {3, 2, callPut},
		{3, 1, callsButProbes},
	} {
		t.Run(fmt.Sprintf("%d nodes, %d secondaries, calls %b", tt.nodes, tt.secondaries,
			tt.calls), func(t *testing.T) {
			scenario(t, 8, func(b *bench) {
				b.few()
				b.create(400, 1, neon.Attached(tt.secondaries))
				b.awaitIdle()
				b.fleet.set(func() {
					b.fleet.stalls = map[neon.NodeID]call{}
					for n := range tt.nodes {
						b.fleet.stalls[neon.NodeID(n+1)] = tt.calls
					}
				})
				b.configureAll(`{"gc_horizon":7}`)
				elapse(2 * time.Second)
				was := b.attachedTo(8)
				b.fleet.set(func() { b.fleet.down[8] = true })
				took := b.served(was, 10*time.Minute)
				t.Logf("%d shards were served again after %s", len(was), took)
				if len(was) < 40 || took > b.opts.MaxOffline+2*time.Second {
					t.Errorf("%d shards of a dead node were served again after %s, %d are not",
						len(was), took, b.unserved(was))
				}
			})
		})
	}
}

// TestShardsAreTakenFromNodesThatDoNotAttachThem: nobody has called the nodes that do not
// answer before, so that shards of a dead node are given to them. They do not stay there.
func TestShardsAreTakenFromNodesThatDoNotAttachThem(t *testing.T) {
	for _, secondaries := range []int{0, 1} {
		scenario(t, 8, func(b *bench) {
			b.few()
			b.create(240, 1, neon.Attached(secondaries))
			b.awaitIdle()
			was := b.attachedTo(8)
			b.fleet.set(func() {
				b.fleet.stalls = map[neon.NodeID]call{1: callPut, 2: callPut, 3: callPut}
				b.fleet.down[8] = true
			})
			took := b.served(was, 10*time.Minute)
			t.Logf("%d shards were served again after %s", len(was), took)
			if took > b.opts.MaxOffline+5*time.Second {
				t.Errorf("with %d secondaries, %d shards were served again after %s, %d are not",
					secondaries, len(was), took, b.unserved(was))
			}
			b.fleet.set(func() { b.fleet.stalls = nil })
			elapse(2 * time.Minute)
			b.awaitIdle()
			b.check()
		})
	}
}

// TestCallsThatHangHoldUpNoLooks: a node that answers looks and hangs on every change of a
// location has few slots for changes. Looks do not wait for these.
func TestCallsThatHangHoldUpNoLooks(t *testing.T) {
	scenario(t, 4, func(b *bench) {
		b.create(40, 1, neon.Attached(1))
		b.awaitIdle()
		b.few() // a leader that has issued no number has to look after a call that failed
		b.fleet.set(func() { b.fleet.stalls = map[neon.NodeID]call{1: callPut} })
		b.configureAll(`{"gc_horizon":7}`)
		elapse(time.Minute)
		looks := 0
		b.fleet.set(func() {
			b.fleet.onLook = func(neon.ShardID) { b.fleet.set(func() { looks++ }) }
		})
		elapse(15 * time.Minute)
		b.fleet.set(func() {
			if looks < 10 {
				t.Errorf("there were %d looks", looks)
			}
			b.fleet.stalls = nil
		})
		elapse(time.Minute)
		b.awaitIdle()
		b.check()
	})
}

// TestUnresponsiveNodesHoldUpNoMoves: they take the workers of long steps as little.
func TestUnresponsiveNodesHoldUpNoMoves(t *testing.T) {
	for _, origin := range []bool{false, true} {
		t.Run(fmt.Sprintf("origins %v", origin), func(t *testing.T) {
			scenario(t, 8, func(b *bench) {
				b.few()
				b.create(400, 1, neon.Attached(1))
				b.awaitIdle()
				b.fleet.set(func() {
					b.fleet.stalls = map[neon.NodeID]call{}
					for n := range neon.NodeID(5) {
						b.fleet.stalls[n+1] = callWarm | callWrote
					}
				})
				bad := func(n neon.NodeID) bool { return n <= 5 }
				var intents []fsm.Intent
				var good fsm.Intent
				sched := scheduler.New(b.log.State(), nil)
				for sh := range b.log.State().ShardsFrom(neon.ShardID{}) {
					from, to := sh.Attached, sh.Secondary[0]
					if origin {
						from, to = to, from
					}
					in, err := sched.Migrate(sh, sh.Secondary[0], scheduler.OverrideScheduler)
					if err != nil {
						t.Fatal(err)
					}
					if bad(to) && bad(from) == false {
						intents = append(intents, in)
					} else if !bad(to) && !bad(from) {
						good = in
					}
				}
				b.must(fsm.SetIntents{Intents: intents})
				elapse(2 * time.Second)
				b.must(fsm.SetIntents{Intents: []fsm.Intent{good}})
				began := time.Now()
				ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Minute)
				defer cancel()
				if err := b.now.Await(ctx, b.log.State().Index, good.Shard); err != nil {
					t.Error(err)
				}
				t.Logf("beside %d others: %s", len(intents), time.Since(began))
				if took := time.Since(began); len(intents) < 50 || took > 5*time.Second {
					t.Errorf("a move between two sound nodes took %s beside %d others", took,
						len(intents))
				}
				b.fleet.set(func() { b.fleet.stalls = nil })
				b.awaitIdle()
			})
		})
	}
}

// TestANodeThatAnswersAgainIsUsedAgain: what it has missed reaches it soon, and so does
// new work.
func TestANodeThatAnswersAgainIsUsedAgain(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		b.few()
		b.create(90, 1, neon.Attached(1))
		b.awaitIdle()
		b.fleet.set(func() { b.fleet.stalls = map[neon.NodeID]call{1: callsButProbes} })
		b.configureAll(`{"gc_horizon":7}`)
		elapse(10 * time.Minute)
		b.fleet.set(func() { b.fleet.stalls = nil })
		elapse(40 * time.Second)
		b.awaitIdle()
		b.check()
		b.fleet.set(func() {
			for id, c := range b.fleet.at[1] {
				if sh, _ := b.log.State().Shard(id); sh.Attached == 1 &&
					string(c.TenantConf.JSON()) == "{}" {
					t.Errorf("%s was not configured on node 1", id)
				}
			}
		})
		b.configureAll(`{"gc_horizon":8}`)
		began := time.Now()
		b.awaitIdle()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("an hour later a change took %s", took)
		}
	})
}

// TestAListingThatHangsHidesNoDeath: a node that does not answer a listing is asked for
// signs of life nevertheless.
func TestAListingThatHangsHidesNoDeath(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		b.create(30, 1, neon.Attached(0))
		b.awaitIdle()
		was := b.attachedTo(3)
		b.fleet.set(func() { b.fleet.stalls = map[neon.NodeID]call{3: callList} })
		elapse(relistInterval + 2*time.Second)
		b.fleet.set(func() { b.fleet.deaf = 3 })
		elapse(b.opts.MaxOffline + 3*time.Second)
		if n := b.attachedOn(3); n != 0 {
			t.Errorf("%d of %d shards are still on the dead node", n, len(was))
		}
		b.fleet.set(func() { b.fleet.down[3] = true })
	})
}

// TestNodesThatDoNotAnswerAreNoBetterPlaces: a pageserver was away, and its shards are to go
// home. It answers its heartbeats and hangs on changes by then, which only the first of them
// can find out. They come back soon, and none follows, as long as it has answered no change.
func TestNodesThatDoNotAnswerAreNoBetterPlaces(t *testing.T) {
	scenario(t, 2, func(b *bench) {
		const hung neon.NodeID = 2
		b.opts.OptimisePerNode = -1
		b.few()
		b.createOn(hung, 20)
		b.awaitIdle()
		were := b.attachedTo(hung)
		b.fleet.set(func() { b.fleet.down[hung] = true })
		elapse(b.opts.MaxOffline + 5*time.Second)
		b.backAfterRestart(hung, 0)
		elapse(time.Minute)
		b.fleet.set(func() { b.fleet.stalls = map[neon.NodeID]call{hung: callPut} })
		var last time.Time
		most := 0
		for began := time.Now(); time.Since(began) < 50*time.Minute; elapse(time.Second) {
			n := b.unserved(were)
			most = max(most, n)
			if n == 0 {
				last = time.Now()
			} else if time.Since(last) > 30*time.Second {
				t.Fatalf("%d shards are on their way to a node that does not attach them", n)
			} else if time.Since(began) > 10*time.Minute {
				t.Fatalf("%d shards were moved to a node that was known not to answer", n)
			}
		}
		if most == 0 {
			t.Error("none was to go home")
		}
		b.fleet.set(func() { b.fleet.stalls = nil })
		b.configureAll(`{"gc_horizon":7}`)
		elapse(5 * time.Minute)
		if n := len(b.attachedTo(hung)); n != len(were) {
			t.Errorf("%d shards of %d are at home, on the node that answers again", n, len(were))
		}
		b.awaitIdle()
		b.check()
	})
}

// TestOnlyWhatIsOnItsWayComesBack: a shard is taken from a node that does not answer, since it
// is read elsewhere. One that is read there would be taken without a hand-over.
func TestOnlyWhatIsOnItsWayComesBack(t *testing.T) {
	now := time.Now()
	for what, c := range map[string]struct {
		sh   fsm.Shard
		want bool
	}{
		"moves":         {fsm.Shard{Attached: 2, GenNode: 2, AcknowledgedNode: 1}, true},
		"has no number": {fsm.Shard{Attached: 2, GenNode: 1, AcknowledgedNode: 1}, true},
		"a new number":  {fsm.Shard{Attached: 2, GenNode: 2, AcknowledgedNode: 2}, false},
		"new":           {fsm.Shard{Attached: 2, GenNode: 2}, false},
		"of an operator": {fsm.Shard{
			Attached: 2, PlacedOn: 2, PlacedAt: now.UnixMilli(), AcknowledgedNode: 1,
		}, false},
		"placed there once": {fsm.Shard{
			Attached: 2, PlacedOn: 2, PlacedAt: now.Add(-placedFor).UnixMilli(),
			AcknowledgedNode: 1,
		}, true},
		"of nobody": {fsm.Shard{Attached: 2, Unmanaged: true, AcknowledgedNode: 1}, false},
		"served": {fsm.Shard{
			Attached: 2, GenNode: 2, AcknowledgedNode: 2, ComputeAcknowledged: true,
		}, false},
	} {
		if got := handedOver(&c.sh, now); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}

// TestASlotIsNotHandedRoundBetweenFailures: shards are to leave two nodes, of which one
// refuses at once and the other one hangs. A shard that gets the slot for which it waited
// goes on where it was. If it asked the node that refuses again first, the slot would go
// round among those that wait, and all of them would ask without a pause.
func TestASlotIsNotHandedRoundBetweenFailures(t *testing.T) {
	const shards, most = 60, 4000
	for hangs := range neon.NodeID(3) {
		hangs, refuses := hangs+1, (hangs+1)%3+1
		t.Run(fmt.Sprintf("node %d hangs", hangs), func(t *testing.T) {
			scenario(t, 3, func(b *bench) {
				ids := b.create(shards, 1, neon.Attached(2))
				b.awaitIdle()
				b.few() // the new leader looks for them in one order
				asked := 0
				b.fleet.set(func() {
					b.fleet.latency, b.fleet.stalls = 0, map[neon.NodeID]call{hangs: callPut}
					b.fleet.onPut = func(n neon.NodeID, _ neon.ShardID) error {
						if n != refuses || asked >= most {
							return nil
						}
						asked++
						return errors.New("refused")
					}
				})
				for _, id := range ids {
					b.place(id, neon.Placement{Kind: neon.PlaceDetached})
				}
				elapse(5 * time.Minute)
				b.fleet.set(func() { b.fleet.stalls, b.fleet.onPut = nil, nil })
				t.Logf("node %d was asked %d times in a minute", refuses, asked)
				if asked >= most {
					t.Errorf("node %d was asked %d times in a minute", refuses, asked)
				}
				elapse(2 * time.Minute)
				b.awaitIdle()
				b.check()
			})
		})
	}
}
