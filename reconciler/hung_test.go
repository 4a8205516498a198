package reconciler

import (
	"context"
	"fmt"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

// TestACallThatHangsDoesNotHoldAShardOfADeadNode: when a node is judged dead, the
// calls to it are given up. Otherwise the shard would wait for their timeouts
// before it is attached elsewhere.
func TestACallThatHangsDoesNotHoldAShardOfADeadNode(t *testing.T) {
	scenario(t, 4, func(b *bench) {
		ids := b.create(10, 2, neon.Attached(0))
		b.awaitIdle()
		dead := b.busiest()
		b.fleet.set(func() { b.fleet.hung = dead })
		conf, err := neon.ParseTenantConfig([]byte(`{"gc_horizon":7}`), neon.RejectUnknown)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			tenant, _ := b.log.State().Tenant(id)
			// every shard has a call under way
			b.must(fsm.UpdateTenant{ID: id, Sequence: tenant.Sequence, Config: &conf})
		}
		elapse(b.opts.MaxOffline + 2*time.Second)
		b.fleet.set(func() { b.fleet.down[dead] = true }) // it is not looked at any more
		if n := b.attachedOn(dead); n != 0 {
			t.Fatalf("%d shards were not moved", n)
		}
		b.check()
	})
}

// TestRequestsDoNotWaitForWhoIsSilent: a pageserver is dead, and there is no verdict yet.
// The leader that has called it is refused at once, and so are the requests that wait for
// that. Its successor has called nobody. It knows as much after the first heartbeat.
func TestRequestsDoNotWaitForWhoIsSilent(t *testing.T) {
	const soon = 200 * time.Millisecond
	scenario(t, 4, func(b *bench) {
		ids := b.create(10, 2, neon.Attached(1))
		b.awaitIdle()
		dead := b.busiest()
		b.fleet.set(func() { b.fleet.down[dead] = true })
		ask := func(who string, value int) {
			for _, id := range ids {
				conf, err := neon.ParseTenantConfig(fmt.Appendf(nil, `{"gc_horizon":%d}`, value),
					neon.RejectUnknown)
				if err != nil {
					t.Fatal(err)
				}
				tenant, _ := b.log.State().Tenant(id)
				r := b.must(fsm.UpdateTenant{ID: id, Sequence: tenant.Sequence, Config: &conf})
				begun := time.Now()
				ctx, cancel := context.WithTimeout(b.t.Context(), 5*time.Second)
				_ = b.now.Await(ctx, r.Index, tenant.Shards()...)
				cancel()
				if took := time.Since(begun); took > soon {
					t.Errorf("%s: a request took %s", who, took)
				}
			}
		}
		ask("the leader", 1)
		b.depose()
		b.lead()
		ask("its successor, at once", 2)
		elapse(time.Second)
		ask("its successor, later", 3)
		elapse(b.opts.MaxOffline + 5*time.Second)
		b.check()
	})
}

// silentNode creates tenants and has the node that serves most of them fall silent.
func (b *bench) silentNode() neon.NodeID {
	b.create(10, 2, neon.Attached(1))
	b.awaitIdle()
	n := b.busiest()
	b.fleet.set(func() { b.fleet.down[n] = true })
	elapse(b.opts.MaxOffline - time.Second)
	return n
}

// TestANodeThatHasRestartedAndFallsSilentIsNotedAtOnce: that its process before was silent
// is no reason to say nothing of it.
func TestANodeThatHasRestartedAndFallsSilentIsNotedAtOnce(t *testing.T) {
	scenario(t, 4, func(b *bench) {
		n := b.silentNode()
		elapse(5 * time.Second) // the verdict
		b.fleet.set(func() { b.fleet.down[n] = false })
		b.must(fsm.ReAttach{Node: n})
		elapse(time.Second)
		if node, _ := b.log.State().Node(n); node.Availability != neon.NodeActive {
			t.Fatalf("it is %+v", node)
		}
		b.fleet.set(func() { b.fleet.down[n] = true })
		elapse(3 * time.Second)
		if node, _ := b.log.State().Node(n); node.Silent == 0 {
			t.Error("it is silent, and the log does not say so")
		}
		b.fleet.set(func() { b.fleet.down[n] = false })
		elapse(noteInterval)
		b.awaitIdle()
		b.check()
	})
}

// TestTheVerdictDoesNotBeginAnewWithTheLeader: a node has been silent for most of its time
// when the leader dies. Its successor asks it twice, and does not wait for all of it again.
func TestTheVerdictDoesNotBeginAnewWithTheLeader(t *testing.T) {
	scenario(t, 4, func(b *bench) {
		dead := b.silentNode()
		if n, _ := b.log.State().Node(dead); n.Silent == 0 || n.Availability != neon.NodeActive {
			t.Fatalf("it is %+v", n)
		}
		b.depose()
		b.lead()
		elapse(2 * time.Second)
		if n, _ := b.log.State().Node(dead); n.Availability != neon.NodeOffline {
			t.Errorf("two seconds after the change of the leader it is %+v", n)
		}
	})
}

// TestAnAnswerEndsASilence: also one that the leader before has noted.
func TestAnAnswerEndsASilence(t *testing.T) {
	scenario(t, 4, func(b *bench) {
		node := b.silentNode()
		b.depose()
		b.fleet.set(func() { b.fleet.down[node] = false })
		b.lead()
		elapse(10 * time.Second)
		if n, _ := b.log.State().Node(node); n.Silent != 0 || n.Availability != neon.NodeActive {
			t.Errorf("it is %+v", n)
		}
		b.fleet.set(func() { b.fleet.down[node] = true })
		elapse(2 * time.Second)
		b.depose()
		b.lead()
		elapse(b.opts.MaxOffline - 4*time.Second)
		if n, _ := b.log.State().Node(node); n.Availability != neon.NodeActive {
			t.Error("it was given up for a silence that had ended")
		}
	})
}
