package split

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/duty"
	"quorate/internal/wait"
	"quorate/scheduler"
)

const (
	// lookInterval is how often a leader looks for splits to go on with, beside being
	// told of those begun here, and so the pause between two tries.
	lookInterval = time.Second

	// detachTime bounds one detach.
	detachTime = 5 * time.Second

	// busyTime bounds the wait for a pageserver that goes on splitting a parent
	// although the split is to be aborted, and busyPause is the pause between two
	// looks at it.
	busyTime  = time.Minute
	busyPause = 500 * time.Millisecond

	// keptReason is how much of a pageserver's words is kept, in bytes.
	keptReason = 4000
)

// Run goes on with every split in the log, those of earlier leaders included, for
// as long as this replica leads. It returns when ctx ends, with everything joined.
func (p *Splitter) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	s := p.Log.State()
	for sp := range s.Splits() {
		if sp.Phase == fsm.SplitAborting {
			p.remember(s, sp)
		}
	}
	if p.Reconciler.AwaitTerm(ctx) != nil { // the workers begin their term at the same time
		return
	}
	wg.Go(func() { newAuto(p).run(ctx) })
	var driven duty.Keyed[neon.TenantID]
	defer driven.Wait()
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for ctx.Err() == nil {
		for sp := range p.Log.State().Splits() {
			// A split that waits is looked at again by the tick.
			driven.Start(sp.Tenant, func() { p.drive(ctx, sp.Tenant) }, func() {})
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-p.work:
		}
	}
}

// drive goes on with one split until it is over or has to wait.
func (p *Splitter) drive(ctx context.Context, id neon.TenantID) {
	for ctx.Err() == nil {
		sp, ok := p.Log.State().Split(id)
		if !ok {
			return
		}
		var err error
		again := true
		switch sp.Phase {
		case fsm.SplitAsking:
			err = p.forward(ctx, sp)
		case fsm.SplitAborting:
			err = p.rollBack(ctx, sp)
		case fsm.SplitDone:
			again, err = p.clear(ctx, sp)
		}
		if err != nil && ctx.Err() == nil {
			p.Logger.Info("Split of a tenant is not finished yet", "tenant", id.String(),
				"phase", sp.Phase.String(), "err", err)
		}
		if err != nil || !again {
			return
		}
	}
}

// forward has the parents split and commits that, or that it failed.
//
// A leader has all that it needs to know of the splits that it began; those of an
// earlier one were aborted when it took office.
func (p *Splitter) forward(ctx context.Context, sp fsm.Split) error {
	parents := make([]neon.ShardID, len(sp.Parents))
	for i, parent := range sp.Parents {
		parents[i] = parent.Shard
	}
	if err := p.Reconciler.AwaitNoWorker(ctx, parents...); err != nil {
		return err
	}
	if err := p.children(ctx, sp); err != nil {
		return p.abort(ctx, sp, err)
	}
	s := p.Log.State()
	secondary := scheduler.New(s, p.Reconciler.Loads()).SplitSecondaries(sp)
	err := p.propose(ctx, sp, fsm.CommitSplit{
		Tenant: sp.Tenant, Began: sp.Began, Secondary: secondary, At: time.Now().UnixMilli(),
	})
	switch {
	case errors.Is(err, &neon.Error{Code: neon.BadRequest}):
		return p.abort(ctx, sp, err) // the log will never take it
	case err != nil:
		return err
	}
	s = p.Log.State()
	if tenant, ok := s.Tenant(sp.Tenant); ok && tenant.Count == sp.Count {
		p.had.forget(sp)
		p.Logger.Info("Split a tenant", "tenant", sp.Tenant.String(), "count", sp.Count)
		p.Reconciler.Kick(tenant.Shards()...)
		if _, err := p.clear(ctx, mustSplit(s, sp.Tenant)); err != nil {
			return err
		}
		p.warm(ctx, sp.Tenant)
	}
	return nil
}

// abort gives a split up because of an error.
func (p *Splitter) abort(ctx context.Context, sp fsm.Split, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	reason := err.Error() // of a pageserver, it may be longer than the log takes
	p.had.forget(sp)
	return p.propose(ctx, sp, fsm.AbortSplit{
		Tenant: sp.Tenant, Began: sp.Began, Code: neon.CodeOf(err),
		Reason: reason[:min(len(reason), keptReason)],
	})
}

// children makes all children, and has tests hold it before and after.
func (p *Splitter) children(ctx context.Context, sp fsm.Split) error {
	if err := p.fail(ctx, "shard-split-post-begin", neon.Internal); err != nil {
		return err
	}
	if err := p.ask(ctx, sp); err != nil {
		return err
	}
	if err := p.fail(ctx, "shard-split-pre-complete", neon.Conflict); err != nil {
		return err
	}
	return p.Failpoints.Pausable(ctx, "shard-split-pre-complete-pause")
}

func mustSplit(s *fsm.State, id neon.TenantID) fsm.Split {
	sp, _ := s.Split(id)
	return sp
}

