package reconciler

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/reconciler/plan"
)

// term is everything one leader remembers. It is made when the term begins and
// thrown away with it; nothing of it is carried into the next.
type term struct {
	Deps
	ctx    context.Context
	seen   *seen
	queue  *queue
	hook   *outbox
	nodes  *nodeWatch
	wait   *waiters
	better *optimiser
	report *report

	mu        sync.Mutex
	touched   fsm.Touched
	wakeup    chan struct{}
	unplaced  map[neon.ShardID]struct{} // shards whose intent lacks what their policy wants
	ready     chan struct{}
	long      map[*alarm]struct{} // reconciles that take long
	patiences map[neon.ShardID]Patience
}

func newTerm(ctx context.Context, d Deps) *term {
	t := &term{
		Deps: d, ctx: ctx, seen: newSeen(), wait: newWaiters(), report: newReport(),
		wakeup:    make(chan struct{}, 1),
		unplaced:  make(map[neon.ShardID]struct{}),
		ready:     make(chan struct{}),
		long:      make(map[*alarm]struct{}),
		patiences: make(map[neon.ShardID]Patience),
	}
	t.queue = newQueue(d.Options, t.work)
	t.hook = newOutbox(t)
	t.nodes = newNodeWatch(t)
	t.better = &optimiser{term: t}
	return t
}

// run works until the term's context ends and joins all it started.
func (t *term) run(retell bool) {
	t.nodes.changed()
	var wg sync.WaitGroup
	wg.Go(t.feed)
	wg.Go(t.nodes.run)
	wg.Go(t.rules)
	wg.Go(t.operate)
	wg.Go(t.better.run)
	wg.Go(t.chaos)
	if retell {
		wg.Go(t.hook.retell)
	}
	t.survey()
	wg.Go(func() {
		t.nodes.firstRound()
		close(t.ready)
		t.queue.wake(Normal, t.seen.cuttingOver()...)
	})
	<-t.ctx.Done()
	wg.Wait()
	t.queue.close()
	t.hook.close()
	t.calmAll()
	t.wait.fail(neon.Errorf(neon.Unavailable, "leadership ended: %w", context.Cause(t.ctx)))
}

// survey looks once over all shards at the beginning of a term. Those whose
// newest generation was issued to somebody else than the intended node have work
// to do whatever the nodes' listings will say; the others wait for the listings.
func (t *term) survey() {
	st := t.Log.State()
	t.Logger.Info("Populating tenant shards' states from initial pageserver scan...",
		"shards", st.ShardCount())
	for sh := range st.ShardsFrom(neon.ShardID{}) {
		t.place(st, &sh)
		if sh.Attached != 0 && sh.GenNode != sh.Attached {
			t.queue.wake(Normal, sh.ID)
		}
	}
}

// place keeps the set of shards whose intent lacks what the policy wants.
func (t *term) place(st *fsm.State, sh *fsm.Shard) {
	tenant, ok := st.Tenant(sh.ID.Tenant)
	lacks := ok && !sh.Unmanaged && (tenant.Policy.Kind == neon.PlaceAttached && sh.Attached == 0 ||
		len(sh.Secondary) != tenant.Policy.WantedSecondaries())
	t.mu.Lock()
	defer t.mu.Unlock()
	if lacks {
		t.unplaced[sh.ID] = struct{}{}
	} else {
		delete(t.unplaced, sh.ID)
	}
}

// changed is called on the applying goroutine after each batch: it only notes
// what to look at.
func (t *term) changed(c fsm.Touched) {
	t.seen.grant(c.Grants)
	t.seen.forget(c.UnknownLocations)
	t.mu.Lock()
	t.touched.Shards = append(t.touched.Shards, c.Shards...)
	t.touched.Tenants = append(t.touched.Tenants, c.Tenants...)
	t.touched.Nodes = append(t.touched.Nodes, c.Nodes...)
	t.mu.Unlock()
	select {
	case t.wakeup <- struct{}{}:
	default:
	}
}

