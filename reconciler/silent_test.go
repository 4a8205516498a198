package reconciler

import (
	"context"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/scheduler"
)

// meantFor counts the locations that a node is to have, also those that are to move there.
func (b *bench) meantFor(n neon.NodeID) int {
	count := b.log.State().Counts(n).Shards
	for sh := range b.log.State().ShardsFrom(neon.ShardID{}) {
		if sh.PreferredNode == n {
			count++
		}
	}
	return count
}

// silence makes a node silent for long enough to be noticed, and not to be judged.
func (b *bench) silence(n neon.NodeID) {
	b.fleet.set(func() { b.fleet.deaf = n })
	elapse(5 * time.Second)
}

// TestASilentNodeTakesNothing: a node that does not answer its heartbeats is not judged
// yet, and whoever decides about places sees its silence.
func TestASilentNodeTakesNothing(t *testing.T) {
	for name, decide := range map[string]func(*bench){
		"creation": func(b *bench) {
			for i := range 20 {
				id := neon.TenantID{0xcc, byte(i)}
				shards, err := scheduler.New(b.log.State(), b.now.Loads()).PlaceTenant(id, 2,
					neon.Attached(1))
				if err != nil {
					b.t.Fatal(err)
				}
				b.must(fsm.CreateTenant{
					ID: id, Count: 2, Stripe: 2048, Policy: neon.Attached(1),
					Scheduling: neon.ShardActive, Shards: shards,
				})
			}
		},
		"policy": func(b *bench) {
			for tenant := range b.log.State().TenantsFrom(neon.TenantID{}) {
				intents, err := scheduler.New(b.log.State(), b.now.Loads()).Replace(tenant,
					neon.Attached(2))
				if err != nil && len(intents) > 0 {
					b.t.Fatal(err)
				}
				b.must(fsm.UpdateTenant{
					ID: tenant.ID, Sequence: tenant.Sequence, Policy: new(neon.Attached(2)),
					Intents: intents,
				})
			}
		},
		"forced deletion": func(b *bench) {
			b.must(fsm.BeginNodeOperation{
				Node: 1, Kind: fsm.OperationDelete, Force: true, Prior: neon.SchedulingActive,
			})
		},
		"deletion": func(b *bench) { b.begin(1, fsm.OperationDelete) },
		"drain":    func(b *bench) { b.begin(1, fsm.OperationDrain) },
		"fill":     func(b *bench) { b.begin(4, fsm.OperationFill) },
		"optimiser": func(b *bench) {
			node, _ := b.log.State().Node(4)
			var items []fsm.PreferredAZ
			for sh := range b.log.State().ShardsFrom(neon.ShardID{}) {
				items = append(items, fsm.PreferredAZ{Shard: sh.ID, AZ: node.AZ})
			}
			b.must(fsm.SetPreferredAZs{Items: items})
		},
		"chaos": func(*bench) {},
		"repair": func(b *bench) {
			b.must(fsm.DeleteNode{Node: 2})
		},
		"operator": func(b *bench) {
			sched := scheduler.New(b.log.State(), b.now.Loads())
			for sh := range b.log.State().ShardsFrom(neon.ShardID{}) {
				for _, move := range []func(fsm.Shard, neon.NodeID, scheduler.Override) (
					fsm.Intent, error,
				){sched.Migrate, sched.Prewarm} {
					if _, err := move(sh, 4, scheduler.RespectScheduler); sh.Attached != 4 &&
						neon.CodeOf(err) != neon.PreconditionFailed {
						b.t.Errorf("an order to move there: %v", err)
					}
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			scenario(t, 5, func(b *bench) {
				b.depose()
				b.opts.MaxOffline, b.opts.OptimiseInterval = time.Minute, time.Second
				b.lead()
				b.create(40, 1, neon.Attached(1))
				b.awaitIdle()
				b.silence(4)
				if name == "chaos" {
					b.depose()
					b.opts.Chaos.Interval = time.Second
					b.lead()
				}
				had := b.meantFor(4)
				decide(b)
				elapse(20 * time.Second)
				if n := b.meantFor(4) - had; n > 0 {
					t.Errorf("it has got %d locations", n)
				}
				b.fleet.set(func() { b.fleet.deaf = 0 })
				b.opts.Chaos.Interval = 0
			})
		})
	}
}

// TestNothingMovesToANodeThatHasFallenSilent: the move was begun while it answered. It goes
// on when it answers again, and the shard stays where it is until then.
func TestNothingMovesToANodeThatHasFallenSilent(t *testing.T) {
	for name, move := range map[string]func(
		*scheduler.Scheduler, fsm.Shard, neon.NodeID, scheduler.Override,
	) (fsm.Intent, error){
		"at once": (*scheduler.Scheduler).Migrate, "when it is warm": (*scheduler.Scheduler).Prewarm,
	} {
		t.Run(name, func(t *testing.T) {
			scenario(t, 4, func(b *bench) {
				b.depose()
				b.opts.MaxOffline = time.Minute
				b.lead()
				id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(1))[0], Count: 1}
				b.pin(id.Tenant)
				b.awaitIdle()
				sh, _ := b.log.State().Shard(id)
				to := sh.Secondary[0]
				b.fleet.set(func() { b.fleet.slow, b.fleet.lag = true, 50<<30 })
				in, err := move(scheduler.New(b.log.State(), nil), sh, to,
					scheduler.OverrideScheduler)
				if err != nil {
					t.Fatal(err)
				}
				b.must(fsm.SetIntents{Intents: []fsm.Intent{in}})
				elapse(2 * time.Second)
				b.silence(to)
				b.fleet.set(func() { b.fleet.slow, b.fleet.lag = false, 0 })
				elapse(40 * time.Second)
				if now, _ := b.log.State().Shard(id); now.Generation != sh.Generation {
					t.Errorf("generation %s was issued to node %d", now.Generation, now.GenNode)
				}
				b.fleet.set(func() { b.fleet.deaf = 0 })
				elapse(20 * time.Second)
				if now, _ := b.log.State().Shard(id); now.GenNode != to {
					t.Errorf("it has not moved: %+v", now)
				}
				b.awaitIdle()
				b.check()
			})
		})
	}
}

