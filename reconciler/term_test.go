package reconciler

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/wait"
	"quorate/scheduler"
)

func elapse(d time.Duration) { _ = wait.Sleep(context.Background(), d) }

func scenario(t *testing.T, nodes int, f func(*bench)) {
	oldScenario(t, nodes, func(b *bench) {
		b.log.Upgrade(t)
		f(b)
	})
}

// oldScenario begins with the log of the first version.
func oldScenario(t *testing.T, nodes int, f func(*bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nodes)
		defer func() { b.depose() }()
		f(b)
	})
}

func TestNewTenantsAreAttachedAndAnnounced(t *testing.T) {
	scenario(t, 6, func(b *bench) {
		b.create(50, 4, neon.Attached(1))
		b.awaitIdle()
		b.check()
		for sh := range b.log.State().ShardsFrom(neon.ShardID{}) {
			if sh.Generation != 1 {
				b.t.Errorf("%s took %d generations for its first attach", sh.ID, sh.Generation)
			}
		}
	})
}

func TestANewLeaderThatOnlyDoesNotKnowSpendsNothing(t *testing.T) {
	scenario(t, 6, func(b *bench) {
		b.create(50, 4, neon.Attached(1))
		b.awaitIdle()
		before, puts := b.log.State().Hash(), b.fleet.puts
		for range 3 {
			b.depose()
			b.lead()
			b.awaitIdle()
		}
		if b.log.State().Hash() != before || b.fleet.puts != puts {
			b.t.Errorf("a change of leader changed the state, or made %d calls", b.fleet.puts-puts)
		}
	})
}

func TestShardsOfADeadNodeMoveWhoeverLeads(t *testing.T) {
	for _, kill := range []time.Duration{
		0, 4900 * time.Millisecond, 5200 * time.Millisecond, 5300 * time.Millisecond,
		5400 * time.Millisecond, 6 * time.Second,
	} {
		scenario(t, 6, func(b *bench) {
			b.create(100, 4, neon.Attached(1))
			b.awaitIdle()
			dead := b.busiest()
			b.fleet.set(
				func() { b.fleet.down[dead] = true; b.fleet.latency = 20 * time.Millisecond })
			if kill > 0 {
				elapse(kill)
				b.depose()
				b.lead()
			}
			elapse(15 * time.Second)
			b.awaitIdle()
			b.check()
			if n := b.attachedOn(dead); n != 0 {
				b.t.Errorf("leader killed after %s: %d shards stay on the dead node", kill, n)
			}
		})
	}
}

func TestTheWholeFleetGoneTearsNothingDown(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		b.create(20, 2, neon.Attached(1))
		b.awaitIdle()
		intents := map[neon.ShardID]fsm.Shard{}
		for sh := range b.log.State().ShardsFrom(neon.ShardID{}) {
			intents[sh.ID] = sh
		}
		b.fleet.set(func() {
			for id := range neon.NodeID(4) {
				b.fleet.down[id] = true
			}
		})
		elapse(time.Minute)
		for id, was := range intents {
			if now, _ := b.log.State().Shard(id); now.Attached != was.Attached ||
				now.Generation != was.Generation {
				b.t.Errorf("%s was moved from node %d to %d", id, was.Attached, now.Attached)
			}
		}
		b.fleet.set(func() { clear(b.fleet.down) })
		elapse(10 * time.Second)
		b.awaitIdle()
		b.check()
	})
}

func TestShardsMoveWhenANodeComesBackAfterAllWereGone(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		b.create(20, 2, neon.Attached(0))
		b.awaitIdle()
		b.fleet.set(func() { b.fleet.down[1], b.fleet.down[2], b.fleet.down[3] = true, true, true })
		elapse(30 * time.Second)
		b.fleet.set(func() { b.fleet.down[1] = false })
		elapse(10 * time.Second)
		b.awaitIdle()
		b.check()
		if n := b.attachedOn(2) + b.attachedOn(3); n != 0 {
			b.t.Errorf("%d shards stay on dead nodes while another could take them", n)
		}
	})
}