// feed turns changes of the state into wake-ups.
func (t *term) feed() {
	for {
		select {
		case <-t.ctx.Done():
			return
		case <-t.wakeup:
		}
		t.mu.Lock()
		c := t.touched
		t.touched = fsm.Touched{}
		t.mu.Unlock()
		st := t.Log.State()
		for _, id := range c.Shards {
			sh, ok := st.Shard(id)
			if !ok {
				t.replaced(st, id)
				t.forget(id)
				continue
			}
			t.place(st, &sh)
			t.queue.touched(id, sh.Sequence)
		}
		for _, id := range c.Tenants {
			if tenant, ok := st.Tenant(id); ok {
				for _, shard := range tenant.Shards() {
					t.queue.touched(shard, tenant.Sequence)
				}
			}
		}
		if len(c.Nodes) > 0 {
			t.nodes.changed()
		} else if t.released(st, c.Tenants) {
			t.nodes.poke()
		}
	}
}

// released tells whether a tenant that was changed has shards without a place: what
// kept them from getting one may be over.
func (t *term) released(st *fsm.State, tenants []neon.TenantID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.unplaced) == 0 {
		return false
	}
	return slices.ContainsFunc(tenants, func(id neon.TenantID) bool {
		tenant, ok := st.Tenant(id)
		return ok && !st.Splitting(id) &&
			slices.ContainsFunc(tenant.Shards(), func(shard neon.ShardID) bool {
				_, lacks := t.unplaced[shard]
				return lacks
			})
	})
}

// replaced counts the removal of the secondaries of a shard that was split, as those
// expect it who count reconciles.
func (t *term) replaced(st *fsm.State, id neon.ShardID) {
	if sp, ok := st.Split(id.Tenant); ok && sp.Phase == fsm.SplitDone {
		places := 0
		for _, l := range sp.Leftovers {
			if l.Shard == id {
				places++
			}
		}
		if places > 1 { // one was attached
			t.Metrics.Spawned()
			t.Metrics.Completed("ok")
		}
	}
}

func (t *term) forget(id neon.ShardID) {
	t.seen.forgetShard(id)
	t.report.forget(id)
	t.mu.Lock()
	delete(t.unplaced, id)
	t.mu.Unlock()
	t.queue.wake(Normal, id) // lets those who wait for it know
}

// rules applies, again and again, what holds at every moment and not only when
// something changes: no shard stays on an offline node while another can take it,
// and none stays without a place.
func (t *term) rules() {
	tick := time.NewTicker(t.Options.RepairInterval)
	defer tick.Stop()
	for {
		t.evacuate()
		t.repair()
		t.rehome()
		select {
		case <-t.ctx.Done():
			return
		case <-t.nodes.moved:
		case <-tick.C:
		}
	}
}

// work is one worker's turn with one shard: step after step, until there is
// nothing to do, or nothing that can be done now.
func (t *term) work(k *task) {
	if k.step != nil {
		t.longStep(k)
		return
	}
	k.acted = t.report.taken(k.id) || k.acted
	notified := false
	for {
		if t.ctx.Err() != nil {
			t.completed(k, "cancel")
			t.queue.finish(k)
			return
		}
		if t.queue.isCancelled(k) {
			t.cancelled(k)
			return
		}
		st := t.Log.State()
		sc, ok := t.scene(st, k)
		if !ok {
			t.calm(k)
			t.wait.done(k.id, st.Index)
			t.queue.finish(k)
			return
		}
		step := plan.Next(sc)
		t.begun(k, sc, step)
		if t.hold(k, sc, step) {
			continue
		}
		if t.ended(k, st, sc, step) {
			return
		}
		if step.Kind == plan.Warm || step.Kind == plan.CatchUp {
			if step.Node != sc.Shard.Attached {
				t.completed(k, "ok") // see Move
			}
			t.queue.long(k, step)
			return
		}
		if step.Kind == plan.Notify {
			switch {
			case notified && k.late != nil:
				t.failed(k, sc, k.late.step, k.late.err)
				return
			case notified:
				t.calm(k)
				if k.acted {
					k.acted = false
					t.report.notifying(k.id)
				}
				t.queue.finish(k) // the acknowledgement will wake it
				return
			}
			notified = true
			t.hook.submit(k.id.Tenant, t.queue.urgent(k))
			continue
		}
		t.gaveUp(sc, step)
		if !t.step(k, sc, step) {
			return
		}
		if step.Kind == plan.Move {
			// Those who count reconciles know a move that takes its time as three: the
			// destination is made, chosen once it is warm, and taken.
			t.completed(k, "ok")
		}
	}
}

// completed counts the end of a reconcile that did something.
func (t *term) completed(k *task, status string) {
	t.calm(k)
	if k.acted {
		k.acted = false
		t.Metrics.Completed(status)
	}
}