// propose proposes a command that was decided on a record. A refusal means that the
// record has moved, and the next look tells how. If it has not, the same would be
// refused again: that is a failure.
func (p *Splitter) propose(ctx context.Context, sp fsm.Split, c fsm.Command) error {
	r, err := p.Log.Propose(ctx, fsm.RequestID{}, c)
	if r.Err == nil || r.Err.Code != neon.Conflict {
		return err
	}
	if now, ok := p.Log.State().Split(sp.Tenant); ok && now.Began == sp.Began &&
		now.Phase == sp.Phase {
		return err
	}
	return nil
}

// rollBack removes the children wherever they may be, then unfreezes the tenant.
func (p *Splitter) rollBack(ctx context.Context, sp fsm.Split) error {
	p.remember(p.Log.State(), sp)
	p.had.forget(sp)
	var g errgroup.Group
	g.SetLimit(callsAtOnce)
	for _, parent := range sp.Parents {
		g.Go(func() error { return p.removeChildren(ctx, sp, parent) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := p.propose(ctx, sp,
		fsm.FinishAbortedSplit{Tenant: sp.Tenant, Began: sp.Began}); err != nil {
		return err
	}
	p.Logger.Info("Aborted shard split", "tenant", sp.Tenant.String())
	p.resettle(ctx, sp)
	for _, parent := range sp.Parents {
		p.Reconciler.Kick(parent.Shard)
	}
	return nil
}

// resettle gives the shards of a split that was aborted other places for all that they have
// on pageservers that are Offline. An operator who sets a pageserver Offline, to get out of
// a split that it makes fail, does not wait for it to come back. It is done once and need
// not succeed: what is attached there is moved away by any leader, and a secondary after
// some time.
func (p *Splitter) resettle(ctx context.Context, sp fsm.Split) {
	for _, parent := range sp.Parents {
		// The attached location first: its node may become a secondary by that.
		for range 1 + maxOfflinePlaces {
			in, ok := p.leaveOffline(parent.Shard)
			if !ok {
				break
			}
			if _, err := p.Log.Propose(ctx, fsm.RequestID{},
				fsm.SetIntents{Intents: []fsm.Intent{in}}); err != nil {
				break
			}
		}
	}
}

// maxOfflinePlaces bounds the secondaries of one shard that are placed anew.
const maxOfflinePlaces = 4

// leaveOffline is the next intent that takes a shard from a pageserver that is Offline.
func (p *Splitter) leaveOffline(id neon.ShardID) (fsm.Intent, bool) {
	s := p.Log.State()
	sh, ok := s.Shard(id)
	if !ok {
		return fsm.Intent{}, false
	}
	leave := scheduler.New(s, p.Reconciler.Loads()).Evacuate
	for i, node := range append([]neon.NodeID{sh.Attached}, sh.Secondary...) {
		if i > 0 {
			leave = scheduler.New(s, p.Reconciler.Loads()).ReplaceSecondaries
		}
		if n, ok := s.Node(node); !ok || n.Availability != neon.NodeOffline {
			continue
		}
		// One that cannot leave is passed over, and the next shard of the node is the first.
		if found, _, _ := leave(node, id, 1); len(found) == 1 && found[0].Shard == id {
			return found[0], true
		}
	}
	return fsm.Intent{}, false
}

// remember keeps the reason of a split that is being rolled back, and says so in the
// log.
func (p *Splitter) remember(s *fsm.State, sp fsm.Split) {
	if !p.aborted.remember(sp) {
		return
	}
	tenant, _ := s.Tenant(sp.Tenant)
	p.Logger.Info(fmt.Sprintf("Aborting shard split %s %d -> %d", sp.Tenant, tenant.Count.Shards(),
		sp.Count), "why", sp.Reason)
}

// removeChildren detaches the children of one parent. A pageserver that cannot be
// reached is passed over: when it comes back, they are not re-attached if it has
// restarted, and strays if it has not.
func (p *Splitter) removeChildren(ctx context.Context, sp fsm.Split, parent fsm.SplitParent) error {
	node, ok := p.Log.State().Node(parent.Node)
	if !ok || !node.Available() {
		return nil
	}
	for deadline := time.Now().Add(busyTime); time.Now().Before(deadline); {
		// While the parent is changing, the children are still to come.
		if conf, found, err := p.see(ctx, &node, parent.Shard); err != nil || !found ||
			conf != nil {
			break
		}
		if wait.Sleep(ctx, busyPause) != nil {
			return context.Cause(ctx)
		}
	}
	var failed error
	for _, id := range sp.Children(parent.Shard) {
		if err := p.detachOne(ctx, &node, id); err != nil {
			failed = errors.Join(failed, fmt.Errorf("detach %s from node %s: %w", id, node.ID, err))
		}
	}
	return failed
}

// detachOne removes a location of a shard that is no more, or not yet. One that a tenant
// has again is left alone.
func (p *Splitter) detachOne(ctx context.Context, node *fsm.Node, id neon.ShardID) error {
	ctx, cancel := context.WithTimeout(ctx, detachTime)
	defer cancel()
	s, err := p.Log.ReadState(ctx)
	if err != nil {
		return err
	}
	if _, exists := s.Shard(id); exists {
		return nil
	}
	return p.Reconciler.Detach(ctx, node, id)
}

func (p *Splitter) see(
	ctx context.Context, node *fsm.Node, id neon.ShardID,
) (*neon.LocationConfig, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, detachTime)
	defer cancel()
	return p.Pageservers.Location(ctx, node, id)
}
