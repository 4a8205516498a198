package deletion

import (
	"context"
	"log/slog"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/duty"
	"quorate/internal/split"
	"quorate/internal/wait"
)

const (
	// keptUnfinished bounds the deletions that wait for Run to notice them;
	// beyond it the whole state is looked through again.
	keptUnfinished = 256

	// shortestPause and longestPause bound the pause between two tries to finish a
	// deletion that no request waits for.
	shortestPause = time.Second
	longestPause  = time.Minute

	// removeAtOnce bounds the deletions without a request that remove data at one time:
	// those that try for the first time, and those that have failed, which are kept
	// apart.
	removeAtOnce = 16
)

// Tenants deletes tenants.
type Tenants struct {
	log         decide.Log
	reconciler  decide.Reconciler
	pageservers RemoteData
	logger      *slog.Logger

	turns duty.Turns[neon.TenantID] // held from the removal of data to the end of a deletion

	term duty.Term // in which data is removed

	unfinished chan neon.TenantID // what a request could not finish
	removals   chan struct{}      // held by those of Run that remove data
	retries    chan struct{}      // the same, after a try that failed
}

// NewTenants makes a Tenants. Run finishes what requests and earlier leaders have left.
func NewTenants(
	log decide.Log, r decide.Reconciler, pageservers RemoteData, logger *slog.Logger,
) *Tenants {
	return &Tenants{
		log: log, reconciler: r, pageservers: pageservers, logger: logger,
		unfinished: make(chan neon.TenantID, keptUnfinished),
		removals:   make(chan struct{}, removeAtOnce), retries: make(chan struct{}, removeAtOnce),
	}
}

// Delete removes a tenant: it is first recorded, then detached everywhere, then
// its remote data is removed, then it is forgotten. A deletion that was recorded
// is finished by the leader, whether this call succeeds or not, and by the next
// leader if this one dies.
func (t *Tenants) Delete(ctx context.Context, id neon.TenantID) error {
	if err := split.AwaitEnd(ctx, t.log, id); err != nil {
		return err
	}
	index, err := decide.Commit(ctx, t.log, func(s *fsm.State) (fsm.Command, error) {
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
		t.handOver(id)
		return err
	}
	return nil
}

// finishDelete takes a recorded deletion to its end from wherever it is.
func (t *Tenants) finishDelete(ctx context.Context, id neon.TenantID, index uint64) error {
	tenant, ok := t.log.State().Tenant(id)
	if !ok || !tenant.Deleting {
		return nil
	}
	if err := decide.Await(ctx, t.reconciler, index, tenant.Shards()...); err != nil {
		return err
	}
	release, err := t.turns.Take(ctx, id, nil)
	if err != nil {
		return err
	}
	return t.term.Do(ctx, func(ctx context.Context) error {
		defer release()
		return t.remove(ctx, tenant)
	})
}

// remove removes the data of a tenant that is attached nowhere any more, and ends its
// deletion. The caller has the turn.
func (t *Tenants) remove(ctx context.Context, tenant fsm.Tenant) error {
	if err := t.removeData(ctx, tenant); err != nil {
		return err
	}
	r, err := t.log.Propose(ctx, fsm.RequestID{},
		fsm.FinishDeleteTenant{ID: tenant.ID, Sequence: tenant.Sequence})
	if r.Err != nil && (r.Err.Code == neon.Conflict || r.Err.Code == neon.PreconditionFailed) {
		return nil // it was finished meanwhile, and the tenant may have been created again
	}
	return err
}

// handOver gives a deletion to Run. It does not wait: a full channel
// makes Run look through the state.
func (t *Tenants) handOver(id neon.TenantID) {
	select {
	case t.unfinished <- id:
	default:
	}
}

// Run finishes the deletions that earlier leaders and requests have
// left, for as long as this replica leads. It returns when ctx ends.
//
// Each deletion has its own retry, so that one that cannot go on holds up no other. Run
// looks for them now and then: a request that was given up before it knew that
// its deletion was recorded hands over nothing.
func (t *Tenants) Run(ctx context.Context) {
	defer t.term.Begin(ctx)()
	var deleting duty.Keyed[neon.TenantID]
	defer deleting.Wait()
	start := func(id neon.TenantID) {
		deleting.Start(id, func() { t.drive(ctx, id) }, func() {})
	}
	tick := time.NewTicker(longestPause)
	defer tick.Stop()
	for missed := true; ctx.Err() == nil; {
		if missed {
			t.findDeletes(ctx, start)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
			missed = true
		case id := <-t.unfinished:
			missed = len(t.unfinished) >= keptUnfinished-1
			start(id)
		}
	}
}

// drive tries to finish one deletion until nothing is left of it.
func (t *Tenants) drive(ctx context.Context, id neon.TenantID) {
	lane := t.removals
	for pause := shortestPause; !t.resume(ctx, id, lane); pause = min(2*pause, longestPause) {
		if wait.Sleep(ctx, pause) != nil {
			return
		}
		lane = t.retries
	}
}

func (t *Tenants) findDeletes(ctx context.Context, start func(neon.TenantID)) {
	for tenant := range t.log.State().TenantsFrom(neon.TenantID{}) {
		if ctx.Err() != nil {
			return
		}
		if tenant.Deleting {
			start(tenant.ID)
		}
	}
}

// resume reports whether nothing is left to be done for a deletion. It waits for the
// locations first: only who removes data needs a place in a lane.
func (t *Tenants) resume(ctx context.Context, id neon.TenantID, lane chan struct{}) bool {
	s := t.log.State()
	tenant, ok := s.Tenant(id)
	if !ok || !tenant.Deleting {
		return true
	}
	err := decide.Await(ctx, t.reconciler, s.Index, tenant.Shards()...)
	if err == nil {
		select {
		case lane <- struct{}{}:
			err = t.finishDelete(ctx, id, s.Index)
			<-lane
		case <-ctx.Done():
			return false
		}
	}
	if err != nil {
		if ctx.Err() == nil {
			t.logger.Info("Deletion of a tenant is not finished yet", "tenant", id.String(),
				"err", err)
		}
		return false
	}
	t.logger.Info("Finished the deletion of a tenant", "tenant", id.String())
	return true
}

func anyNode(s *fsm.State) bool {
	for range s.Nodes() {
		return true
	}
	return false
}
