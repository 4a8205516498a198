package reconciler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/failpoint"
	"quorate/reconciler/observed"
	"quorate/reconciler/outbox"
	"quorate/reconciler/plan"
	"quorate/reconciler/queue"
)

// worker works on shards that the queue hands out, step after step, until there is
// nothing to do, or nothing that can be done now. It has no state: what is to be
// remembered of a shard is in its task.
type worker struct {
	ctx        context.Context
	opts       Options
	log        decide.Log
	failpoints failpoint.Points
	metrics    Metrics
	logger     *slog.Logger

	queue  *shardQueue
	scenes *scenes
	seen   *observed.Locations
	strays *strays
	calls  *calls
	mover  *mover
	outbox submitter
	wait   *waiters
	report *report
	alarms *alarms
	limits *warmLimits

	ended func(neon.ShardID) // hears of every shard that is as its record says
}

// submitter delivers what compute is owed.
type submitter interface {
	Submit(id neon.TenantID, urgency outbox.Urgency)
}

// pass is one pass over a shard.
type pass struct {
	notified bool // its notification was submitted
}

// turn is a worker's turn with one shard.
func (w *worker) turn(k *task) {
	m := &k.Memory
	if m.step != nil {
		w.longStep(k)
		return
	}
	m.beginTurn(decided(w.log.State(), k.ID))
	m.acted = w.report.taken(k.ID) || m.acted
	p := &pass{}
	for w.advance(k, p) {
	}
}

// advance makes one step. False means that the worker does not have the task any
// more.
func (w *worker) advance(k *task, p *pass) (more bool) {
	switch {
	case w.ctx.Err() != nil:
		w.endWithTerm(k)
		return false
	case w.queue.IsCancelled(k):
		w.cancelled(k)
		return false
	}
	st := w.log.State()
	sc, ok := w.scene(st, k)
	if !ok {
		return w.gone(k, st)
	}
	step := plan.Next(sc)
	w.begun(k, sc, step)
	if w.hold(k, sc, step) {
		return true
	}
	switch step.Kind {
	case plan.Done, plan.Blocked:
		w.end(k, st, sc, step)
		return false
	case plan.Warm, plan.CatchUp:
		w.handOver(k, sc, step)
		return false
	case plan.Notify:
		return w.notify(k, sc, p)
	}
	return w.shortStep(k, sc, step)
}

// scene is what the planner decides from, with what failed in this pass.
func (w *worker) scene(st *fsm.State, k *task) (*plan.Scene, bool) {
	sc, ok := w.scenes.of(st, k.ID)
	if !ok {
		return nil, false
	}
	m := &k.Memory
	m.basis = decided(st, k.ID)
	sc.Failed, sc.Hopeless = slices.Clone(m.skipped), m.hopeless(w.opts.MaxOffline)
	return sc, true
}

// decided is the index of the newest entry that decided something about a shard; 0 if the
// shard does not exist.
func decided(st *fsm.State, id neon.ShardID) uint64 {
	sh, _ := st.Shard(id)
	tenant, _ := st.Tenant(id.Tenant)
	return max(sh.Sequence, tenant.Sequence)
}

// begun counts the beginning of a reconcile, unless it has begun before: the first
// step that does something. The time that it takes counts anew once compute was
// told, which may have taken any time. To warm a destination while the shard is
// served elsewhere may take its time.
func (w *worker) begun(k *task, sc *plan.Scene, step plan.Step) {
	switch step.Kind {
	case plan.Done, plan.Blocked, plan.Notify:
		return
	case plan.Warm:
		if step.Node != sc.Shard.Attached {
			return
		}
	}
	if !k.Memory.acted {
		k.Memory.acted = true
		w.metrics.Spawned()
	}
	if k.Memory.alarm == nil {
		k.Memory.alarm = w.alarms.set(k.ID, sc.Shard.Sequence)
	}
}

// completed counts the end of a reconcile that did something.
func (w *worker) completed(k *task, status string) {
	w.endAlarm(k)
	if k.Memory.acted {
		k.Memory.acted = false
		w.metrics.Completed(status)
	}
}

