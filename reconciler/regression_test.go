package reconciler

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/reconciler/plan"
)

// TestAllShardsOfANodeThatHangsAreMoved: more calls than the node takes at a time
// are under way or wait for it when it is judged dead.
func TestAllShardsOfANodeThatHangsAreMoved(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		b.depose()
		b.opts.PerNode = 2
		b.lead()
		ids := b.create(30, 1, neon.Attached(0))
		b.awaitIdle()
		dead := b.busiest()
		b.fleet.set(func() { b.fleet.hung = dead })
		b.configure(ids, `{"gc_horizon":7}`)
		elapse(b.opts.MaxOffline + 5*time.Second)
		b.fleet.set(func() { b.fleet.down[dead] = true })
		if n := b.attachedOn(dead); n != 0 {
			t.Fatalf("%d shards were not moved", n)
		}
		b.check()
	})
}

// configure changes the configuration of tenants.
func (b *bench) configure(ids []neon.TenantID, text string) {
	b.t.Helper()
	conf, err := neon.ParseTenantConfig([]byte(text), neon.RejectUnknown)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, id := range ids {
		tenant, _ := b.log.State().Tenant(id)
		b.must(fsm.UpdateTenant{ID: id, Sequence: tenant.Sequence, Config: &conf})
	}
}

// TestNodesThatDieOneAfterAnotherTakeNothing: when the first of them is judged, the
// others are dead without a verdict. Moving shards there would spend generations,
// and move everything again when they come back.
func TestNodesThatDieOneAfterAnotherTakeNothing(t *testing.T) {
	for _, kill := range []bool{false, true} {
		scenario(t, 3, func(b *bench) {
			b.create(20, 2, neon.Attached(1))
			b.awaitIdle()
			intents := map[neon.ShardID]fsm.Shard{}
			for sh := range b.log.State().ShardsFrom(neon.ShardID{}) {
				intents[sh.ID] = sh
			}
			for n := neon.NodeID(1); n <= 3; n++ {
				b.fleet.set(func() { b.fleet.down[n] = true })
				elapse(1100 * time.Millisecond)
			}
			if kill { // its successor has not asked any node yet
				b.depose()
				b.lead()
			}
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
}

// TestANewLeaderEvacuatesOnlyToNodesThatAnswer: it finds the verdict on one node in
// the log, and another dead without a verdict.
func TestANewLeaderEvacuatesOnlyToNodesThatAnswer(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		b.create(20, 1, neon.Attached(0))
		b.awaitIdle()
		b.depose()
		b.fleet.set(func() { b.fleet.down[1], b.fleet.down[2] = true, true })
		b.must(fsm.SetNodeAvailability{Verdicts: []fsm.Verdict{{Node: 1, To: neon.NodeOffline}}})
		was := b.attachedOn(2)
		b.lead()
		elapse(2 * time.Second)
		if n := b.attachedOn(1); n != 0 {
			b.t.Errorf("%d shards stay on the dead node", n)
		}
		if n := b.attachedOn(2); n != was {
			b.t.Errorf("%d shards were moved to a node that does not answer", n-was)
		}
	})
}

// TestOneHungNodeDoesNotDelayTheVerdictOnAnother: every node is asked on its own.
func TestOneHungNodeDoesNotDelayTheVerdictOnAnother(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		b.fleet.set(func() { b.fleet.hung = 1 })
		elapse(time.Second)
		b.fleet.set(func() { b.fleet.down[2] = true })
		elapse(b.opts.MaxOffline + b.opts.HeartbeatInterval + time.Second)
		if n, _ := b.log.State().Node(2); n.Availability != neon.NodeOffline {
			b.t.Errorf("node 2 is %s", n.Availability)
		}
	})
}

