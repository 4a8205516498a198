package reconciler

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/reconciler/plan"
)

// strayCalls bounds the detaches of one activation under way at a time.
const strayCalls = 16

// list takes over the complete listing of a node, removes what no tenant knows,
// and wakes the shards that are not what they were thought to be.
func (w *nodeWatch) list(node *fsm.Node) error {
	ctx, cancel := context.WithTimeout(w.ctx, w.Options.PutTimeout)
	defer cancel()
	_, listed := w.seen.listedAt(node.ID)
	began := w.seen.reading()
	found, strays, err := w.fetch(ctx, node)
	if err == nil {
		err = w.detachStrays(ctx, node, strays)
	}
	var wake []neon.ShardID
	if err == nil {
		wake = w.seen.list(node.ID, node.Incarnation, began, found)
	}
	w.mu.Lock()
	e := w.watch[node.ID]
	if e != nil {
		e.listFailed = err != nil
		wake = append(wake, e.waiting...)
		e.waiting = nil
		if err == nil {
			e.listedAt, e.relist = time.Now(), max(relistInterval,
				time.Duration(len(found))*relistShare)
		}
	}
	w.mu.Unlock()
	if e == nil {
		w.seen.dropNode(node.ID) // it was deleted meanwhile
	}
	w.queue.wake(Normal, wake...)
	if err != nil {
		if w.ctx.Err() == nil {
			w.Logger.Info("node could not be listed", "node", node.ID, "err", err)
		}
		return err
	}
	if !listed {
		w.wakeNode(w.Log.State(), node.ID)
	}
	return nil
}

// fetch lists a node and tells the shards that exist from strays. The state that
// decides it is read after the listing and linearizably: a shard created
// meanwhile must not be taken for a stray, nor may a child of a split that is
// under way.
func (w *nodeWatch) fetch(
	ctx context.Context, node *fsm.Node,
) (map[neon.ShardID]*plan.Conf, []neon.ShardID, error) {
	list, err := w.Locations.Locations(ctx, node)
	if err != nil {
		return nil, nil, err
	}
	st, err := w.Log.ReadState(ctx)
	if err != nil {
		return nil, nil, err
	}
	found := make(map[neon.ShardID]*plan.Conf, len(list))
	var strays []neon.ShardID
	for _, l := range list {
		if _, ok := st.Shard(l.Shard); !ok && !st.Splitting(l.Shard.Tenant) {
			strays = append(strays, l.Shard)
			continue
		}
		found[l.Shard] = plan.ConfOf(l.Config)
	}
	for _, id := range strays {
		w.parentOf(st, id, found)
	}
	return found, strays, nil
}

// parentOf takes the parent of a stray, which a split that was aborted has left, for
// something that is there: the pageserver does not list it any more and still has its
// files, until it is detached.
func (w *nodeWatch) parentOf(st *fsm.State, stray neon.ShardID, found map[neon.ShardID]*plan.Conf) {
	tenant, ok := st.Tenant(stray.Tenant)
	if !ok || stray.Count.Shards() <= tenant.Count.Shards() {
		return
	}
	parent := tenant.Shards()[int(stray.Number)%tenant.Count.Shards()]
	if _, listed := found[parent]; !listed {
		found[parent] = &plan.Conf{Mode: neon.Secondary}
	}
}

func (w *nodeWatch) detachStrays(ctx context.Context, node *fsm.Node, strays []neon.ShardID) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(strayCalls)
	for _, id := range strays {
		g.Go(func() error {
			w.Logger.Info("detaching unknown shard", "shard", id, "node", node.ID)
			conf := &neon.LocationConfig{Mode: neon.Detached}
			if err := w.Locations.PutLocation(ctx, node, id, conf, PutOptions{}); err != nil {
				return fmt.Errorf("detach unknown shard %s: %w", id, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// awaitListing tells whether the listing of a node is still to come in this term;
// the shard will be woken by it, or when the node goes down without one.
func (w *nodeWatch) awaitListing(n neon.NodeID, id neon.ShardID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.watch[n]
	if e == nil || e.listFailed || !e.last.Available() {
		return false
	}
	if inc, ok := w.seen.listedAt(n); ok && inc == e.last.Incarnation {
		return false
	}
	e.waiting = append(e.waiting, id)
	return true
}

// activate lists a node on an operator's order and commits that it is active.
func (w *nodeWatch) activate(ctx context.Context, node *fsm.Node) error {
	began := w.seen.reading()
	found, strays, err := w.fetch(ctx, node)
	if err != nil {
		return neon.Errorf(neon.PreconditionFailed, "node %d cannot be listed: %w", node.ID, err)
	}
	if err := w.detachStrays(ctx, node, strays); err != nil {
		return neon.Errorf(neon.Conflict, "node %d: %w", node.ID, err)
	}
	w.seen.list(node.ID, node.Incarnation, began, found)
	_, err = w.Log.Propose(ctx, fsm.RequestID{},
		fsm.SetNodeAvailability{Verdicts: []fsm.Verdict{{Node: node.ID, To: neon.NodeActive}}})
	if err == nil {
		w.wakeNode(w.Log.State(), node.ID)
	}
	return err
}