func TestPausedTenantsAreEvacuatedAndStoppedOnesAreNotTouched(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		ids := b.create(2, 1, neon.Attached(0))
		b.awaitIdle()
		policies := []neon.ShardScheduling{neon.ShardPause, neon.ShardStop}
		var on []neon.NodeID
		for i, id := range ids {
			tenant, _ := b.log.State().Tenant(id)
			b.must(fsm.UpdateTenant{ID: id, Sequence: tenant.Sequence, Scheduling: &policies[i]})
			sh, _ := b.log.State().Shard(tenant.Shards()[0])
			on = append(on, sh.Attached)
		}
		b.fleet.set(func() { b.fleet.down[on[0]], b.fleet.down[on[1]] = true, true })
		elapse(30 * time.Second)
		for i, id := range ids {
			sh, _ := b.log.State().Shard(neon.ShardID{Tenant: id, Count: 1})
			if moved := sh.Attached != on[i]; moved != (policies[i] == neon.ShardPause) {
				b.t.Errorf("%s: moved is %v", policies[i], moved)
			}
		}
	})
}

// The policy says that they should be served, and nothing of their shards changes.
func TestPausedTenantsThatAreNowhereGetAPlaceAndStoppedOnesDoNot(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		ids := b.create(3, 2, neon.Placement{Kind: neon.PlaceDetached})
		b.awaitIdle()
		policies := []neon.ShardScheduling{neon.ShardPause, neon.ShardStop, neon.ShardActive}
		for i, id := range ids {
			tenant, _ := b.log.State().Tenant(id)
			b.must(fsm.UpdateTenant{
				ID: id, Sequence: tenant.Sequence, Policy: new(neon.Attached(0)),
				Scheduling: &policies[i],
			})
		}
		elapse(30 * time.Second)
		for i, id := range ids {
			for sh := range b.log.State().TenantShards(id) {
				if placed := sh.Attached != 0; placed != (policies[i] != neon.ShardStop) {
					b.t.Errorf("%s: placed is %v", policies[i], placed)
				}
			}
		}
	})
}

func TestANodeBackFromTheDeadIsTidiedUp(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		b.create(40, 1, neon.Attached(1))
		b.awaitIdle()
		dead := b.busiest()
		b.fleet.set(func() { b.fleet.down[dead] = true })
		elapse(20 * time.Second)
		b.awaitIdle()
		b.fleet.set(func() { b.fleet.down[dead] = false })
		elapse(5 * time.Second)
		b.awaitIdle()
		b.check()
	})
}

func TestReAttachGivesNewNumbersOnce(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		b.create(40, 1, neon.Attached(1))
		b.awaitIdle()
		n := b.busiest()
		r := b.must(fsm.ReAttach{Node: n})
		b.now.ReAttached(n)
		b.fleet.set(func() {
			for _, l := range r.ReAttached {
				if l.Mode == neon.AttachedSingle {
					c := b.fleet.at[n][l.Shard]
					g := l.Generation
					c.Generation = &g
					b.fleet.at[n][l.Shard] = c
				}
			}
		})
		elapse(5 * time.Second)
		b.awaitIdle()
		b.check()
		for _, g := range r.Grants {
			if sh, _ := b.log.State().Shard(g.Shard); sh.Generation != g.Generation {
				b.t.Errorf("%s took another generation after its re-attach: %s", g.Shard,
					sh.Generation)
			}
		}
	})
}