// TestALeaderThatWasFrozenJudgesNobody: while it stood still no node could answer it,
// and the heartbeats that were under way then prove nothing.
func TestALeaderThatWasFrozenJudgesNobody(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		b.create(10, 1, neon.Attached(0))
		b.awaitIdle()
		b.fleet.set(func() { b.fleet.frozen = b.opts.MaxOffline + time.Second })
		elapse(b.opts.HeartbeatInterval)
		b.fleet.set(func() { b.fleet.frozen = 0 })
		elapse(b.opts.MaxOffline + 10*time.Second)
		for n := range b.log.State().Nodes() {
			if n.Availability != neon.NodeActive || b.log.State().Counts(n.ID).Attached == 0 {
				b.t.Errorf("node %d is %s and has %d shards", n.ID, n.Availability,
					b.log.State().Counts(n.ID).Attached)
			}
		}
	})
}

// TestARestartIsNoFailure: a node that re-attached is given the longer time, and
// its shards stay.
func TestARestartIsNoFailure(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		b.create(20, 1, neon.Attached(1))
		b.awaitIdle()
		n := b.busiest()
		was := b.attachedOn(n)
		b.fleet.set(func() { b.fleet.down[n] = true })
		b.must(fsm.ReAttach{Node: n})
		b.now.ReAttached(n)
		elapse(b.opts.MaxWarmingUp - 2*time.Second)
		if now := b.attachedOn(n); now != was {
			b.t.Errorf("%d of %d shards left a node that warms up", was-now, was)
		}
		elapse(10 * time.Second)
		if now := b.attachedOn(n); now != 0 {
			b.t.Errorf("%d shards stay on a node that never came up", now)
		}
	})
}

// TestDeletionWaitsForANodeThatHasJustStarted: it serves the tenant since its
// re-attach, though it is not used yet. Removing the data under it would let it
// write into what was deleted.
func TestDeletionWaitsForANodeThatHasJustStarted(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(0))[0], Count: 1}
		b.awaitIdle()
		sh, _ := b.log.State().Shard(id)
		b.fleet.set(func() { b.fleet.deaf = sh.Attached })
		b.must(fsm.ReAttach{Node: sh.Attached})
		b.now.ReAttached(sh.Attached)
		b.must(fsm.BeginDeleteTenant{ID: id.Tenant})
		ctx, cancel := context.WithTimeout(b.t.Context(), 5*time.Second)
		defer cancel()
		if err := b.now.Await(ctx, b.log.State().Index, id); neon.CodeOf(err) != neon.Timeout {
			b.t.Errorf("awaiting the detach of a tenant that is attached: %v", err)
		}
		b.fleet.set(func() { b.fleet.deaf = 0 })
		ctx, cancel = context.WithTimeout(b.t.Context(), 10*time.Second)
		defer cancel()
		if err := b.now.Await(ctx, b.log.State().Index, id); err != nil {
			b.t.Error(err)
		}
		b.fleet.set(func() {
			if _, there := b.fleet.at[sh.Attached][id]; there {
				b.t.Error("it is still attached")
			}
		})
	})
}

// TestActivationBelievesNothingOlderThanACall: what an operator's order finds on a
// node may have been overtaken while it was on its way.
func TestActivationBelievesNothingOlderThanACall(t *testing.T) {
	scenario(t, 1, func(b *bench) {
		id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(0))[0], Count: 1}
		b.awaitIdle()
		know := b.now.current.Load().seen
		attached := plan.Conf{Mode: neon.AttachedSingle, Generation: 9}
		b.fleet.set(func() {
			delete(b.fleet.at[1], id)
			b.fleet.onList = func() {
				know.BeginCall(id, 1, 9)
				know.EndCall(id, 1, attached, true)
			}
		})
		if err := b.now.ActivateNode(b.t.Context(), 1); err != nil {
			b.t.Fatal(err)
		}
		b.fleet.set(func() { b.fleet.onList = nil })
		if at := b.sightOf(id, 1); at.Conf != attached {
			b.t.Errorf("an older listing made it %+v", at)
		}
	})
}

