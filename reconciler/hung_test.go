package reconciler

import (
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