// TestNodeThatHasLostItsDiskIsConfiguredAgain: what was observed on it is cleared at
// once, attachments and secondaries come back, and the other nodes keep theirs.
func TestNodeThatHasLostItsDiskIsConfiguredAgain(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		b.create(40, 1, neon.Attached(1))
		b.awaitIdle()
		n := b.busiest()
		b.fleet.set(func() { b.fleet.at[n] = make(map[neon.ShardID]neon.LocationConfig) })
		r := b.must(fsm.ReAttach{Node: n})
		b.now.ReAttachedEmpty(n)
		attached, secondary := 0, 0
		for _, l := range r.ReAttached {
			if shown := b.now.Status(l.Shard).Observed; shown[n] != nil || len(shown) == 0 {
				b.t.Errorf("%s is shown as %v", l.Shard, shown)
			} else if _, there := shown[n]; there {
				b.t.Errorf("%s may be on a node that has lost its disk", l.Shard)
			}
			if l.Mode == neon.AttachedSingle {
				attached++
			} else {
				secondary++
			}
		}
		if attached == 0 || secondary == 0 {
			b.t.Fatalf("%d attachments and %d secondaries were lost", attached, secondary)
		}
		elapse(5 * time.Second)
		b.awaitIdle()
		b.check()
		b.fleet.set(func() {
			if len(b.fleet.at[n]) != attached+secondary {
				b.t.Errorf("%d of %d locations are there again", len(b.fleet.at[n]),
					attached+secondary)
			}
		})
	})
}

func migrate(b *bench, sh fsm.Shard) neon.NodeID {
	to := neon.NodeID(0)
	for n := range b.log.State().Nodes() {
		if !sh.Intends(n.ID) {
			to = n.ID
		}
	}
	in, err := scheduler.New(b.log.State(), nil).Migrate(sh, to, scheduler.OverrideScheduler)
	if err != nil {
		b.t.Fatal(err)
	}
	b.must(fsm.SetIntents{Intents: []fsm.Intent{in}})
	return to
}

// A live migration ends the same wherever in it the leader is replaced.
func TestLiveMigrationEndsTheSameWhereverTheLeaderDies(t *testing.T) {
	for kill := range 16 {
		scenario(t, 3, func(b *bench) {
			id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(1))[0], Count: 1}
			b.pin(id.Tenant)
			b.awaitIdle()
			b.fleet.set(func() { b.fleet.latency = 10 * time.Millisecond })
			sh, _ := b.log.State().Shard(id)
			to := migrate(b, sh)
			elapse(time.Duration(kill)*10*time.Millisecond + 5*time.Millisecond)
			b.depose()
			b.lead()
			b.awaitIdle()
			b.check()
			if now, _ := b.log.State().Shard(id); now.Attached != to || now.GenNode != to {
				b.t.Errorf("killed after %d steps: on node %d, not %d", kill, now.GenNode, to)
			}
		})
	}
}

// A move that may take its time ends attached on the preferred node, wherever the
// leader is replaced, and never serves from a cold one.
func TestPrewarmedMigrationEndsOnThePreferredNode(t *testing.T) {
	for kill := range 10 {
		scenario(t, 3, func(b *bench) {
			id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(0))[0], Count: 1}
			b.pin(id.Tenant)
			b.awaitIdle()
			b.fleet.set(func() { b.fleet.latency = 10 * time.Millisecond })
			sh, _ := b.log.State().Shard(id)
			to := sh.Attached%3 + 1
			in, err := scheduler.New(b.log.State(), nil).Prewarm(sh, to,
				scheduler.OverrideScheduler)
			if err != nil {
				b.t.Fatal(err)
			}
			b.must(fsm.SetIntents{Intents: []fsm.Intent{in}})
			elapse(time.Duration(kill)*10*time.Millisecond + 5*time.Millisecond)
			b.depose()
			b.lead()
			b.awaitIdle()
			b.check()
			if now, _ := b.log.State().Shard(id); now.Attached != to || now.PreferredNode != 0 ||
				len(now.Secondary) != 0 {
				b.t.Errorf("killed after %d steps: %+v", kill, now)
			}
		})
	}
}