// TestASecondaryThatFailsHoldsNothingUp: neither other secondaries nor the end of a
// location that is not wanted any more depend on a node that refuses every call.
func TestASecondaryThatFailsHoldsNothingUp(t *testing.T) {
	scenario(t, 4, func(b *bench) {
		id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(0))[0], Count: 1}
		b.awaitIdle()
		sh, _ := b.log.State().Shard(id)
		from := sh.Attached
		var other []neon.NodeID
		for n := neon.NodeID(1); n <= 4; n++ {
			if n != from {
				other = append(other, n)
			}
		}
		// It comes back from the dead with what it had, when everything is elsewhere.
		b.fleet.set(func() { b.fleet.down[from] = true })
		elapse(15 * time.Second)
		b.awaitIdle()
		sh, _ = b.log.State().Shard(id)
		var spare []neon.NodeID
		for _, n := range other {
			if n != sh.Attached {
				spare = append(spare, n)
			}
		}
		b.fleet.set(func() {
			b.fleet.onPut = func(n neon.NodeID, _ neon.ShardID) error {
				if n == spare[0] {
					return errors.New("refused")
				}
				return nil
			}
			b.fleet.down[from] = false
		})
		tenant, _ := b.log.State().Tenant(id.Tenant)
		policy := neon.Attached(2)
		b.must(fsm.UpdateTenant{ID: id.Tenant, Sequence: tenant.Sequence, Policy: &policy,
			Intents: []fsm.Intent{{
				Shard: id, Sequence: sh.Sequence, Attached: sh.Attached, Secondary: spare,
			}}})
		elapse(30 * time.Second)
		b.fleet.set(func() {
			if _, there := b.fleet.at[from][id]; there {
				b.t.Errorf("the old location stays on node %d", from)
			}
			if c := b.fleet.at[spare[1]][id]; c.Mode != neon.Secondary {
				b.t.Errorf("the other secondary is %q", c.Mode)
			}
			b.fleet.onPut = nil
		})
		if b.now.Status(id).LastError == "" {
			b.t.Error("nobody is told of the failure")
		}
		elapse(30 * time.Second)
		b.awaitIdle()
		b.check()
	})
}

// TestAFailedCallIsMadeAgain: once a call to a secondary has failed its answer is what
// reports whether the node obeys. A look could find it as wanted already, and a
// waiter would take a node that refuses every call for one in order.
func TestAFailedCallIsMadeAgain(t *testing.T) {
	scenario(t, 2, func(b *bench) {
		id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(1))[0], Count: 1}
		b.awaitIdle()
		sh, _ := b.log.State().Shard(id)
		attached, secondary := sh.Attached, sh.Secondary
		b.fleet.set(func() {
			b.fleet.onPut = func(n neon.NodeID, _ neon.ShardID) error {
				if n == secondary[0] {
					return errors.New("refused")
				}
				return nil
			}
		})
		update := func(p neon.Placement, in fsm.Intent) {
			tenant, _ := b.log.State().Tenant(id.Tenant)
			sh, _ := b.log.State().Shard(id)
			in.Shard, in.Sequence = id, sh.Sequence
			b.must(fsm.UpdateTenant{
				ID: id.Tenant, Sequence: tenant.Sequence, Policy: &p, Intents: []fsm.Intent{in},
			})
		}
		refused := func(what string) {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if _, err := b.now.ReconcileAll(ctx); err == nil ||
				!strings.Contains(err.Error(), "refused") {
				t.Errorf("%s: %v", what, err)
			}
		}
		update(neon.Placement{Kind: neon.PlaceDetached}, fsm.Intent{})
		refused("detaching")
		update(neon.Attached(1), fsm.Intent{Attached: attached, Secondary: secondary})
		refused("attaching again")
		b.fleet.set(func() {
			if c := b.fleet.at[attached][id]; c.Mode != neon.AttachedSingle {
				t.Errorf("it is %q, with a secondary that refuses", c.Mode)
			}
			b.fleet.onPut = nil
		})
		b.awaitIdle()
		b.check()
	})
}