// TestANewLeaderPlacesAtOnceBesideANodeThatHangs: a placement at the very beginning of a
// term waits a moment for those that answer, and uses them.
func TestANewLeaderPlacesAtOnceBesideANodeThatHangs(t *testing.T) {
	scenario(t, 4, func(b *bench) {
		b.depose()
		place := func(loads map[neon.NodeID]scheduler.Load) neon.NodeID {
			shards, err := scheduler.New(b.log.State(), loads).PlaceTenant(neon.TenantID{1}, 1,
				neon.Attached(0))
			if err != nil {
				t.Fatal(err)
			}
			return shards[0].Attached
		}
		hangs := place(nil)
		b.fleet.set(func() { b.fleet.stalls = map[neon.NodeID]call{hangs: callProbe} })
		b.lead()
		if err := b.now.AwaitTerm(context.Background()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if place(b.now.Loads()) == hangs {
			t.Error("a shard was put on the node that hangs")
		}
		if took := time.Since(began); took > firstAnswers {
			t.Errorf("the placement waited for %s", took)
		}
		b.fleet.set(func() { b.fleet.stalls = nil })
	})
}

// TestANewLeaderPlacesNothingWhereNobodyHasAnswered: before it has asked a node, it uses
// those that have answered, and it does not refuse a creation.
func TestANewLeaderPlacesNothingWhereNobodyHasAnswered(t *testing.T) {
	scenario(t, 4, func(b *bench) {
		b.fleet.set(func() { b.fleet.down[4] = true })
		b.depose()
		place := func(i byte) (on int) {
			shards, err := scheduler.New(b.log.State(), b.now.Loads()).PlaceTenant(
				neon.TenantID{i}, 32, neon.Attached(0))
			if err != nil {
				t.Fatal(err)
			}
			for _, sh := range shards {
				if sh.Attached == 4 {
					on++
				}
			}
			return on
		}
		b.opts.ProbeTimeout = 10 * time.Second
		b.fleet.set(func() { b.fleet.stalls = map[neon.NodeID]call{4: callProbe} })
		b.lead()
		if err := b.now.AwaitTerm(context.Background()); err != nil {
			t.Fatal(err)
		}
		place(1)
		elapse(20 * time.Millisecond)
		if n := place(2); n != 0 {
			t.Errorf("%d of 32 shards go to a node that was not asked yet", n)
		}
	})
}
