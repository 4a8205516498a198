package reconciler

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/scheduler"
)

// optimiser looks for better places for shards that have all they need, and then for moves
// that make the loads of nodes even. In a large cluster there is always something else to be
// done, so it does not wait for that to end: it has a budget of moves at work, and what
// waits is not at work.
type optimiser struct {
	ctx      context.Context
	opts     Options
	log      decide.Log
	metrics  Metrics
	logger   *slog.Logger
	queue    *shardQueue
	loads    func() map[neon.NodeID]scheduler.Load
	sizes    func(*fsm.State) func(*fsm.Shard) uint64
	commit   func([]fsm.Intent) (refused []neon.ShardID)
	notifies bool // there is a compute hook

	mu     sync.Mutex                   // held while a plan is made
	cursor neon.TenantID                // where the next pass goes on; guarded by mu
	begun  map[neon.ShardID]struct{}    // moves that have not ended; guarded by mu
	left   map[neon.ShardID][]departure // lately; guarded by mu
}

// departure is when a shard began to leave a node for another one, and whether a copy is
// made there.
type departure struct {
	from, to neon.NodeID
	at       time.Time
	copied   bool
}

// noReturn is how long a shard does not go back to where it was: what is measured may change
// by the move itself. For as long it stays where an operator has placed it.
const noReturn = time.Hour

// To make loads even, all shards are looked at: 1 s for a million. While that takes long, it
// is done less often, so that it takes at most one part in busyShare of one processor, or in
// restShare if nothing is under way, but at least every longestPause. A full disk does not wait
// for that.
const (
	busyShare, restShare = 20, 200
	longestPause         = 5 * time.Minute
)

// run looks for better places in intervals until the term ends.
func (o *optimiser) run() {
	tick := time.NewTicker(o.opts.OptimiseInterval)
	defer tick.Stop()
	var due time.Time // the next look at all shards
	for {
		select {
		case <-tick.C:
		case <-o.ctx.Done():
			return
		}
		o.propose(o.plan(o.log.State(), o.opts.OptimiseScan))
		if time.Now().Before(due) && !o.anyFull() {
			continue
		}
		began := time.Now()
		intents := o.even(o.log.State())
		due = time.Now().Add(min(o.share()*time.Since(began), longestPause))
		o.propose(intents)
	}
}

// share is the part of one processor that looks at all shards may take, as its inverse.
func (o *optimiser) share() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.begun) > 0 {
		return busyShare
	}
	return restShare
}

// anyFull reports whether a disk is to be relieved.
func (o *optimiser) anyFull() bool {
	for _, l := range o.loads() {
		if l.Full {
			return true
		}
	}
	return false
}

// pass proposes better places for the shards of some tenants, one of each, and
// returns how many there are. It goes on where the last one ended, so that no
// tenant is kept waiting by others whose moves take long. What the budget leaves is for
// even loads.
func (o *optimiser) pass(scan int) int {
	better := o.propose(o.plan(o.log.State(), scan))
	return better + o.propose(o.even(o.log.State()))
}