// inOrder counts the end of a reconcile that left nothing to do.
func (t *term) inOrder(k *task, st *fsm.State) {
	away := func(id neon.NodeID) bool { n, ok := st.Node(id); return ok && !n.Available() }
	tenant, _ := st.Tenant(k.id.Tenant)
	if t.report.inOrder(k.id, away) && !k.acted && tenant.Scheduling != neon.ShardStop {
		k.acted = true
		t.Metrics.Spawned()
	}
	t.completed(k, "ok")
}

// ended finishes a pass whose next step is none.
func (t *term) ended(k *task, st *fsm.State, sc *plan.Scene, step plan.Step) bool {
	if k.late != nil && (step.Kind == plan.Done || step.Kind == plan.Blocked) {
		t.failed(k, sc, k.late.step, k.late.err)
		return true
	}
	switch step.Kind {
	case plan.Done:
		t.queue.note(k, clean, "")
		t.arrived(k.id)
		t.inOrder(k, st)
		t.wait.done(k.id, st.Index)
		t.queue.finish(k)
	case plan.Blocked:
		if k.lastErr != step.Why {
			t.queue.note(k, blocked, step.Why)
			t.Logger.Info("shard waits", "shard", k.id, "why", step.Why)
		}
		// Whatever could unblock it wakes it; the retry is for what could not be
		// foreseen.
		t.queue.retry(k, t.Options.RetryMax)
	default:
		return false
	}
	return true
}

// scene gathers what Next decides from.
func (t *term) scene(st *fsm.State, k *task) (*plan.Scene, bool) {
	sh, ok := st.Shard(k.id)
	tenant, ok2 := st.Tenant(k.id.Tenant)
	if !ok || !ok2 {
		return nil, false
	}
	k.basis = max(sh.Sequence, tenant.Sequence)
	sc := &plan.Scene{
		Tenant: tenant, Shard: sh, Notifies: t.Hook != nil, Frozen: st.Splitting(tenant.ID),
		AllListed: !tenant.Deleting || t.nodes.allListed(st),
	}
	select {
	case <-t.ready:
	default:
		sc.Surveying = true
	}
	sc.Failed, sc.Hopeless = k.skipped, k.hopeless(t.Options.MaxOffline)
	sc.Node = func(id neon.NodeID) *fsm.Node {
		n, ok := st.Node(id)
		if !ok || n.Tombstone {
			return nil
		}
		return &n
	}
	t.seen.scene(sc, func(id neon.NodeID, incarnation uint64) bool {
		n, ok := st.Node(id)
		return ok && n.Incarnation == incarnation
	})
	return sc, true
}

// step executes one short step; false means that the task was given away. After an
// optional one that failed the pass goes on, and the failure is told at its end.
func (t *term) step(k *task, sc *plan.Scene, step plan.Step) bool {
	err := t.execute(k, sc, step)
	switch {
	case err == nil:
		return true
	case errors.Is(err, errDeferred):
		return false
	case t.queue.isCancelled(k):
		return true // which is the first thing that is looked at
	case t.ctx.Err() != nil:
		t.completed(k, "cancel")
		t.queue.finish(k)
		return false
	}
	if step.Node != 0 && step.Node != sc.Shard.Attached {
		k.blame(step.Node)
	}
	if step.Optional {
		k.skipped = append(k.skipped, step.Node)
		if k.late == nil {
			k.late = &failure{step, err}
		}
		return true
	}
	t.failed(k, sc, step, err)
	return false
}

// failed records a failure, tells those who wait, and backs off.
func (t *term) failed(k *task, sc *plan.Scene, step plan.Step, err error) {
	failures := t.queue.note(k, failed, err.Error())
	t.completed(k, "error")
	if failures%stuckAfter == 0 {
		t.stuck(k.id, failures)
	}
	t.Logger.Info("reconcile error", "shard", k.id, "step", step.Kind.String(), "node", step.Node,
		"failures", failures, "err", err)
	t.report.failed(k.id, err)
	t.wait.failed(k.id, reconcileError(k.id, err))
	after := t.Options.RetryMin << min(failures-1, 16)
	t.queue.retry(k, min(after, t.Options.RetryMax))
}

// reconcileError is how clients know a failure.
func reconcileError(id neon.ShardID, err error) error {
	return neon.Errorf(neon.Internal, "Reconcile error on shard %s: %w", id, err)
}
