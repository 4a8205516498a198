package controller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/scheduler"
)

const (
	// splitTick is how often a leader looks for splits to go on with, beside being
	// told of those begun here, and so the pause between two tries.
	splitTick = time.Second

	// detachTime bounds one detach.
	detachTime = 5 * time.Second

	// busyTime bounds the wait for a pageserver that goes on splitting a parent
	// although the split is to be aborted, and busyPause is the pause between two
	// looks at it.
	busyTime  = time.Minute
	busyPause = 500 * time.Millisecond
)

// Run goes on with every split in the log, those of earlier leaders included, for
// as long as this replica leads. It returns when ctx ends, with nil and everything
// joined.
func (p *Splits) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	s := p.Log.State()
	for sp := range s.Splits() {
		if sp.Phase == fsm.SplitAborting {
			p.remember(s, sp)
		}
	}
	for p.Calls.Quiet(ctx) != nil { // the workers begin their term at the same time
		if !nap(ctx, splitPoll) {
			return nil
		}
	}
	wg.Go(func() { p.runAuto(ctx) })
	var mu sync.Mutex
	driven := make(map[neon.TenantID]bool)
	tick := time.NewTicker(splitTick)
	defer tick.Stop()
	for ctx.Err() == nil {
		for sp := range p.Log.State().Splits() {
			mu.Lock()
			busy := driven[sp.Tenant]
			driven[sp.Tenant] = true
			mu.Unlock()
			if busy {
				continue
			}
			wg.Go(func() {
				p.drive(ctx, sp.Tenant)
				mu.Lock()
				defer mu.Unlock()
				delete(driven, sp.Tenant)
			})
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-p.poke:
		}
	}
	return nil
}

// drive goes on with one split until it is over or has to wait.
func (p *Splits) drive(ctx context.Context, id neon.TenantID) {
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
func (p *Splits) forward(ctx context.Context, sp fsm.Split) error {
	parents := make([]neon.ShardID, len(sp.Parents))
	for i, parent := range sp.Parents {
		parents[i] = parent.Shard
	}
	if err := p.Calls.Quiet(ctx, parents...); err != nil {
		return err
	}
	err := p.children(ctx, sp)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		reason := err.Error() // of a pageserver, it may be longer than the log takes
		abort := fsm.AbortSplit{
			Tenant: sp.Tenant, Began: sp.Began, Code: neon.CodeOf(err),
			Reason: reason[:min(len(reason), keptError)],
		}
		p.forgetInventory(sp.Parents)
		return p.propose(ctx, abort)
	}
	s := p.Log.State()
	secondary := scheduler.New(s, p.Reality.Loads()).SplitSecondaries(sp)
	if err := p.propose(ctx, fsm.CommitSplit{
		Tenant: sp.Tenant, Began: sp.Began, Secondary: secondary, At: time.Now().UnixMilli(),
	}); err != nil {
		return err
	}
	s = p.Log.State()
	if tenant, ok := s.Tenant(sp.Tenant); ok && tenant.Count == sp.Count {
		p.forgetInventory(sp.Parents)
		p.Logger.Info("Split a tenant", "tenant", sp.Tenant.String(), "count", sp.Count)
		p.Reality.Kick(tenant.Shards()...)
		if _, err := p.clear(ctx, mustSplit(s, sp.Tenant)); err != nil {
			return err
		}
		p.warm(ctx, sp.Tenant)
	}
	return nil
}

// children makes all children, and has tests hold it before and after.
func (p *Splits) children(ctx context.Context, sp fsm.Split) error {
	if err := p.failWith(ctx, "shard-split-post-begin", neon.Internal); err != nil {
		return err
	}
	if err := p.ask(ctx, sp); err != nil {
		return err
	}
	if err := p.failWith(ctx, "shard-split-pre-complete", neon.Conflict); err != nil {
		return err
	}
	return p.hold(ctx, "shard-split-pre-complete-pause")
}

func mustSplit(s *fsm.State, id neon.TenantID) fsm.Split {
	sp, _ := s.Split(id)
	return sp
}

// propose takes a refusal for what it is: the record has moved, and the next look
// tells how.
func (p *Splits) propose(ctx context.Context, c fsm.Command) error {
	r, err := p.Log.Propose(ctx, fsm.RequestID{}, c)
	if r.Err != nil && r.Err.Code == neon.Conflict {
		return nil
	}
	return err
}

