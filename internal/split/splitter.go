package split

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/failpoint"
	"quorate/internal/wait"
	"quorate/scheduler"
)

// Pageservers are the calls of a split, one try each.
type Pageservers interface {
	// ShardSplit splits one attached shard and returns its children. A timeout of 0
	// sets no limit.
	ShardSplit(
		ctx context.Context, node *fsm.Node, shard neon.ShardID, req neon.ShardSplitRequest,
		timeout time.Duration,
	) ([]neon.ShardID, error)

	// Location looks at one location: found is false when there is none, and
	// conf is nil with found while the pageserver changes it.
	Location(
		ctx context.Context, node *fsm.Node, shard neon.ShardID,
	) (conf *neon.LocationConfig, found bool, err error)

	// TimelineIDs lists the timelines of an attached location, offloaded ones
	// included.
	TimelineIDs(ctx context.Context, node *fsm.Node, shard neon.ShardID) ([]neon.TimelineID, error)

	// TimelineDelete returns 202 while the deletion runs and 404 when nothing is left.
	TimelineDelete(
		ctx context.Context, node *fsm.Node, shard neon.ShardID, timeline neon.TimelineID,
	) (status int, err error)

	// HeatmapUpload makes an attached location say what its secondaries should have.
	HeatmapUpload(ctx context.Context, node *fsm.Node, shard neon.ShardID) error

	// SecondaryDownload makes a secondary begin to download, waits for that for at most
	// wait, and reports whether it is complete.
	SecondaryDownload(
		ctx context.Context, node *fsm.Node, shard neon.ShardID, wait time.Duration,
	) (done bool, p neon.SecondaryProgress, err error)

	// TopTenants lists the largest attached shards of a pageserver.
	TopTenants(
		ctx context.Context, node *fsm.Node, req neon.TopTenantsRequest,
	) ([]neon.TopTenant, error)
}

// Reconciler are the leader's workers.
type Reconciler interface {
	decide.Reconciler

	// AwaitTerm waits until they work. The error is that of ctx.
	AwaitTerm(ctx context.Context) error

	// AwaitNoWorker waits until no worker is in the middle of a call for the shards.
	AwaitNoWorker(ctx context.Context, shards ...neon.ShardID) error

	// Detach removes a location of a shard that no tenant has. It is no error if there is
	// none.
	Detach(ctx context.Context, node *fsm.Node, shard neon.ShardID) error

	// Loads are what the pageservers last said about their fullness.
	Loads() map[neon.NodeID]scheduler.Load
}

// Options are the settings of splits. A zero threshold, or fewer than two
// shards, turns an automatic split off.
type Options struct {
	RequestTimeout   time.Duration // of a pageserver's split; 0: none
	Threshold        uint64        // bytes per shard above which a tenant is split
	MaxShards        uint8         // most shards by automatic splits
	InitialThreshold uint64        // bytes above which an unsharded tenant is split
	InitialShards    uint8         // and into how many shards
	Interval         time.Duration // between two looks for large tenants; 0: 20 s
}

// Deps is what a Splitter works with.
type Deps struct {
	Log         decide.Log
	Reconciler  Reconciler
	Pageservers Pageservers
	Failpoints  failpoint.Points // nil: none
	Options     Options
	Logger      *slog.Logger
}

// Splitter cuts tenants into more shards.
type Splitter struct {
	Deps
	work    wait.Signal // wakes Run
	aborted reasons
	had     inventories
}

// New makes a Splitter. Run drives what it begins.
func New(d Deps) *Splitter {
	if d.Options.Interval == 0 {
		d.Options.Interval = 20 * time.Second
	}
	d.Failpoints = failpoint.OrNone(d.Failpoints)
	return &Splitter{Deps: d, work: wait.NewSignal()}
}

const (
	// checkPause is the pause between two checks that the record still changes here.
	checkPause = time.Second

	// callsAtOnce bounds the calls for one tenant that are under way at a time.
	callsAtOnce = 32
)