func (o *optimiser) propose(intents []fsm.Intent) int {
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

// atWork counts the moves begun by this leader that are being worked on, and forgets
// those that have ended. A successor begins to count anew.
func (o *optimiser) atWork(st *fsm.State) (n int) {
	for id := range o.begun {
		sh, _ := st.Shard(id)
		switch q := o.queue.Status(id); {
		case q.Active && !q.Waits:
			n++
		case !q.Active && sh.PreferredNode == 0:
			delete(o.begun, id)
		}
	}
	return n
}

// plan looks at up to scan shards, beginning with the tenant after the last one, for
// as many moves as the budget has room for.
func (o *optimiser) plan(st *fsm.State, scan int) (intents []fsm.Intent) {
	o.mu.Lock()
	defer o.mu.Unlock()
	room := o.opts.OptimiseMoves - o.atWork(st)
	if room <= 0 {
		return nil
	}
	sched := scheduler.New(st, o.loads())
	visit := func(tenant fsm.Tenant) bool {
		o.cursor = after(tenant.ID)
		if tenant.Scheduling == neon.ShardActive && !tenant.Deleting {
			if in, ok := o.best(st, sched, tenant); ok {
				intents = append(intents, in)
				o.begun[in.Shard] = struct{}{}
				if in.PreferredNode != 0 {
					o.leave(st, &in)
				}
			}
		}
		scan -= tenant.Count.Shards()
		return scan > 0 && len(intents) < room
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

// even makes loads even, with as many moves as the budget has room for.
func (o *optimiser) even(st *fsm.State) []fsm.Intent {
	if o.opts.OptimisePerNode < 0 {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	left := make(map[neon.ShardID][]neon.NodeID)
	for id, all := range o.left {
		all = slices.DeleteFunc(all,
			func(d departure) bool { return time.Since(d.at) >= noReturn })
		if o.left[id] = all; len(all) == 0 {
			delete(o.left, id)
		}
		for _, d := range all {
			left[id] = append(left[id], d.from)
		}
	}
	intents := scheduler.New(st, o.loads()).Balance(scheduler.Balancing{
		Size: o.sizes(st), Left: left, Disks: o.disks(),
		Moves: o.opts.OptimiseMoves - o.atWork(st), PerNode: o.opts.OptimisePerNode,
		May: func(id neon.ShardID) bool {
			return !o.failing(id) && !o.occupied(st, id.Tenant) && !placed(st, id)
		},
		AtWork: o.atWorkOn,
	})
	for _, in := range intents {
		o.begun[in.Shard] = struct{}{}
		o.leave(st, &in)
	}
	return intents
}

// leave notes where a shard, or its secondary, begins to leave. The caller holds the lock.
func (o *optimiser) leave(st *fsm.State, in *fsm.Intent) {
	sh, _ := st.Shard(in.Shard)
	o.left[in.Shard] = append(o.left[in.Shard], depart(&sh, in))
}

// best is a proposal for one shard of a tenant of which no shard is moving. One for
// which calls fail is left alone until they succeed, or it is stuck.
func (o *optimiser) best(
	st *fsm.State, sched *scheduler.Scheduler, tenant fsm.Tenant,
) (found fsm.Intent, ok bool) {
	if o.occupied(st, tenant.ID) {
		return fsm.Intent{}, false
	}
	for sh := range st.TenantShards(tenant.ID) {
		if o.failing(sh.ID) {
			continue
		}
		if in, ok := sched.Optimise(sh); ok {
			return in, true
		}
	}
	return fsm.Intent{}, false
}

// placed reports whether an operator has wanted a shard lately where it is. The log has it,
// so that it holds whoever leads.
func placed(st *fsm.State, id neon.ShardID) bool {
	sh, _ := st.Shard(id)
	return sh.PlacedOn != 0 && sh.PlacedOn == sh.Goal() &&
		time.Since(time.UnixMilli(sh.PlacedAt)) < noReturn
}

// failing reports whether calls for a shard fail.
func (o *optimiser) failing(id neon.ShardID) bool {
	q := o.queue.Status(id)
	return q.Failures > 0 && !q.Waits
}

// atWorkOn reports whether a shard is being worked on.
func (o *optimiser) atWorkOn(id neon.ShardID) bool {
	q := o.queue.Status(id)
	return q.Active && !q.Waits
}

// occupied reports whether a shard of a tenant is moving.
func (o *optimiser) occupied(st *fsm.State, id neon.TenantID) bool {
	for sh := range st.TenantShards(id) {
		if o.moving(&sh) {
			return true
		}
	}
	return false
}

// moving reports whether the other shards of a tenant have to wait for one: while it
// is at work, and while compute is not told of it, since their moves would stop at the
// same place. One whose destination stays cold, or that is stuck, holds up no other.
func (o *optimiser) moving(sh *fsm.Shard) bool {
	if o.notifies && sh.OwesNotification() {
		return true
	}
	return sh.PreferredNode != 0 && o.atWorkOn(sh.ID)
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