// endAlarm ends the alarm of a reconcile.
func (w *worker) endAlarm(k *task) {
	w.alarms.end(k.Memory.alarm)
	k.Memory.alarm = nil
}

// endWithTerm ends a pass because the term has ended.
func (w *worker) endWithTerm(k *task) {
	w.completed(k, "cancel")
	w.queue.Finish(k)
}

// gone ends the work on a shard that does not exist any more, but for detaching it
// where a listing has found it.
func (w *worker) gone(k *task, st *fsm.State) (more bool) {
	w.endAlarm(k)
	w.wait.done(k.ID, st.Index)
	if w.strays.working(k.ID) {
		return w.clear(k, st)
	}
	w.queue.Finish(k)
	return false
}

// clear makes one step towards having a shard nowhere. The state that says that no
// tenant knows it is read anew before each call: a leader that does not know yet that
// it was deposed must not detach what its successor has attached.
func (w *worker) clear(k *task, st *fsm.State) (more bool) {
	m := &k.Memory
	sc := w.scenes.ofStray(st, k.ID)
	sc.Failed = slices.Clone(m.skipped)
	step := plan.Clear(sc)
	if step.Kind == plan.Done {
		w.endClear(k, sc)
		return false
	}
	ctx, cancel := context.WithTimeout(w.ctx, w.opts.LookTimeout)
	now, err := w.log.ReadState(ctx)
	cancel()
	if err == nil && !unknown(now, k.ID) {
		w.strays.gone(k.ID)
		return true
	}
	switch {
	case err != nil:
	case slices.Contains(m.cleared, step.Node):
		err = errors.New("another call changes the location at the same time")
	default:
		w.logger.Info("detaching unknown shard", "shard", k.ID, "node", step.Node)
		if err = w.calls.put(k, sc, step); err == nil {
			m.cleared = append(m.cleared, step.Node)
		}
	}
	if errors.Is(err, errParked) {
		return false
	}
	if err != nil {
		m.skipped = append(m.skipped, step.Node)
		m.late = &failure{step, err}
	}
	return true
}

// endClear ends a pass over a stray. Nobody waits for one that is left.
func (w *worker) endClear(k *task, sc *plan.Scene) {
	why := ""
	if late := k.Memory.late; late != nil {
		why = late.err.Error()
	} else if n := sc.Left(); n != 0 {
		why = fmt.Sprintf("node %d is not available", n)
	}
	if why == "" {
		w.seen.ForgetShard(k.ID)
		w.strays.gone(k.ID)
	} else {
		failures := w.strays.failed(k.ID, why, w.opts.RetryMin)
		w.logger.Info("unknown shard stays", "shard", k.ID, "failures", failures, "why", why)
	}
	w.queue.Finish(k)
}

// end finishes a pass whose next step is none.
func (w *worker) end(k *task, st *fsm.State, sc *plan.Scene, step plan.Step) {
	if late := k.Memory.late; late != nil {
		w.failed(k, sc, late.step, late.err)
		return
	}
	if step.Kind == plan.Done {
		w.queue.Note(k, queue.Clean, "")
		w.limits.forget(k.ID)
		w.inOrder(k, st)
		w.wait.done(k.ID, st.Index)
		w.queue.Finish(k)
		w.ended(k.ID)
		return
	}
	if w.queue.LastError(k) != step.Why {
		w.queue.Note(k, queue.Blocked, step.Why)
		w.logger.Info("shard waits", "shard", k.ID, "why", step.Why)
	}
	// Whatever could unblock it wakes it; the retry is for what could not be
	// foreseen.
	w.queue.Retry(k, k.Memory.basis, w.opts.RetryMax)
}

// inOrder counts the end of a reconcile that left nothing to do.
func (w *worker) inOrder(k *task, st *fsm.State) {
	away := func(id neon.NodeID) bool { n, ok := st.Node(id); return ok && !n.Available() }
	tenant, _ := st.Tenant(k.ID.Tenant)
	if w.report.inOrder(k.ID, away) && !k.Memory.acted && tenant.Scheduling != neon.ShardStop {
		k.Memory.acted = true
		w.metrics.Spawned()
	}
	w.completed(k, "ok")
}

