package controller

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

// SplitCalls are what a split needs of pageservers, one try each, and of the
// leader's workers.
type SplitCalls interface {
	// ShardSplit splits one attached shard and returns its children. A timeout of 0
	// sets no limit.
	ShardSplit(
		ctx context.Context, node *fsm.Node, shard neon.ShardID, req neon.ShardSplitRequest,
		timeout time.Duration,
	) ([]neon.ShardID, error)

	// SeeLocation looks at one location: found is false when there is none, and
	// conf is nil with found while the pageserver changes it.
	SeeLocation(
		ctx context.Context, node *fsm.Node, shard neon.ShardID,
	) (conf *neon.LocationConfig, found bool, err error)

	// Detach removes a location; it is no error if there is none.
	Detach(ctx context.Context, node *fsm.Node, shard neon.ShardID) error

	// TimelineIDs lists the timelines of an attached location, offloaded ones
	// included.
	TimelineIDs(ctx context.Context, node *fsm.Node, shard neon.ShardID) ([]neon.TimelineID, error)

	// TimelineDelete returns 202 while the deletion runs and 404 when nothing is left.
	TimelineDelete(
		ctx context.Context, node *fsm.Node, shard neon.ShardID, timeline neon.TimelineID,
	) (status int, err error)

	// HeatmapUpload makes an attached location say what its secondaries should have.
	HeatmapUpload(ctx context.Context, node *fsm.Node, shard neon.ShardID) error

	// DownloadSecondary makes a secondary begin to download.
	DownloadSecondary(ctx context.Context, node *fsm.Node, shard neon.ShardID) error

	// TopTenants lists the largest attached shards of a pageserver.
	TopTenants(
		ctx context.Context, node *fsm.Node, req neon.TopTenantsRequest,
	) ([]neon.TopTenant, error)

	// Quiet waits until no worker is in the middle of a call for the shards.
	Quiet(ctx context.Context, shards ...neon.ShardID) error
}

// SplitOptions are the settings of splits. A zero threshold, or fewer than two
// shards, turns an automatic split off.
type SplitOptions struct {
	RequestTimeout   time.Duration // of a pageserver's split; 0: none
	Threshold        uint64        // bytes per shard above which a tenant is split
	MaxShards        uint8         // most shards by automatic splits
	InitialThreshold uint64        // bytes above which an unsharded tenant is split
	InitialShards    uint8         // and into how many shards
	Interval         time.Duration // between two looks for large tenants; 0: 20 s
}

// Splits cuts tenants into more shards.
//
// A split is a record in the log. Begin freezes the tenant and names the children;
// the leader has the pageservers split the parents; when every child is seen
// attached in its parent's generation, Commit makes the children the tenant in one
// entry. When anything is in the way, or another leader follows, Abort is recorded,
// the children are removed, and the parents get new generations. Whoever leads
// finishes an abort, and removes what is left of the parents after a commit.
type Splits struct {
	Deps
	Calls   SplitCalls
	Options SplitOptions
	poke    chan struct{} // wakes Run

	mu      sync.Mutex
	aborted map[neon.TenantID]fsm.Split // rolled back here a short while ago
	had     map[neon.ShardID]inventory  // of the parents of splits under way here
}

// keptAborts bounds the memory of splits that were rolled back.
const keptAborts = 256

// NewSplits makes a Splits. Run drives what it begins.
func NewSplits(d Deps, calls SplitCalls, o SplitOptions) *Splits {
	if o.Interval == 0 {
		o.Interval = 20 * time.Second
	}
	return &Splits{
		Deps: d, Calls: calls, Options: o, poke: make(chan struct{}, 1),
		aborted: make(map[neon.TenantID]fsm.Split), had: make(map[neon.ShardID]inventory),
	}
}

// splitPoll is how often somebody who waits for a split looks at its record.
const splitPoll = 20 * time.Millisecond

// splitCheck is how often they make sure that the record they look at is alive.
const splitCheck = time.Second

// Split cuts a tenant into req.Count shards and returns them. It waits until that
// is committed, compute was told and the secondaries exist, with success even if
// the last two take longer. A tenant that has so many shards is left as it is. After
// an error the tenant is, or will soon be, as it was.
func (p *Splits) Split(
	ctx context.Context, id neon.TenantID, req neon.ShardSplitRequest,
) ([]neon.ShardID, error) {
	if err := p.failWith(ctx, "shard-split-validation", neon.BadRequest); err != nil {
		return nil, err
	}
	s, err := p.Log.ReadState(ctx)
	if err != nil {
		return nil, err
	}
	if sp, ok := s.Split(id); ok && sp.Phase == fsm.SplitAborting {
		if err := thaw(ctx, p.Log, id); err != nil {
			return nil, err
		}
	}
	if c, err := decideSplit(p.Log.State(), id, req); err == nil && c != nil {
		// What is under way for the tenant ends first.
		tenant, _ := p.Log.State().Tenant(id)
		settle(ctx, p.Reality, longWait, s.Index, tenant.Shards())
	}
	index, err := commit(ctx, p.Log,
		func(s *fsm.State) (fsm.Command, error) { return decideSplit(s, id, req) })
	if err != nil {
		return nil, err
	}
	p.wake()
	shards, err := p.await(ctx,
		fsm.Split{Tenant: id, Count: neon.ShardCount(req.Count), Began: index})
	if err != nil {
		return nil, err
	}
	if err := p.failWith(ctx, "shard-split-post-complete", neon.Internal); err != nil {
		return nil, err
	}
	p.cleared(ctx, id)
	settle(ctx, p.Reality, longWait, index, shards)
	return shards, nil
}

