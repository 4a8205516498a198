package reconciler

import (
	"context"
	"errors"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/wait"
	"quorate/reconciler/outbox"
)

// refusing is a control plane that takes its time to refuse.
type refusing struct{}

func (refusing) NotifyAttach(ctx context.Context, _ *neon.NotifyAttach) error {
	if err := wait.Sleep(ctx, time.Second); err != nil {
		return err
	}
	return errors.New("it waits for this deletion itself")
}

// TestDeletionDoesNotWaitForCompute: what a control plane that fails is owed is
// not owed any more.
func TestDeletionDoesNotWaitForCompute(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		b.depose()
		b.hook = refusing{}
		b.lead()
		id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(0))[0], Count: 1}
		elapse(500 * time.Millisecond)
		b.fleet.set(func() { b.fleet.latency = 900 * time.Millisecond })
		r := b.must(fsm.BeginDeleteTenant{ID: id.Tenant})
		if err := b.now.Await(b.t.Context(), r.Index, id); err != nil {
			b.t.Error(err)
		}
	})
}

// TestComputeIsToldAgainAfterATenantWasPutAway: compute that forgot it must hear of it,
// also when it comes back to the same node.
func TestComputeIsToldAgainAfterATenantWasPutAway(t *testing.T) {
	scenario(t, 1, func(b *bench) {
		id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(0))[0], Count: 1}
		b.awaitIdle()
		place := func(p neon.Placement, in fsm.Intent) {
			tenant, _ := b.log.State().Tenant(id.Tenant)
			sh, _ := b.log.State().Shard(id)
			in.Shard, in.Sequence = id, sh.Sequence
			b.must(fsm.UpdateTenant{
				ID: id.Tenant, Sequence: tenant.Sequence, Policy: &p, Intents: []fsm.Intent{in},
			})
			b.awaitIdle()
		}
		place(neon.Placement{}, fsm.Intent{})
		b.fleet.set(func() { delete(b.fleet.notified, id) })
		place(neon.Attached(0), fsm.Intent{Attached: 1})
		b.check()
	})
}

// TestComputeIsToldOfAMoveThatWasTakenBack: two moves in opposite directions, of
// which the first notification was refused: the last one must not be taken for
// what compute knows already.
func TestComputeIsToldOfAMoveThatWasTakenBack(t *testing.T) {
	scenario(t, 2, func(b *bench) {
		id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(0))[0], Count: 1}
		b.awaitIdle()
		sh, _ := b.log.State().Shard(id)
		b.fleet.set(func() { b.fleet.hookErr = errors.New("busy, but remembered") })
		to := migrate(b, sh)
		elapse(5 * time.Second)
		b.fleet.set(func() { b.fleet.notified[id] = to }) // it took it after all
		now, _ := b.log.State().Shard(id)
		migrate(b, now)
		elapse(5 * time.Second)
		b.fleet.set(func() { b.fleet.hookErr = nil })
		elapse(30 * time.Second)
		b.awaitIdle()
		b.check()
		if now, _ := b.log.State().Shard(id); now.Attached != sh.Attached {
			b.t.Errorf("it is on node %d, not back on %d", now.Attached, sh.Attached)
		}
	})
}

// TestANewLeaderPaysWhatItsPredecessorOwes: it finds everything as it should be, and
// compute not knowing of it.
func TestANewLeaderPaysWhatItsPredecessorOwes(t *testing.T) {
	scenario(t, 2, func(b *bench) {
		b.fleet.set(func() { b.fleet.hookErr = errors.New("down") })
		b.create(5, 2, neon.Attached(0))
		elapse(5 * time.Second)
		b.depose()
		puts := 0
		b.fleet.set(func() { b.fleet.hookErr = nil; puts = b.fleet.puts })
		b.lead()
		elapse(5 * time.Second)
		b.awaitIdle()
		b.check()
		if b.fleet.puts != puts {
			b.t.Errorf("%d calls were made for it", b.fleet.puts-puts)
		}
	})
}

// slowFor is a control plane that never answers for one tenant.
type slowFor struct {
	outbox.Hook
	tenant neon.TenantID
}

func (h slowFor) NotifyAttach(ctx context.Context, body *neon.NotifyAttach) error {
	if body.Tenant == h.tenant {
		<-ctx.Done()
		return ctx.Err()
	}
	return h.Hook.NotifyAttach(ctx, body)
}

// TestNotificationsOfOneTenantDoNotHoldUpOthers: also not when there are more shards
// waiting for it than workers.
func TestNotificationsOfOneTenantDoNotHoldUpOthers(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		b.depose()
		b.opts.NormalWorkers, b.opts.HighWorkers = 2, 2
		b.hook = slowFor{b.fleet, neon.TenantID{0xaa, 0, 0, 16}}
		b.lead()
		b.create(1, 16, neon.Attached(0))
		ids := b.create(5, 1, neon.Attached(0))
		elapse(2 * time.Second)
		for _, id := range ids {
			if sh, _ := b.log.State().Shard(neon.ShardID{
				Tenant: id, Count: 1,
			}); sh.OwesNotification() {
				b.t.Errorf("compute was not told of %s", id)
			}
		}
	})
}