// rollBack removes the children wherever they may be, then thaws the tenant.
func (p *Splits) rollBack(ctx context.Context, sp fsm.Split) error {
	p.remember(p.Log.State(), sp)
	p.forgetInventory(sp.Parents)
	var g errgroup.Group
	g.SetLimit(shardCalls)
	for _, parent := range sp.Parents {
		g.Go(func() error { return p.removeChildren(ctx, sp, parent) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := p.propose(ctx,
		fsm.FinishAbortedSplit{Tenant: sp.Tenant, Began: sp.Began}); err != nil {
		return err
	}
	p.Logger.Info("Aborted shard split", "tenant", sp.Tenant.String())
	for _, parent := range sp.Parents {
		p.Reality.Kick(parent.Shard)
	}
	return nil
}

// removeChildren detaches the children of one parent. A pageserver that cannot be
// reached is passed over: when it comes back, they are not re-attached if it has
// restarted, and strays if it has not.
func (p *Splits) removeChildren(ctx context.Context, sp fsm.Split, parent fsm.SplitParent) error {
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
		if !nap(ctx, busyPause) {
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

func (p *Splits) detachOne(ctx context.Context, node *fsm.Node, id neon.ShardID) error {
	ctx, cancel := context.WithTimeout(ctx, detachTime)
	defer cancel()
	return p.Calls.Detach(ctx, node, id)
}

func (p *Splits) see(
	ctx context.Context, node *fsm.Node, id neon.ShardID,
) (*neon.LocationConfig, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, detachTime)
	defer cancel()
	return p.Calls.SeeLocation(ctx, node, id)
}

// clear removes what is left of the parents on the pageservers that can be reached.
// It tells whether there is more to be done now.
func (p *Splits) clear(ctx context.Context, sp fsm.Split) (more bool, err error) {
	s := p.Log.State()
	var gone []fsm.Leftover
	var failed error
	for _, l := range sp.Leftovers {
		node, ok := s.Node(l.Node)
		switch {
		case !ok || node.Tombstone:
		case !node.Available():
			continue
		default:
			if err := p.detachOne(ctx, &node, l.Shard); err != nil {
				failed = errors.Join(failed, err)
				continue
			}
		}
		gone = append(gone, l)
	}
	if len(gone) > 0 {
		failed = errors.Join(failed,
			p.propose(ctx, fsm.ForgetLeftovers{Tenant: sp.Tenant, Leftovers: gone}))
	}
	return false, failed
}

// warm lets the secondaries of the children begin to download without waiting for
// the next round of heatmaps. Nothing depends on it.
func (p *Splits) warm(ctx context.Context, id neon.TenantID) {
	s := p.Log.State()
	tenant, ok := s.Tenant(id)
	if !ok || tenant.Policy.WantedSecondaries() == 0 {
		return
	}
	if err := await(ctx, p.Reality, s.Index, tenant.Shards()...); err != nil {
		p.Logger.Info("Secondaries are not kicked after a split", "tenant", id.String(), "err", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, shortWait)
	defer cancel()
	s = p.Log.State()
	var g errgroup.Group
	g.SetLimit(shardCalls)
	for sh := range s.TenantShards(id) {
		g.Go(func() error {
			if err := p.warmOne(ctx, s, &sh); err != nil && ctx.Err() == nil {
				p.Logger.Info("A secondary is not kicked after a split", "shard", sh.ID.String(),
					"err", err)
			}
			return nil
		})
	}
	_ = g.Wait()
}

func (p *Splits) warmOne(ctx context.Context, s *fsm.State, sh *fsm.Shard) error {
	node, ok := s.Node(sh.Attached)
	if !ok || len(sh.Secondary) == 0 {
		return nil
	}
	if err := p.Calls.HeatmapUpload(ctx, &node, sh.ID); err != nil {
		return err
	}
	for _, id := range sh.Secondary {
		if node, ok := s.Node(id); ok && node.Available() {
			if err := p.Calls.DownloadSecondary(ctx, &node, sh.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// nap pauses; false means that ctx ended.
func nap(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