// cleared waits, as long as a client may be kept waiting for what is no condition of
// success, until nothing is left of the parents on pageservers that can be reached.
func (p *Splits) cleared(ctx context.Context, id neon.TenantID) {
	ctx, cancel := context.WithTimeout(ctx, shortWait)
	defer cancel()
	for {
		s := p.Log.State()
		sp, _ := s.Split(id)
		if !slices.ContainsFunc(sp.Leftovers, func(l fsm.Leftover) bool {
			node, ok := s.Node(l.Node)
			return ok && node.Available()
		}) || !nap(ctx, splitPoll) {
			return
		}
	}
}

// decideSplit is the command that begins a split; nil when the tenant has so many
// shards or is about to.
func decideSplit(s *fsm.State, id neon.TenantID, req neon.ShardSplitRequest) (fsm.Command, error) {
	tenant, ok := s.Tenant(id)
	if !ok || tenant.Deleting {
		return nil, neon.Errorf(neon.NotFound, "Tenant %s not found", id)
	}
	if s.Importing(id) {
		return nil, neon.Errorf(neon.Conflict, "Cannot shard split during timeline import")
	}
	have := tenant.Count.Shards()
	if sp, ok := s.Split(id); ok && sp.Active() && int(req.Count) > have {
		if sp.Count == neon.ShardCount(req.Count) {
			return nil, nil
		}
		return nil, neon.Errorf(neon.Conflict, "Cannot split, currently mid-split")
	}
	switch {
	case have > int(req.Count):
		return nil, neon.Errorf(neon.BadRequest,
			"Requested count %d but already have shards at count %d", req.Count, have)
	case have == int(req.Count):
		return nil, nil
	}
	c := fsm.BeginSplit{
		Tenant: id, Sequence: tenant.Sequence, Count: neon.ShardCount(req.Count),
		Stripe: tenant.Stripe,
	}
	if n := req.StripeSize; n != nil {
		if have > 1 && *n != tenant.Stripe {
			return nil, neon.Errorf(neon.BadRequest,
				"Attempted to change stripe size (ShardStripeSize(%d)->%d) on a tenant with multiple shards",
				tenant.Stripe, *n)
		}
		c.Stripe = *n
	}
	for sh := range s.TenantShards(id) {
		switch {
		case sh.Attached == 0:
			return nil, neon.Errorf(neon.BadRequest, "Cannot split a tenant that is not attached")
		case sh.GenNode != sh.Attached:
			return nil, neon.Errorf(neon.Unavailable, "Shard %s is not attached yet, please retry",
				sh.ID)
		}
		c.Parents = append(c.Parents,
			fsm.SplitParent{Shard: sh.ID, Node: sh.Attached, Generation: sh.Generation})
	}
	return c, nil
}

// await waits for the end of a split that was begun, by whichever leader.
func (p *Splits) await(ctx context.Context, asked fsm.Split) ([]neon.ShardID, error) {
	id, count := asked.Tenant, asked.Count
	poll := time.NewTicker(splitPoll)
	defer poll.Stop()
	check := time.NewTicker(splitCheck)
	defer check.Stop()
	for {
		s := p.Log.State()
		tenant, ok := s.Tenant(id)
		sp, recorded := s.Split(id)
		switch {
		case !ok:
			return nil, neon.Errorf(neon.NotFound, "Tenant %s not found", id)
		case tenant.Count.Shards() == count.Shards():
			return tenant.Shards(), nil
		case recorded && sp.Phase == fsm.SplitAborting:
			return nil, neon.Errorf(sp.Code, "%s", sp.Reason)
		case !recorded || !sp.Active() || sp.Count != count:
			return nil, p.whyAborted(asked)
		}
		select {
		case <-poll.C:
		case <-check.C:
			// A replica that has ended its part, such as an instance that stepped down
			// for another, sees nothing any more: its successor rolls splits back.
			if _, err := p.Log.ReadState(ctx); neon.CodeOf(err) == neon.ShuttingDown {
				return nil, p.whyAborted(asked)
			}
		case <-ctx.Done():
			return nil, neon.Errorf(neon.Timeout,
				"Timeout waiting for the split of tenant %s, which goes on", id)
		}
	}
}

// remember keeps the reason of a split that is being rolled back for those who wait
// for it and do not look in time, and says so in the log.
func (p *Splits) remember(s *fsm.State, sp fsm.Split) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.aborted[sp.Tenant].Began == sp.Began {
		return
	}
	if len(p.aborted) >= keptAborts {
		clear(p.aborted)
	}
	p.aborted[sp.Tenant] = sp
	tenant, _ := s.Tenant(sp.Tenant)
	p.Logger.Info(fmt.Sprintf("Aborting shard split %s %d -> %d", sp.Tenant, tenant.Count.Shards(),
		sp.Count), "why", sp.Reason)
}

func (p *Splits) whyAborted(asked fsm.Split) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if sp, ok := p.aborted[asked.Tenant]; ok && sp.Count == asked.Count && sp.Began >= asked.Began {
		return neon.Errorf(sp.Code, "%s", sp.Reason)
	}
	return neon.Errorf(neon.Conflict,
		"Unexpected child shard count: the split of tenant %s was rolled back", asked.Tenant)
}

// thaw waits for the end of a split of a tenant, for as long as a request may wait.
func thaw(ctx context.Context, log Log, id neon.TenantID) error {
	if !log.State().Splitting(id) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, longWait)
	defer cancel()
	poll := time.NewTicker(splitPoll)
	defer poll.Stop()
	for log.State().Splitting(id) {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return neon.Errorf(neon.Conflict, "Tenant %s is being split", id)
		}
	}
	return nil
}

// wake makes Run look at the records.
func (p *Splits) wake() {
	select {
	case p.poke <- struct{}{}:
	default:
	}
}
