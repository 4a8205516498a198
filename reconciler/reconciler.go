package reconciler

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/reconciler/plan"
	"quorate/scheduler"
)

// Reconciler runs one term after another. Between terms it knows nothing.
type Reconciler struct {
	deps    Deps
	current atomic.Pointer[term]
	began   bool // a term was run before; of the goroutine that runs them
}

// New makes a Reconciler; Run starts it.
func New(d Deps) *Reconciler {
	d.Options = d.Options.withDefaults()
	if d.Metrics == nil {
		d.Metrics = noMetrics{}
	}
	return &Reconciler{deps: d}
}

// Run works for one leader term and returns when ctx ends, with everything it
// started joined. The log must have applied all entries of earlier terms.
func (r *Reconciler) Run(ctx context.Context, number uint64) error {
	d := r.deps
	d.Logger = d.Logger.With("term", number)
	t := newTerm(ctx, d)
	r.current.Store(t)
	defer r.current.Store(nil)
	t.run(!r.began && d.Hook != nil && d.Retell != nil && d.Retell())
	r.began = true
	if d.Ended != nil {
		d.Ended()
	}
	return context.Cause(ctx)
}

// Changed is to be called after each batch of applied entries, on the applying
// goroutine; it returns at once.
func (r *Reconciler) Changed(_ *fsm.State, c fsm.Touched) {
	if t := r.current.Load(); t != nil {
		t.changed(c)
	}
}

var errNoTerm = &neon.Error{Code: neon.NotLeader, Msg: "this replica does not lead"}

// Ready tells whether this replica leads and has looked at every node once.
func (r *Reconciler) Ready() bool {
	t := r.current.Load()
	if t == nil {
		return false
	}
	select {
	case <-t.ready:
		return true
	default:
		return false
	}
}

// Leading tells whether a term is under way on this replica.
func (r *Reconciler) Leading() bool { return r.current.Load() != nil }

// Await waits until every shard was found to be as a state not older than index
// says, at high priority. It fails with Timeout when ctx ends, with Internal when
// a try for one of the shards failed, and with Unavailable when the term ends.
func (r *Reconciler) Await(ctx context.Context, index uint64, shards ...neon.ShardID) error {
	t := r.current.Load()
	if t == nil {
		return errNoTerm
	}
	waits := make([]*waiter, len(shards))
	for i, id := range shards {
		waits[i] = t.wait.add(id, index)
		defer t.wait.remove(id, waits[i])
	}
	t.queue.wake(High, shards...)
	for i, w := range waits {
		select {
		case err := <-w.done:
			if err != nil {
				return err
			}
		case <-t.ctx.Done():
			return neon.Errorf(neon.Unavailable, "leadership ended while waiting for shard %s",
				shards[i])
		case <-ctx.Done():
			return neon.Errorf(neon.Timeout, "Timeout waiting for shard %s", shards[i])
		}
	}
	return nil
}

// Kick makes the shards be looked at soon.
func (r *Reconciler) Kick(p Priority, shards ...neon.ShardID) {
	if t := r.current.Load(); t != nil {
		t.queue.wake(p, shards...)
	}
}

// ShardStatus is what the leader can say of a shard beyond its record.
type ShardStatus struct {
	Reconciling   bool
	LastError     string
	Failures      int // in a row
	PendingNotify bool
	Observed      map[neon.NodeID]*neon.LocationConfig // nil: unknown
}

// Status describes a shard; it is empty on a replica that does not lead.
func (r *Reconciler) Status(id neon.ShardID) (s ShardStatus) {
	t := r.current.Load()
	if t == nil {
		return s
	}
	s.Reconciling, s.Failures, s.LastError = t.queue.lookup(id)
	st := t.Log.State()
	if sh, ok := st.Shard(id); ok {
		s.PendingNotify = t.Hook != nil && sh.OwesNotification()
		if s.Observed = t.seen.observed(&sh); sh.Unmanaged {
			tenant, _ := st.Tenant(id.Tenant)
			s.Observed = assumed(&plan.Scene{Tenant: tenant, Shard: sh})
		}
	}
	return s
}

// SeenOn lists the shards that were seen on a node, or may be there.
func (r *Reconciler) SeenOn(n neon.NodeID) []neon.ShardID {
	if t := r.current.Load(); t != nil {
		return t.seen.anyOn(n)
	}
	return nil
}

// Loads are the last utilisations, for placing.
func (r *Reconciler) Loads() map[neon.NodeID]scheduler.Load {
	if t := r.current.Load(); t != nil {
		return t.loads()
	}
	return nil
}

