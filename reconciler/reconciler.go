package reconciler

import (
	"context"
	"sync/atomic"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/wait"
	"quorate/reconciler/plan"
	"quorate/reconciler/queue"
	"quorate/scheduler"
)

// Reconciler runs one term after another. Between terms it knows nothing.
type Reconciler struct {
	deps    Deps
	current atomic.Pointer[term]
	changed wait.Broadcast // current has changed
	began   bool           // a term was run before; of the goroutine that runs them
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
	r.enter(t)
	defer r.enter(nil)
	t.run(!r.began && d.Hook != nil && d.Retell != nil && d.Retell())
	r.began = true
	if d.Ended != nil {
		d.Ended(r)
	}
	return context.Cause(ctx)
}

func (r *Reconciler) enter(t *term) {
	r.current.Store(t)
	r.changed.Notify()
}

// TermChanged returns a channel that is closed when a term begins or ends.
func (r *Reconciler) TermChanged() <-chan struct{} { return r.changed.Changed() }

// AwaitTerm waits until a term is under way on this replica. The error is that of ctx.
func (r *Reconciler) AwaitTerm(ctx context.Context) error {
	for {
		changed := r.TermChanged()
		if r.Leading() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Changed is to be called after each batch of applied entries, on the applying
// goroutine; it returns at once.
func (r *Reconciler) Changed(st *fsm.State, c fsm.Touched) {
	if t := r.current.Load(); t != nil {
		t.feed.note(st, c)
	}
}

// Ready reports whether this replica leads and has looked at every node once.
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

// Leading reports whether a term is under way on this replica.
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
	t.queue.Wake(queue.High, shards...)
	for i, w := range waits {
		if err := t.awaitOne(ctx, shards[i], w); err != nil {
			return err
		}
	}
	return nil
}

// awaitOne waits for the end of one wait.
func (t *term) awaitOne(ctx context.Context, id neon.ShardID, w *waiter) error {
	select {
	case err := <-w.done:
		return err
	case <-t.ctx.Done():
		return neon.Errorf(neon.Unavailable, "leadership ended while waiting for shard %s", id)
	case <-ctx.Done():
		return neon.Errorf(neon.Timeout, "Timeout waiting for shard %s", id)
	}
}

// Kick makes the shards be looked at soon, at high priority.
func (r *Reconciler) Kick(shards ...neon.ShardID) {
	if t := r.current.Load(); t != nil {
		t.queue.Wake(queue.High, shards...)
	}
}

// Status describes a shard; it is empty on a replica that does not lead.
func (r *Reconciler) Status(id neon.ShardID) (s decide.ShardStatus) {
	t := r.current.Load()
	if t == nil {
		return s
	}
	q := t.queue.Status(id)
	s.Reconciling, s.Failures, s.LastError = q.Active, q.Failures, q.LastError
	st := t.log.State()
	if sh, ok := st.Shard(id); ok {
		s.PendingNotify = r.deps.Hook != nil && sh.OwesNotification()
		if s.Observed = t.seen.Wire(&sh); sh.Unmanaged {
			tenant, _ := st.Tenant(id.Tenant)
			s.Observed = unmanagedLocations(&plan.Scene{Tenant: tenant, Shard: sh})
		}
	}
	return s
}

// Work is the Status of a shard as it is in some state, without what was observed.
func (r *Reconciler) Work(sh fsm.Shard) (s decide.ShardStatus) {
	if t := r.current.Load(); t != nil {
		q := t.queue.Status(sh.ID)
		s.Reconciling, s.Failures, s.LastError = q.Active, q.Failures, q.LastError
		s.PendingNotify = r.deps.Hook != nil && sh.OwesNotification()
	}
	return s
}

// Operation describes the operation on a node; it is empty on a replica that does not
// lead.
func (r *Reconciler) Operation(n neon.NodeID) (s decide.OperationStatus) {
	if t := r.current.Load(); t != nil {
		s = t.operations.of(n)
	}
	return s
}

// unmanagedLocations is what is shown of a shard that others attach: that they do
// what they said, whatever pageservers list meanwhile.
func unmanagedLocations(s *plan.Scene) map[neon.NodeID]*neon.LocationConfig {
	out := make(map[neon.NodeID]*neon.LocationConfig)
	if n := s.Shard.Attached; n != 0 {
		out[n] = s.AttachedConf(neon.AttachedSingle).LocationConfig(s.Shard.ID)
	}
	return out
}

// SeenOn lists the shards that were seen on a node, or may be there.
func (r *Reconciler) SeenOn(n neon.NodeID) []neon.ShardID {
	if t := r.current.Load(); t != nil {
		return t.seen.AnyOn(n)
	}
	return nil
}

// Loads are the last utilisations, for placing. At the beginning of a term it waits a
// moment for the first answers of the nodes.
func (r *Reconciler) Loads() map[neon.NodeID]scheduler.Load {
	if t := r.current.Load(); t != nil {
		t.nodes.awaitFirstAnswers()
		return t.nodes.loads()
	}
	return nil
}

// Silent lists the nodes that do not answer at present, though they are not judged for
// it.
func (r *Reconciler) Silent() []neon.NodeID {
	if t := r.current.Load(); t != nil {
		return t.nodes.silent()
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
		load := t.queue.Load()
		waiting, stuck = load.Queued, load.Stuck
	}
	return waiting, stuck
}

// Quiet waits until no worker is in the middle of a call for any of the shards. It
// is of use only once the state keeps workers from beginning another one.
func (r *Reconciler) AwaitNoWorker(ctx context.Context, shards ...neon.ShardID) error {
	t := r.current.Load()
	if t == nil {
		return errNoTerm
	}
	both, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(t.ctx, cancel)
	defer stop()
	switch err := t.queue.AwaitNoWorker(both, shards...); {
	case err == nil:
		return nil
	case ctx.Err() == nil:
		return errNoTerm
	}
	return neon.Errorf(neon.Timeout, "Timeout waiting for the workers of %s", shards[0])
}

// Detach removes a location of a shard that no tenant has any more, or has yet. What is
// believed of the location follows from the call, as it does for the workers' own.
func (r *Reconciler) Detach(ctx context.Context, node *fsm.Node, id neon.ShardID) error {
	t := r.current.Load()
	if t == nil {
		return errNoTerm
	}
	return t.calls.detach(ctx, node, id)
}

// Cancel ends what a worker is doing about a shard and waits for that end. Its
// error is Internal when the work was cut short, since the shard is then not as it
// should be, and Timeout when it does not end. Nil means that nothing was going on,
// or that it has ended well. The shard is taken up again after a while.
func (r *Reconciler) Cancel(ctx context.Context, id neon.ShardID) error {
	t := r.current.Load()
	if t == nil {
		return errNoTerm
	}
	w := t.wait.add(id, 0)
	defer t.wait.remove(id, w)
	if !t.queue.Cancel(id) {
		t.logger.Info("Shard does not have an ongoing Reconciler", "shard", id)
		return nil
	}
	t.logger.Info("Cancelling Reconciler", "shard", id)
	return t.awaitOne(ctx, id, w)
}

// LimitWarming is for the move of a shard that is about to be asked for. It sets how
// long the move waits for its destination to be warm, in all and for each request; nil is
// the usual time. With a total of zero there is one request. It holds until the shard is
// where it should be, or this replica leads no more.
func (r *Reconciler) LimitWarming(id neon.ShardID, total, request *time.Duration) {
	if t := r.current.Load(); t != nil {
		t.limits.set(id, moveLimits{total, request})
	}
}

// ReAttached must be called after a re-attach was committed and before it is
// answered: whatever was known of the node was of another process.
func (r *Reconciler) ReAttached(n neon.NodeID) {
	if t := r.current.Load(); t != nil {
		t.seen.ForgetNode(n)
	}
}

// ReAttachedEmpty is ReAttached for a node that has lost its disk. What was observed of
// the locations on it is cleared. They are configured again once the node is listed.
func (r *Reconciler) ReAttachedEmpty(n neon.NodeID) {
	if t := r.current.Load(); t != nil {
		t.seen.ClearNode(n)
	}
}

// ActivateNode carries out an operator's order to use a node. It lists the node,
// detaches unknown shards there and commits the verdict.
func (r *Reconciler) ActivateNode(ctx context.Context, n neon.NodeID) error {
	t := r.current.Load()
	if t == nil {
		return errNoTerm
	}
	node, ok := t.log.State().Node(n)
	if !ok || node.Tombstone {
		return neon.Errorf(neon.NotFound, "Node %d not registered", n)
	}
	return t.nodes.activate(ctx, &node)
}