// handOver gives a task to the pool of long steps.
func (w *worker) handOver(k *task, sc *plan.Scene, step plan.Step) {
	if step.Node != sc.Shard.Attached {
		w.completed(k, "ok") // see shortStep
	}
	k.Memory.step = &step
	w.queue.Long(k)
}

// notify submits the notification, and ends the pass if that was done before: the
// acknowledgement will wake the shard.
func (w *worker) notify(k *task, sc *plan.Scene, p *pass) (more bool) {
	m := &k.Memory
	switch {
	case !p.notified:
		p.notified = true
		urgency := outbox.Usual
		if w.queue.Urgent(k) {
			urgency = outbox.Urgent
		}
		w.outbox.Submit(k.ID.Tenant, urgency)
		return true
	case m.late != nil:
		w.failed(k, sc, m.late.step, m.late.err)
		return false
	}
	w.endAlarm(k)
	if m.acted {
		m.acted = false
		w.report.notifying(k.ID)
	}
	w.queue.Finish(k)
	return false
}

// shortStep executes one short step. After an optional one that failed the pass goes
// on, and the failure is told at its end.
func (w *worker) shortStep(k *task, sc *plan.Scene, step plan.Step) (more bool) {
	logIfNotNotified(w.logger, sc, step)
	err := k.Memory.mayPropose(step.Kind)
	if err == nil {
		err = w.calls.execute(k, sc, step)
	}
	var silent *silentError
	switch {
	case errors.Is(err, errParked):
		return false
	case errors.Is(err, errListing):
		w.endAlarm(k)
		w.queue.Finish(k)
		return false
	case errors.As(err, &silent):
		// Whoever waits is not kept until the verdict. A leader that has called the node
		// before would have been refused.
		w.endAlarm(k)
		w.wait.failed(k.ID, reconcileError(k.ID, err))
		w.queue.Finish(k)
		return false
	case err != nil && w.queue.IsCancelled(k):
		return true // which is the first thing that is looked at
	case err != nil && w.ctx.Err() != nil:
		w.endWithTerm(k)
		return false
	case err != nil:
		return w.stepFailed(k, sc, step, err)
	}
	if step.Kind == plan.Move {
		// Those who count reconciles know a move that takes its time as three: the
		// destination is made, chosen once it is warm, and taken.
		w.completed(k, "ok")
	}
	return true
}

func (w *worker) stepFailed(k *task, sc *plan.Scene, step plan.Step, err error) (more bool) {
	m := &k.Memory
	if step.Node != 0 && step.Node != sc.Shard.Attached {
		m.blame(step.Node)
	}
	if step.Optional {
		m.skipped = append(m.skipped, step.Node)
		if m.late == nil {
			m.late = &failure{step, err}
		}
		return true
	}
	w.failed(k, sc, step, err)
	return false
}

// failed records a failure, tells those who wait, and backs off.
func (w *worker) failed(k *task, sc *plan.Scene, step plan.Step, err error) {
	failures := w.queue.Note(k, queue.Failed, err.Error())
	w.completed(k, "error")
	if failures%queue.StuckAfter == 0 {
		warnStuck(w.logger, k.ID, failures)
	}
	w.logger.Info("reconcile error", "shard", k.ID, "step", step.Kind.String(), "node", step.Node,
		"failures", failures, "err", err)
	w.report.failed(k.ID, err)
	w.wait.failed(k.ID, reconcileError(k.ID, err))
	after := w.opts.RetryMin << min(failures-1, 16)
	w.queue.Retry(k, k.Memory.basis, min(after, w.opts.RetryMax))
}

// cancelled ends a pass that an operator does not want. It is not repeated at once:
// what was in the way has some time to go away.
func (w *worker) cancelled(k *task) {
	w.queue.Note(k, queue.Failed, "Cancelled")
	w.completed(k, "cancel")
	id := k.ID // the task may be another worker's as soon as it is given back
	w.queue.Retry(k, k.Memory.basis, w.opts.RetryMax)
	// Now, so that a client who hears of the end finds nothing more to be cancelled.
	w.wait.failed(id, neon.Errorf(neon.Internal, "Reconcile error on shard %s: Cancelled", id))
}
