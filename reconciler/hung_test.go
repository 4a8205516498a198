package reconciler

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
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
		b.settle()
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
		wait(b.opts.MaxOffline + 2*time.Second)
		b.fleet.set(func() { b.fleet.down[dead] = true }) // it is not looked at any more
		if n := b.attachedOn(dead); n != 0 {
			t.Fatalf("%d shards were not moved", n)
		}
		b.check()
	})
}

// TestQueueKeepsWakeUpsOfARunningPass: a decision that is made while a pass runs,
// and a wake-up, must not be forgotten when the pass ends in a back-off; what the
// pass itself committed does not count.
func TestQueueKeepsWakeUpsOfARunningPass(t *testing.T) {
	for _, tt := range []struct {
		name   string
		during func(q *queue, id neon.ShardID)
		passes int32
	}{
		{"what it committed itself", func(q *queue, id neon.ShardID) { q.touched(id, 10) }, 1},
		{"a newer decision", func(q *queue, id neon.ShardID) { q.touched(id, 11) }, 2},
		{"somebody waits", func(q *queue, id neon.ShardID) { q.wake(High, id) }, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var passes atomic.Int32
				var q *queue
				q = newQueue(smallOptions(), func(k *task) {
					k.basis = 10
					if passes.Add(1) == 1 {
						tt.during(q, k.id)
					} else {
						k.basis = 11
					}
					q.retry(k, time.Hour)
				})
				q.wake(Normal, shardN(1))
				synctest.Wait()
				if n := passes.Load(); n != tt.passes {
					t.Errorf("%d passes, want %d", n, tt.passes)
				}
				q.close()
			})
		})
	}
}
