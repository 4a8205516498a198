package reconciler

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/scheduler"
)

// optimiser looks for better places for shards that have all they need, while
// nothing else is to be done.
type optimiser struct {
	ctx     context.Context
	opts    Options
	log     decide.Log
	metrics Metrics
	logger  *slog.Logger
	queue   *shardQueue
	loads   func() map[neon.NodeID]scheduler.Load
	commit  func([]fsm.Intent) (refused []neon.ShardID)

	mu     sync.Mutex
	cursor neon.TenantID // where the next pass goes on; guarded by mu
}

// run looks for better places in intervals until the term ends.
func (o *optimiser) run() {
	tick := time.NewTicker(o.opts.OptimiseInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			o.pass(o.opts.OptimiseScan)
		case <-o.ctx.Done():
			return
		}
	}
}

// pass proposes better places for the shards of some tenants, one of each, and
// returns how many there are. It goes on where the last one ended, so that no
// tenant is kept waiting by others whose moves take long. While there is anything
// else to do it proposes nothing.
func (o *optimiser) pass(scan int) int {
	st := o.log.State()
	if !o.idle(st) {
		return 0
	}
	intents := o.plan(st, scan)
	if len(intents) == 0 {
		return 0
	}
	refused := o.commit(intents)
	n := len(intents) - len(refused)
	o.metrics.Optimised(n)
	for _, in := range intents {
		o.logger.Info("Applying optimization", "shard", in.Shard, "attached", in.Attached,
			"secondary", in.Secondary, "preferred", in.PreferredNode)
	}
	return len(intents)
}

// idle reports whether nothing is under way but what is stuck, waits for something
// to change, or waits for its destination to be warm.
func (o *optimiser) idle(st *fsm.State) bool {
	return o.queue.Load().Busy == 0 && operating(st) == 0
}

// plan looks at up to scan shards, beginning with the tenant after the last one.
func (o *optimiser) plan(st *fsm.State, scan int) (intents []fsm.Intent) {
	o.mu.Lock()
	defer o.mu.Unlock()
	sched := scheduler.New(st, o.loads())
	visit := func(tenant fsm.Tenant) bool {
		o.cursor = after(tenant.ID)
		if tenant.Scheduling == neon.ShardActive && !tenant.Deleting {
			if in, ok := o.best(st, sched, tenant); ok {
				intents = append(intents, in)
			}
		}
		scan -= tenant.Count.Shards()
		return scan > 0 && len(intents) < o.opts.OptimiseMoves
	}
	first := o.cursor
	for tenant := range st.TenantsFrom(first) {
		if !visit(tenant) {
			return intents
		}
	}
	for tenant := range st.TenantsFrom(neon.TenantID{}) {
		if compare(tenant.ID, first) >= 0 || !visit(tenant) {
			break
		}
	}
	return intents
}

// best is a proposal for one shard of a tenant of which no shard is moving.
func (o *optimiser) best(
	st *fsm.State, sched *scheduler.Scheduler, tenant fsm.Tenant,
) (found fsm.Intent, ok bool) {
	for sh := range st.TenantShards(tenant.ID) {
		if sh.PreferredNode != 0 {
			return fsm.Intent{}, false
		}
	}
	for sh := range st.TenantShards(tenant.ID) {
		if in, ok := sched.Optimise(sh); ok {
			return in, true
		}
	}
	return fsm.Intent{}, false
}

func compare(a, b neon.TenantID) int {
	return neon.ShardID{Tenant: a}.Compare(neon.ShardID{Tenant: b})
}

// after is the next possible id.
func after(id neon.TenantID) neon.TenantID {
	for i := len(id) - 1; i >= 0; i-- {
		if id[i]++; id[i] != 0 {
			return id
		}
	}
	return id // the last one: begin anew
}