// TestAnOriginThatFailsForeverHandsNothingOver: it answers heartbeats and nothing
// else. The shard is not kept from the node it should be served from.
func TestAnOriginThatFailsForeverHandsNothingOver(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(0))[0], Count: 1}
		b.awaitIdle()
		sh, _ := b.log.State().Shard(id)
		b.fleet.set(func() {
			b.fleet.onPut = func(n neon.NodeID, _ neon.ShardID) error {
				if n == sh.Attached {
					return errors.New("broken")
				}
				return nil
			}
		})
		to := migrate(b, sh)
		elapse(b.opts.MaxOffline - time.Second)
		if now, _ := b.log.State().Shard(id); now.GenNode != sh.Attached {
			b.t.Error("it was given up at once")
		}
		elapse(30 * time.Second)
		b.fleet.set(func() {
			c := b.fleet.at[to][id]
			if c.Mode != neon.AttachedSingle || b.fleet.notified[id] != to {
				b.t.Errorf("the destination is %q and compute was told node %d", c.Mode,
					b.fleet.notified[id])
			}
			b.fleet.onPut = nil
		})
		elapse(30 * time.Second)
		b.awaitIdle()
		b.check()
	})
}

// TestADeadSecondaryDoesNotHoldUpItsShard: what cannot be reached is passed over,
// in a first attachment, a fail-over and a live migration.
func TestADeadSecondaryDoesNotHoldUpItsShard(t *testing.T) {
	scenario(t, 4, func(b *bench) {
		ids := b.create(10, 1, neon.Attached(1))
		b.awaitIdle()
		b.fleet.set(func() { b.fleet.down[1] = true })
		elapse(b.opts.MaxOffline + 5*time.Second)
		b.awaitIdle()
		for _, id := range ids {
			shard := neon.ShardID{Tenant: id, Count: 1}
			if err := b.now.Await(b.t.Context(), b.log.State().Index, shard); err != nil {
				b.t.Error(err)
			}
			sh, _ := b.log.State().Shard(shard)
			if to := migrate(b, sh); to == 1 {
				continue
			}
			if err := b.now.Await(b.t.Context(), b.log.State().Index, shard); err != nil {
				b.t.Error(err)
			}
		}
	})
}

// TestACallIsNotBelievedAcrossARestart: a pageserver that restarts while a call is
// under way may have carried it out before or never.
func TestACallIsNotBelievedAcrossARestart(t *testing.T) {
	scenario(t, 1, func(b *bench) {
		id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(0))[0], Count: 1}
		b.awaitIdle()
		b.fleet.set(func() { b.fleet.latency = time.Second })
		b.configure([]neon.TenantID{id.Tenant}, `{"gc_horizon":7}`)
		elapse(500 * time.Millisecond)
		b.must(fsm.ReAttach{Node: 1})
		if at := b.sightOf(id, 1); at.Known {
			b.t.Fatalf("known while a call is under way: %v", at)
		}
		elapse(700 * time.Millisecond)
		b.fleet.set(func() { b.fleet.latency = time.Millisecond })
		if at := b.sightOf(id, 1); at.Known && at.Conf.Generation == 1 {
			b.t.Errorf("the answer to the earlier process counts: %v", at)
		}
		b.now.ReAttached(1)
		elapse(5 * time.Second)
		b.awaitIdle()
		b.check()
	})
}

// TestAFlappingNodeEndsAsTheLogSays: verdicts come and go while its shards move to
// and fro.
func TestAFlappingNodeEndsAsTheLogSays(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		b.create(30, 1, neon.Attached(1))
		b.awaitIdle()
		b.fleet.set(func() { b.fleet.latency = 50 * time.Millisecond; b.fleet.flaky = 0.1 })
		for i := range 6 {
			n := neon.NodeID(i%3 + 1)
			b.fleet.set(func() { b.fleet.down[n] = true })
			elapse(b.opts.MaxOffline + time.Duration(i*150)*time.Millisecond)
			b.fleet.set(func() { b.fleet.down[n] = false })
			elapse(time.Duration(i*170) * time.Millisecond)
		}
		b.fleet.set(func() { b.fleet.latency = time.Millisecond; b.fleet.flaky = 0 })
		elapse(time.Minute)
		b.awaitIdle()
		b.check()
	})
}