// Utilization is what the last heartbeat of a node said.
func (r *Reconciler) Utilization(id neon.NodeID) (neon.Utilization, bool) {
	if t := r.current.Load(); t != nil {
		if u := t.nodes.utilizations()[id]; u != nil {
			return *u, true
		}
	}
	return neon.Utilization{}, false
}

// Pending is how many shards wait for their turn, and how many have failed at
// least ten times in a row.
func (r *Reconciler) Pending() (waiting, stuck int) {
	if t := r.current.Load(); t != nil {
		waiting = t.queue.waiting()
		stuck = t.queue.stuck(stuckAfter)
	}
	return waiting, stuck
}

// ReconcileAll looks at every shard and returns how many were not as they should
// be or could be better placed, and how many operations and splits run; 0 means that nothing
// is left to do. It waits for the work it found for as long as ctx allows, but not
// for destinations to become warm. A shard whose work keeps failing meanwhile is
// an error that names it.
func (r *Reconciler) ReconcileAll(ctx context.Context) (int, error) {
	t := r.current.Load()
	if t == nil {
		return 0, errNoTerm
	}
	mark := t.report.mark()
	t.evacuate()
	t.repair()
	// A shard that is only looked at, as after every change, is not work.
	found := max(t.orders(), t.hook.flush(ctx), t.wakeDirty())
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		orders := t.orders()
		size := t.queue.size() + orders
		found = max(found, t.queue.laborious()+orders)
		_, waits := t.queue.load()
		if size <= waits {
			better := t.better.pass(t.Log.State().ShardCount() + 1)
			if better == 0 && t.hook.settled() {
				return max(found, t.hook.owed()), t.failedSince(mark, 1)
			}
			found = max(found, better)
		}
		if err := t.failedSince(mark, patience); err != nil {
			return found, err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return max(found, size), t.failedSince(mark, 1)
		}
	}
}

// failedSince is the error for those who wait for everything to be in order.
func (t *term) failedSince(mark uint64, times int) error {
	if id, err := t.report.failedSince(mark, times); err != nil {
		return reconcileError(id, err)
	}
	return nil
}

// orders is how many operations on nodes and splits are being worked on.
func (t *term) orders() int {
	st := t.Log.State()
	return operating(st) + unsettled(st)
}

// wakeDirty makes every shard that is not as it should be be looked at.
func (t *term) wakeDirty() (dirty int) {
	st := t.Log.State()
	for sh := range st.ShardsFrom(neon.ShardID{}) {
		sc, ok := t.scene(st, &task{id: sh.ID})
		if !ok {
			continue
		}
		if step := plan.Next(sc); step.Kind != plan.Done && step.Kind != plan.Blocked {
			dirty++
			t.queue.wake(Normal, sh.ID)
		}
	}
	return dirty
}

// unsettled counts the splits that somebody has to go on with.
func unsettled(st *fsm.State) (n int) {
	for sp := range st.Splits() {
		there := slices.ContainsFunc(sp.Leftovers, func(l fsm.Leftover) bool {
			node, ok := st.Node(l.Node)
			return ok && node.Available()
		})
		if sp.Active() || there {
			n++
		}
	}
	return n
}

// Quiet waits until no worker is in the middle of a call for any of the shards. It
// is of use only once the state keeps workers from beginning another one.
func (r *Reconciler) Quiet(ctx context.Context, shards ...neon.ShardID) error {
	t := r.current.Load()
	if t == nil {
		return errNoTerm
	}
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for slices.ContainsFunc(shards, t.queue.working) {
		select {
		case <-poll.C:
		case <-t.ctx.Done():
			return errNoTerm
		case <-ctx.Done():
			return neon.Errorf(neon.Timeout, "Timeout waiting for the workers of %s", shards[0])
		}
	}
	return nil
}

// ReAttached must be called after a re-attach was committed and before it is
// answered: whatever was known of the node was of another process.
func (r *Reconciler) ReAttached(n neon.NodeID) {
	if t := r.current.Load(); t != nil {
		t.seen.forgetNode(n)
	}
}

// ActivateNode carries out an operator's order to use a node: it is listed, what
// nobody knows there is detached, and the verdict is committed.
func (r *Reconciler) ActivateNode(ctx context.Context, n neon.NodeID) error {
	t := r.current.Load()
	if t == nil {
		return errNoTerm
	}
	node, ok := t.Log.State().Node(n)
	if !ok || node.Tombstone {
		return neon.Errorf(neon.NotFound, "Node %d not registered", n)
	}
	return t.nodes.activate(ctx, &node)
}