func TestAHookThatFailsHoldsBackOnlyTheDetach(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(0))[0], Count: 1}
		b.awaitIdle()
		sh, _ := b.log.State().Shard(id)
		b.fleet.set(func() { b.fleet.hookErr = errors.New("control plane is busy") })
		to := migrate(b, sh)
		elapse(30 * time.Second)
		b.fleet.set(func() {
			if !b.fleet.at[sh.Attached][id].Mode.Attached() || !b.fleet.at[to][id].Mode.Attached() {
				b.t.Errorf("origin is %q, destination is %q", b.fleet.at[sh.Attached][id].Mode,
					b.fleet.at[to][id].Mode)
			}
			b.fleet.hookErr = nil
		})
		elapse(30 * time.Second)
		b.awaitIdle()
		b.check()
	})
}

func TestLostAnswersOnlyCostTime(t *testing.T) {
	scenario(t, 6, func(b *bench) {
		b.fleet.set(func() { b.fleet.flaky = 0.3 })
		b.create(60, 2, neon.Attached(1))
		elapse(time.Minute)
		dead := b.busiest()
		b.fleet.set(func() { b.fleet.down[dead] = true })
		elapse(2 * time.Minute)
		b.fleet.set(func() { b.fleet.flaky = 0; b.fleet.down[dead] = false })
		elapse(3 * time.Minute)
		b.awaitIdle()
		b.check()
	})
}

func TestAwaitReturnsWhenAttachedAndNamesFailures(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(0))[0], Count: 1}
		if err := b.now.Await(b.t.Context(), b.log.State().Index, id); err != nil {
			b.t.Fatal(err)
		}
		sh, _ := b.log.State().Shard(id)
		b.fleet.set(func() { b.fleet.down[sh.Attached] = true })
		conf, _ := neon.ParseTenantConfig([]byte(`{"gc_horizon":1}`), neon.RejectUnknown)
		tenant, _ := b.log.State().Tenant(id.Tenant)
		r := b.must(fsm.UpdateTenant{ID: id.Tenant, Sequence: tenant.Sequence, Config: &conf})
		err := b.now.Await(b.t.Context(), r.Index, id)
		if neon.CodeOf(err) != neon.Internal {
			b.t.Errorf("await of a failing call: %v", err)
		}
		ctx, cancel := context.WithTimeout(b.t.Context(), 500*time.Microsecond)
		defer cancel()
		if err := b.now.Await(ctx, r.Index, id); neon.CodeOf(err) != neon.Timeout {
			b.t.Errorf("await beyond its time: %v", err)
		}
	})
}

func TestTermIsAwaited(t *testing.T) {
	scenario(t, 1, func(b *bench) {
		b.depose()
		short, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := b.now.AwaitTerm(short); !errors.Is(err, context.DeadlineExceeded) {
			b.t.Errorf("between two terms: %v", err)
		}
		ended := b.now.TermChanged()
		begun := time.Now()
		awaited := make(chan error)
		go func() { awaited <- b.now.AwaitTerm(context.Background()) }()
		time.Sleep(time.Minute)
		ctx, stop := context.WithCancel(context.Background())
		over := make(chan error)
		go func() { over <- b.now.Run(ctx, b.term+1) }()
		if err := <-awaited; err != nil || time.Since(begun) != time.Minute {
			b.t.Errorf("the term began after a minute, and was seen after %s: %v",
				time.Since(begun), err)
		}
		<-ended // it has begun
		ended = b.now.TermChanged()
		stop()
		<-over
		<-ended
	})
}

func TestDeletingATenantLeavesNoLocation(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		ids := b.create(10, 2, neon.Attached(1))
		b.awaitIdle()
		for _, id := range ids {
			b.must(fsm.BeginDeleteTenant{ID: id})
		}
		b.depose()
		b.lead()
		elapse(time.Second)
		for _, id := range ids {
			if err := b.now.Await(b.t.Context(), b.log.State().Index,
				neon.ShardIDs(id, 2)...); err != nil {
				b.t.Fatal(err)
			}
		}
		b.fleet.set(func() {
			for n, locations := range b.fleet.at {
				if len(locations) > 0 {
					b.t.Errorf("node %d still has %d locations", n, len(locations))
				}
			}
		})
	})
}
