package deletion

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/fanout"
	"quorate/scheduler"
)

const (
	// removeTime bounds one call that removes the remote data of a tenant, and
	// removeTries how many pageservers are asked in one pass.
	removeTime  = 30 * time.Second
	removeTries = 4
)

// RemoteData removes what a tenant has in remote storage.
type RemoteData interface {
	// TenantDelete removes the data of all shards. It tries once, bounded by ctx. The error
	// of a request that has certainly not arrived has NotSent.
	TenantDelete(ctx context.Context, node *fsm.Node, tenant neon.TenantID) error
}

// removeData has a pageserver remove what a tenant has in remote storage that is attached
// nowhere any more. No error means that it is gone, or that the deletion is over.
//
// A pageserver goes on when its caller is gone, and makes one removal of a tenant after
// another. So the log has whom was asked, before that one is. Whoever comes later, also
// under another leader, asks the same one: its answer says that the earlier removal has
// ended too. Another one is asked only after the end of that. Else the slower of the two
// would remove the data of the next tenant of that id. The caller has the turn, until
// the deletion has ended.
func (t *Tenants) removeData(ctx context.Context, gone fsm.Tenant) error {
	var failed error
	var ended neon.NodeID // the last one that has failed, and has ended
	avoid := slices.Concat(t.reconciler.Silent(), leaving(t.log.State()))
	for range removeTries {
		// Another request may have finished the deletion, and the tenant been created
		// again meanwhile, and even be attached while it is deleted again.
		s, err := t.log.ReadState(ctx)
		if err != nil {
			return err
		}
		tenant, ok := s.Tenant(gone.ID)
		if !ok || tenant.Sequence != gone.Sequence {
			return nil
		}
		node, first, err := t.remover(ctx, s, tenant, ended, avoid)
		if neon.CodeOf(err) == neon.Conflict {
			failed = err // somebody else is at it, or has ended it
			continue
		}
		if err != nil {
			return err
		}
		if node == nil {
			break
		}
		if failed = t.removeOn(ctx, node, gone.ID); failed == nil {
			return nil
		}
		if !over(failed, first) {
			return neon.Errorf(neon.Internal,
				"delete tenant %s: pageserver %d may be removing its data: %w", gone.ID, node.ID,
				failed)
		}
		ended, avoid = node.ID, append(avoid, node.ID)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if failed == nil {
		return neon.Errorf(neon.Conflict, "Scheduling error: %w", scheduler.ErrNoNodes)
	}
	return neon.Errorf(neon.Internal, "delete tenant %s: %w", gone.ID, failed)
}

// leaving are the pageservers that are being deleted. Their deletion would wait for them.
func leaving(s *fsm.State) (nodes []neon.NodeID) {
	for n := range s.Nodes() {
		if n.Operation.Kind == fsm.OperationDelete {
			nodes = append(nodes, n.ID)
		}
	}
	return nodes
}

// remover is the pageserver to be asked: the one that the log has, unless its removal has
// ended, or any. first says that nobody has asked it before. It is nil when there is none.
func (t *Tenants) remover(
	ctx context.Context, s *fsm.State, tenant fsm.Tenant, ended neon.NodeID, avoid []neon.NodeID,
) (node *fsm.Node, first bool, err error) {
	n, removing := s.Removing(&tenant)
	if removing && n.ID != ended {
		if !n.Available() {
			return nil, false, neon.Errorf(neon.Unavailable,
				"delete tenant %s: pageserver %d may be removing its data, and does not answer; restart it, or delete the node by force",
				tenant.ID, n.ID)
		}
		return &n, false, nil
	}
	node = fanout.AnyAvailable(s, avoid...)
	if node == nil || removing && n.ID == node.ID {
		return node, false, nil
	}
	note := fsm.NoteRemover{
		ID: tenant.ID, Sequence: tenant.Sequence, Node: node.ID, Ended: ended,
		Term: s.Leader.Term,
	}
	if fsm.Admit(s, note) != nil {
		return node, true, nil // some member does not know of removers yet
	}
	_, err = t.log.Propose(ctx, fsm.RequestID{}, note)
	return node, true, err
}

// removeOn waits for a removal that is under way there already.
func (t *Tenants) removeOn(ctx context.Context, node *fsm.Node, id neon.TenantID) error {
	ctx, cancel := context.WithTimeout(ctx, removeTime)
	defer cancel()
	return fanout.Settle(ctx, http.StatusServiceUnavailable, func() error {
		return t.pageservers.TenantDelete(ctx, node, id)
	})
}

// over reports whether a removal that has failed is certainly at its end. It is not where
// the pageserver has not answered, or is at another one. Where nobody has asked before,
// any other answer says so, and so does a request that has not arrived. Else the
// pageserver has to have tried: it may refuse a request beside a removal that goes on.
func over(err error, first bool) bool {
	var lost interface{ NotSent() bool }
	switch status := fanout.StatusOf(err); {
	case status == 0:
		return first && errors.As(err, &lost) && lost.NotSent()
	case status == http.StatusServiceUnavailable:
		return false
	default:
		return first || status == http.StatusInternalServerError
	}
}
