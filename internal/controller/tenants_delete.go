package controller

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/scheduler"
)

const (
	// keptOrphans bounds the deletions that wait for ResumeDeletes to notice them;
	// beyond it the whole state is looked through again.
	keptOrphans = 256

	// removeTime bounds one try to remove the remote data of a tenant, and
	// removeTries how often a request tries.
	removeTime  = 30 * time.Second
	removeTries = 4

	// resumeMin and resumeMax bound the pause between two tries to finish a
	// deletion that no request waits for.
	resumeMin = time.Second
	resumeMax = time.Minute

	// resumeAtOnce bounds the deletions that are finished at one time: a pageserver
	// that hangs must not hold up all of them.
	resumeAtOnce = 16
)

// Delete removes a tenant: it is first recorded, then detached everywhere, then
// its remote data is removed, then it is forgotten. A deletion that was recorded
// is finished by the leader, whether this call succeeds or not, and by the next
// leader if this one dies.
func (t *Tenants) Delete(ctx context.Context, id neon.TenantID) error {
	if err := thaw(ctx, t.Log, id); err != nil {
		return err
	}
	index, err := commit(ctx, t.Log, func(s *fsm.State) (fsm.Command, error) {
		tenant, ok := s.Tenant(id)
		switch {
		case !ok && !anyNode(s):
			return nil, neon.Errorf(neon.BadRequest, "No AZ with nodes found to load tenant")
		case !ok:
			return nil, neon.Errorf(neon.NotFound, "Tenant %s not found", id)
		case tenant.Deleting:
			return nil, nil
		}
		return fsm.BeginDeleteTenant{ID: id}, nil
	})
	if err != nil {
		return err
	}
	if err := t.finishDelete(ctx, id, index); err != nil {
		t.orphan(id)
		return err
	}
	return nil
}

// finishDelete takes a recorded deletion to its end from wherever it is.
func (t *Tenants) finishDelete(ctx context.Context, id neon.TenantID, index uint64) error {
	tenant, ok := t.Log.State().Tenant(id)
	if !ok || !tenant.Deleting {
		return nil
	}
	if err := await(ctx, t.Reality, index, tenant.Shards()...); err != nil {
		return err
	}
	if err := t.removeData(ctx, tenant); err != nil {
		return err
	}
	r, err := t.Log.Propose(ctx, fsm.RequestID{},
		fsm.FinishDeleteTenant{ID: id, Sequence: tenant.Sequence})
	if r.Err != nil && r.Err.Code == neon.Conflict {
		return nil // somebody else has finished it
	}
	return err
}

// removeData has any pageserver remove what a tenant has in remote storage that
// nobody has attached any more. An error of nil tells that it is gone, or that the
// deletion is over.
func (t *Tenants) removeData(ctx context.Context, gone fsm.Tenant) error {
	id := gone.ID
	var failed error
	avoid := make(map[neon.NodeID]bool)
	for range removeTries {
		// Somebody else may have finished the deletion, and the tenant been created
		// again meanwhile, and even be attached while it is deleted again.
		s, err := t.Log.ReadState(ctx)
		if err != nil {
			return err
		}
		if tenant, ok := s.Tenant(id); !ok || tenant.Sequence != gone.Sequence {
			return nil
		}
		node := anyAvailable(s, avoid)
		if node == nil {
			break
		}
		if failed = t.removeOn(ctx, node, id); failed == nil {
			return nil
		}
		avoid[node.ID] = true
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if failed == nil {
		return neon.Errorf(neon.Conflict, "Scheduling error: %w", scheduler.ErrNoNodes)
	}
	return neon.Errorf(neon.Internal, "delete tenant %s: %w", id, failed)
}

func (t *Tenants) removeOn(ctx context.Context, node *fsm.Node, id neon.TenantID) error {
	ctx, cancel := context.WithTimeout(ctx, removeTime)
	defer cancel()
	return t.Pageservers.TenantDelete(ctx, node, id)
}

// anyAvailable finds a pageserver that should answer, one not to be avoided if
// there is any.
func anyAvailable(s *fsm.State, avoid map[neon.NodeID]bool) (found *fsm.Node) {
	for n := range s.Nodes() {
		if !n.Available() {
			continue
		}
		if !avoid[n.ID] {
			return n
		}
		found = n
	}
	return found
}

// orphan hands a deletion over to ResumeDeletes. It does not wait: a full channel
// makes ResumeDeletes look through the state.
func (t *Tenants) orphan(id neon.TenantID) {
	select {
	case t.orphans <- id:
	default:
	}
}

// ResumeDeletes finishes the deletions that earlier leaders and requests have
// left, for as long as this replica leads. It returns when ctx ends, with nil.
//
// It looks for them now and then: a request that was given up before it knew that
// its deletion was recorded hands over nothing.
func (t *Tenants) ResumeDeletes(ctx context.Context) error {
	todo := make(map[neon.TenantID]bool)
	pause := resumeMin
	var scanned time.Time
	for scan := true; ctx.Err() == nil; {
		if scan || time.Since(scanned) >= resumeMax {
			scanned = time.Now()
			t.findDeletes(ctx, todo)
		}
		for _, id := range t.resumeAll(ctx, todo) {
			delete(todo, id)
			pause = resumeMin
		}
		scan = t.rest(ctx, todo, pause)
		if len(todo) > 0 {
			pause = min(2*pause, resumeMax)
		}
	}
	return nil
}

// resumeAll tries every deletion once and lists those of which nothing is left.
func (t *Tenants) resumeAll(
	ctx context.Context, todo map[neon.TenantID]bool,
) (over []neon.TenantID) {
	var g errgroup.Group
	var mu sync.Mutex
	g.SetLimit(resumeAtOnce)
	for id := range todo {
		g.Go(func() error {
			if t.resume(ctx, id) {
				mu.Lock()
				defer mu.Unlock()
				over = append(over, id)
			}
			return nil
		})
	}
	_ = g.Wait()
	return over
}

// rest waits for a deletion to be handed over, or for the time of the next try or
// look. It tells whether some may have been missed.
func (t *Tenants) rest(
	ctx context.Context, todo map[neon.TenantID]bool, pause time.Duration,
) (missed bool) {
	if len(todo) == 0 {
		pause = resumeMax
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case id := <-t.orphans:
		missed = len(t.orphans) >= keptOrphans-1
		todo[id] = true
		for range len(t.orphans) {
			todo[<-t.orphans] = true
		}
	}
	return missed
}

func (t *Tenants) findDeletes(ctx context.Context, todo map[neon.TenantID]bool) {
	for tenant := range t.Log.State().TenantsFrom(neon.TenantID{}) {
		if ctx.Err() != nil {
			return
		}
		if tenant.Deleting {
			todo[tenant.ID] = true
		}
	}
}

// resume tells whether nothing is left to be done for a deletion.
func (t *Tenants) resume(ctx context.Context, id neon.TenantID) bool {
	s := t.Log.State()
	if tenant, ok := s.Tenant(id); !ok || !tenant.Deleting {
		return true
	}
	err := t.finishDelete(ctx, id, s.Index)
	if err != nil {
		if ctx.Err() == nil {
			t.Logger.Info("Deletion of a tenant is not finished yet", "tenant", id.String(),
				"err", err)
		}
		return false
	}
	t.Logger.Info("Finished the deletion of a tenant", "tenant", id.String())
	return true
}
