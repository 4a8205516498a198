package reconciler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"quorate/api/neon"
	"quorate/reconciler/plan"
	"quorate/reconciler/queue"
)

// longStep is a worker's turn in the pool of long steps. Afterwards the shard is
// looked at again as any other.
func (w *worker) longStep(k *task) {
	step := *k.Memory.step
	sc, ok := w.scene(w.log.State(), k)
	var err error
	// a node may have been deleted meanwhile
	exists := func(n neon.NodeID) bool { return n == 0 || sc.Node(n) != nil }
	if ok && w.ctx.Err() == nil && exists(step.Node) && exists(step.From) {
		err = w.makeLongStep(k, sc, step)
	}
	if w.queue.IsCancelled(k) {
		err = nil
		w.seen.SetWarm(k.ID, 0) // it is not for being cut short
	}
	k.Memory.step = nil
	switch {
	case err == nil || w.ctx.Err() != nil:
		w.queue.Finish(k)
	case errors.Is(err, errCold):
		w.queue.Note(k, queue.Cold, fmt.Sprintf("secondary on node %d isn't ready", step.Node))
		w.queue.Retry(k, k.Memory.basis, w.coldRetry())
	default:
		// The origin may have stopped serving, or a secondary be gone: look before
		// the next try.
		w.seen.Looked(k.ID, cmp.Or(step.From, step.Node), nil, w.seen.Clock())
		if errors.Is(err, errOrigin) {
			k.Memory.blame(step.From)
		}
		w.failed(k, sc, step, err)
	}
}

func (w *worker) makeLongStep(k *task, sc *plan.Scene, step plan.Step) (err error) {
	ctx, stop := w.calls.whileUp(k, step.Node, step.From)
	defer stop()
	switch {
	case step.Kind == plan.CatchUp:
		err = w.mover.catchUp(ctx, sc, step)
	case sc.Shard.Attached == step.Node:
		err = w.mover.warm(ctx, sc, step)
	default:
		err = w.mover.prewarm(ctx, sc, step)
	}
	if ctx.Err() != nil {
		return nil // a node went down: what to do now is decided anew
	}
	return err
}

// coldShare is how many cold destinations are looked at in one ColdRetry. With more
// of them each is looked at less often, so that the pageservers and the pool of long
// steps do not suffer, and no move has to be given up for another.
const coldShare = 32

func (w *worker) coldRetry() time.Duration {
	return w.opts.ColdRetry * time.Duration(1+w.queue.Load().Waits/coldShare)
}

// hold lets a shard pass the failpoint before a step, once for each time it comes to
// that step. It reports whether to decide again, since much may have happened there.
func (w *worker) hold(k *task, sc *plan.Scene, step plan.Step) (again bool) {
	if w.failpoints == nil {
		return false
	}
	m := &k.Memory
	name := pointBefore(sc, step)
	if step.Kind == plan.Done && m.acted {
		name = epilogue
	}
	if name == "" || m.passed == name {
		m.passed = ""
		return false
	}
	m.passed = name
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	w.queue.During(k, cancel)
	defer w.queue.During(k, nil)
	_ = w.failpoints.Pausable(ctx, name) // when the term ends, the caller sees it
	return true
}
