package reconciler

import (
	"context"
	"slices"
	"time"

	"quorate/fsm"
	"quorate/internal/wait"
)

// gather is how long changes are gathered before ReconcileAll looks again.
const gather = 20 * time.Millisecond

// ReconcileAll looks at every shard and returns how many were not as they should
// be or could be better placed, and how many operations and splits run; 0 means that
// nothing is left to do. It waits for the work it found for as long as ctx allows,
// but not for destinations to become warm. A shard whose work keeps failing meanwhile
// is an error that names it.
func (r *Reconciler) ReconcileAll(ctx context.Context) (int, error) {
	t := r.current.Load()
	if t == nil {
		return 0, errNoTerm
	}
	mark := t.report.mark()
	t.rules.evacuate()
	t.rules.repair()
	// A shard that is only looked at, as after every change, is not work.
	found := max(t.orders(), t.outbox.Flush(ctx), t.wakeDirty())
	for {
		changed := t.progress()
		orders := t.orders()
		load := t.queue.Load()
		size := load.Size + orders
		found = max(found, load.Lengthy+orders)
		better := 0
		if size <= load.Waits {
			better = t.optimiser.pass(t.log.State().ShardCount() + 1)
			if better == 0 && t.outbox.Idle() {
				return max(found, t.outbox.Owed()), t.failedSince(mark, 1)
			}
			found = max(found, better)
		}
		if err := t.failedSince(mark, toleratedFailures); err != nil {
			return found, err
		}
		if better == 0 {
			changed.await(ctx)
		}
		if wait.Sleep(ctx, gather) != nil {
			return max(found, size), t.failedSince(mark, 1)
		}
	}
}

// progress is closed channels when something has changed that ReconcileAll waits for.
type progress [3]<-chan struct{}

func (t *term) progress() progress {
	return progress{t.queue.Changed(), t.outbox.Tried(), t.feed.orders.Changed()}
}

func (p progress) await(ctx context.Context) {
	select {
	case <-p[0]:
	case <-p[1]:
	case <-p[2]:
	case <-ctx.Done():
	}
}

// leftoversReachable reports whether leftovers of a split can be removed now.
func leftoversReachable(st *fsm.State, sp fsm.Split) bool {
	return slices.ContainsFunc(sp.Leftovers, func(l fsm.Leftover) bool {
		node, ok := st.Node(l.Node)
		return ok && node.Available()
	})
}
