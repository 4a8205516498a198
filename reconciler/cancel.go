package reconciler

import (
	"context"

	"quorate/api/neon"
)

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
	if !t.queue.cancel(id) {
		t.Logger.Info("Shard does not have an ongoing Reconciler", "shard", id)
		return nil
	}
	t.Logger.Info("Cancelling Reconciler", "shard", id)
	select {
	case err := <-w.done:
		return err
	case <-t.ctx.Done():
		return neon.Errorf(neon.Unavailable, "leadership ended while waiting for shard %s", id)
	case <-ctx.Done():
		return neon.Errorf(neon.Timeout, "Timeout waiting for shard %s", id)
	}
}

// cancel makes the worker that has a shard give up; false when none has it.
func (q *queue) cancel(id neon.ShardID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.tasks[id]
	if t == nil || !t.running && !t.parked && t.step == nil {
		return false
	}
	t.cancelled = true
	if t.stop != nil {
		t.stop()
	}
	return true
}

// during registers what ends the present call of a task; nil when it is over.
func (q *queue) during(t *task, stop context.CancelFunc) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t.stop = stop
	if t.cancelled && stop != nil {
		stop()
	}
}

func (q *queue) isCancelled(t *task) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return t.cancelled
}

// cancelled ends a pass that an operator does not want. It is not repeated at once:
// what was in the way has some time to go away.
func (t *term) cancelled(k *task) {
	t.queue.note(k, failed, "Cancelled")
	t.completed(k, "cancel")
	id := k.id // the task may be another worker's as soon as it is given back
	t.queue.retry(k, t.Options.RetryMax)
	// Now, so that whoever hears of the end finds nothing more to be cancelled.
	t.wait.failed(id, neon.Errorf(neon.Internal, "Reconcile error on shard %s: Cancelled", id))
}
