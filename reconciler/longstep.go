package reconciler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
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
	// it may have been decided otherwise while the step waited for its turn
	if ok && w.ctx.Err() == nil && plan.Next(sc) == step {
		nodes := nodesOf(sc, step)
		if !w.queue.Acquire(k, queue.Steps, k.Memory.basis, nodes...) {
			return
		}
		err = w.makeLongStep(k, sc, step, nodes)
		w.queue.Release(k, nodes...)
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

// nodesOf are the nodes that a long step asks: the destination, and where the shard is.
func nodesOf(sc *plan.Scene, step plan.Step) []neon.NodeID {
	nodes := []neon.NodeID{step.Node}
	for _, from := range []neon.NodeID{step.From, sc.Shard.Attached} {
		if from != 0 && !slices.Contains(nodes, from) {
			nodes = append(nodes, from)
		}
	}
	return nodes
}

func (w *worker) makeLongStep(
	k *task, sc *plan.Scene, step plan.Step, nodes []neon.NodeID,
) (err error) {
	ctx, end := w.calls.begin(k, sc, nodeCall{kind: stepping}, nodes...)
	m := *w.mover
	m.migrations = &questions{calls: w.calls, to: w.mover.migrations, task: k, scene: sc}
	m.baseline = &k.Memory.baseline
	switch {
	case step.Kind == plan.CatchUp:
		err = m.catchUp(ctx, sc, step)
	case sc.Shard.Attached == step.Node:
		err = m.warm(ctx, sc, step)
	default:
		err = m.prewarm(ctx, sc, step)
	}
	gone := ctx.Err() != nil
	end(err)
	if gone {
		return nil // what to do now is decided anew
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
