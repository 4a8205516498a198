package reconciler

import (
	"context"
	"fmt"
	"slices"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/reconciler/plan"
)

// list takes over the complete listing of a node, has removed what no tenant knows,
// and wakes the shards that are not what they were thought to be.
func (w *nodeWatch) list(wanted context.Context, node *fsm.Node) error {
	ctx, cancel := context.WithTimeout(wanted, w.opts.PutTimeout)
	defer cancel()
	_, listed := w.seen.ListedAt(node.ID)
	began := w.seen.Clock()
	found, strays, err := w.lister.fetch(ctx, node)
	var wake []neon.ShardID
	if err == nil {
		listed := w.strays.found(node.ID, strays)
		wake = w.seen.List(node.ID, node.Incarnation, began, found)
		listed()
	}
	w.mu.Lock()
	e := w.watch[node.ID]
	if e != nil {
		if e.listErr = err; wanted.Err() != nil {
			e.listErr = nil // it was not wanted any more
		}
		wake = append(wake, e.waiting...)
		e.waiting = nil
		if err == nil {
			e.listedAt = time.Now()
			e.relist = max(relistInterval, time.Duration(w.seen.Count())*relistShare)
			e.relistSoon = max(relistInterval, time.Duration(len(found))*doubtShare)
		}
	}
	w.mu.Unlock()
	if e == nil {
		w.seen.DropNode(node.ID) // it was deleted meanwhile
	}
	if err == nil && !listed {
		wake = slices.Grow(wake, len(found))
		for sh := range w.log.State().NodeShards(node.ID) {
			wake = append(wake, sh.ID)
		}
	}
	slices.SortFunc(wake, neon.ShardID.Compare)
	w.unsettled.wake(w.ctx, slices.Compact(wake))
	if err != nil {
		if w.ctx.Err() == nil {
			w.logger.Info("node could not be listed", "node", node.ID, "err", err)
		}
		return err
	}
	return nil
}

// lister lists nodes. It has no state.
type lister struct {
	log       decide.Log
	locations Locations
}

// fetch lists a node and names the strays in the listing. The state that
// decides it is read after the listing and linearizably: a shard created
// meanwhile must not be taken for a stray, nor may a child of a split that is
// under way.
func (l *lister) fetch(
	ctx context.Context, node *fsm.Node,
) (map[neon.ShardID]*plan.Conf, []neon.ShardID, error) {
	list, err := l.locations.Locations(ctx, node)
	if err != nil {
		return nil, nil, err
	}
	st, err := l.log.ReadState(ctx)
	if err != nil {
		return nil, nil, err
	}
	found := make(map[neon.ShardID]*plan.Conf, len(list))
	var strays []neon.ShardID
	for _, at := range list {
		if unknown(st, at.Shard) {
			strays = append(strays, at.Shard)
		}
		found[at.Shard] = plan.ConfOf(at.Config)
	}
	for _, id := range strays {
		l.parentOf(st, id, found)
	}
	return found, strays, nil
}

// parentOf takes the parent of a stray, which a split that was aborted has left, for
// something that is there: the pageserver does not list it any more and still has its
// files, until it is detached.
func (l *lister) parentOf(st *fsm.State, stray neon.ShardID, found map[neon.ShardID]*plan.Conf) {
	tenant, ok := st.Tenant(stray.Tenant)
	if !ok || stray.Count.Shards() <= tenant.Count.Shards() {
		return
	}
	parent := tenant.Shards()[int(stray.Number)%tenant.Count.Shards()]
	if _, listed := found[parent]; !listed {
		found[parent] = &plan.Conf{Mode: neon.Secondary}
	}
}

// silentError is a look at a location that waits for the listing of a node that does not
// answer its heartbeats.
type silentError struct{ node neon.NodeID }

func (e *silentError) Error() string {
	return fmt.Sprintf("node %d does not answer its heartbeats", e.node)
}

// awaitListing reports whether the listing of a node is still to come in this term;
// the shard will be woken by it, or when the node goes down without one. It is silent as
// long as the node does not answer its heartbeats.
func (w *nodeWatch) awaitListing(n neon.NodeID, id neon.ShardID) (awaited, silent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.watch[n]
	if e == nil || e.listErr != nil || !e.last.Available() {
		return false, false
	}
	if inc, ok := w.seen.ListedAt(n); ok && inc == e.last.Incarnation {
		return false, false
	}
	e.waiting = append(e.waiting, id)
	return true, e.failing
}

// activate lists a node on an operator's order and commits that it is active.
func (w *nodeWatch) activate(ctx context.Context, node *fsm.Node) error {
	began := w.seen.Clock()
	found, strays, err := w.lister.fetch(ctx, node)
	if err != nil {
		return neon.Errorf(neon.PreconditionFailed, "node %d cannot be listed: %w", node.ID, err)
	}
	listed := w.strays.found(node.ID, strays)
	w.seen.List(node.ID, node.Incarnation, began, found)
	listed()
	_, err = w.log.Propose(ctx, fsm.RequestID{},
		fsm.SetNodeAvailability{Verdicts: []fsm.Verdict{{Node: node.ID, To: neon.NodeActive}}})
	if err == nil {
		w.wakeNode(w.log.State(), node.ID)
	}
	return err
}