// Split cuts a tenant into req.Count shards and returns them. It waits until that
// is committed, compute was told and the secondaries exist, with success even if
// the last two take longer. A tenant that has so many shards is left as it is. After
// an error the tenant is, or will soon be, as it was.
func (p *Splitter) Split(
	ctx context.Context, id neon.TenantID, req neon.ShardSplitRequest,
) ([]neon.ShardID, error) {
	if err := p.fail(ctx, "shard-split-validation", neon.BadRequest); err != nil {
		return nil, err
	}
	s, err := p.Log.ReadState(ctx)
	if err != nil {
		return nil, err
	}
	if sp, ok := s.Split(id); ok && sp.Phase == fsm.SplitAborting {
		if err := AwaitEnd(ctx, p.Log, id); err != nil {
			return nil, err
		}
	}
	if c, err := decideSplit(p.Log.State(), id, req); err == nil && c != nil {
		// What is under way for the tenant ends first.
		tenant, _ := p.Log.State().Tenant(id)
		decide.AwaitAtMost(ctx, p.Reconciler, decide.LongWait, s.Index, tenant.Shards())
	}
	index, joined, err := p.begin(ctx, id, req)
	if err != nil {
		return nil, err
	}
	p.work.Set()
	shards, err := p.await(ctx,
		fsm.Split{Tenant: id, Count: neon.ShardCount(req.Count), Began: index})
	if err != nil {
		return nil, err
	}
	if joined {
		if err := decide.Note(ctx, p.Log); err != nil {
			return nil, err
		}
	}
	if err := p.fail(ctx, "shard-split-post-complete", neon.Internal); err != nil {
		return nil, err
	}
	p.awaitLeftovers(ctx, id)
	decide.AwaitAtMost(ctx, p.Reconciler, decide.LongWait, index, shards)
	return shards, nil
}

// begin begins a split, or joins the same one that another request has begun. Who joins has
// done nothing: if it is rolled back, a later try of the request begins another one. If it
// succeeds, that has to be noted.
func (p *Splitter) begin(
	ctx context.Context, id neon.TenantID, req neon.ShardSplitRequest,
) (index uint64, joined bool, err error) {
	if sp, ok := p.Log.State().Split(id); ok && sp.Active() &&
		sp.Count == neon.ShardCount(req.Count) {
		// A later try finds a split that it has begun by its name.
		return sp.Began, !decide.Done(ctx, p.Log.State()), nil
	}
	index, err = decide.Commit(ctx, p.Log,
		func(s *fsm.State) (fsm.Command, error) { return decideSplit(s, id, req) })
	return index, false, err
}

// awaitLeftovers waits, as long as a client may be kept waiting for what is no condition of
// success, until nothing is left of the parents on pageservers that can be reached.
func (p *Splitter) awaitLeftovers(ctx context.Context, id neon.TenantID) {
	ctx, cancel := context.WithTimeout(ctx, decide.ShortWait)
	defer cancel()
	for {
		changed := p.Log.Changed()
		s := p.Log.State()
		sp, _ := s.Split(id)
		if !slices.ContainsFunc(sp.Leftovers, func(l fsm.Leftover) bool {
			node, ok := s.Node(l.Node)
			return ok && node.Available()
		}) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
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
		if err := n.Check(); err != nil {
			return nil, err
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
func (p *Splitter) await(ctx context.Context, asked fsm.Split) ([]neon.ShardID, error) {
	id, count := asked.Tenant, asked.Count
	check := time.NewTicker(checkPause)
	defer check.Stop()
	for {
		changed := p.Log.Changed()
		s := p.Log.State()
		tenant, ok := s.Tenant(id)
		sp, recorded := s.Split(id)
		switch {
		case !ok:
			return nil, neon.Errorf(neon.NotFound, "Tenant %s not found", id)
		case tenant.Count.Shards() >= count.Shards():
			return tenant.Shards(), nil
		case recorded && sp.Phase == fsm.SplitAborting:
			return nil, neon.Errorf(sp.Code, "%s", sp.Reason)
		case !recorded || !sp.Active() || sp.Count != count:
			return nil, p.aborted.of(asked)
		}
		select {
		case <-changed:
		case <-check.C:
			// A replica that has ended its part, such as an instance that stepped down
			// for another, sees nothing any more: its successor rolls splits back.
			if _, err := p.Log.ReadState(ctx); neon.CodeOf(err) == neon.ShuttingDown {
				return nil, p.aborted.of(asked)
			}
		case <-ctx.Done():
			return nil, neon.Errorf(neon.Timeout,
				"Timeout waiting for the split of tenant %s, which goes on", id)
		}
	}
}

// fail passes a place at which tests make a split fail.
func (p *Splitter) fail(ctx context.Context, place string, code neon.Code) error {
	return failpoint.Fail(ctx, p.Failpoints, place, neon.Errorf(code, "failpoint"))
}

// AwaitEnd waits for the end of a split of a tenant, and of its time travel, for as long
// as a request may wait. It is the one thing that a change of a tenant has to know of them.
func AwaitEnd(ctx context.Context, log decide.Log, id neon.TenantID) error {
	if log.State().Frozen(id).Err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, decide.LongWait)
	defer cancel()
	for {
		changed := log.Changed()
		frozen := log.State().Frozen(id)
		if frozen.Err == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return frozen.Err
		}
	}
}
