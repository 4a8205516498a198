package split

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/bits"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/wait"
)

const (
	// autoSplits is how many tenants are split at a time because of their size.
	autoSplits = 4

	// candidatesPerNode is how many candidates each pageserver names. Those that wait
	// after a failure, or may not be split, must not hide the others, so that far
	// more are asked for than are split at a time.
	candidatesPerNode = 1000

	// autoRetryMin and autoRetryMax bound the pause after a split of a tenant failed,
	// which doubles with every failure.
	autoRetryMin = time.Minute
	autoRetryMax = time.Hour
)

// auto splits tenants because of their size. It is what a leader remembers of that.
type auto struct {
	log         decide.Log
	options     Options
	logger      *slog.Logger
	pageservers topTenants
	splitter    tenantSplitter

	wg      sync.WaitGroup // splits under way
	mu      sync.Mutex
	running map[neon.TenantID]bool
	failed  map[neon.TenantID]failure
}

// topTenants is the call that finds large tenants.
type topTenants interface {
	TopTenants(
		ctx context.Context, node *fsm.Node, req neon.TopTenantsRequest,
	) ([]neon.TopTenant, error)
}

// tenantSplitter splits one tenant.
type tenantSplitter interface {
	Split(
		ctx context.Context, id neon.TenantID, req neon.ShardSplitRequest,
	) ([]neon.ShardID, error)
}

func newAuto(p *Splitter) *auto {
	return &auto{
		log: p.Log, options: p.Options, logger: p.Logger, pageservers: p.Pageservers, splitter: p,
		running: make(map[neon.TenantID]bool), failed: make(map[neon.TenantID]failure),
	}
}

// failure is when a tenant may be tried again.
type failure struct {
	until time.Time
	pause time.Duration
}

// wanted reports whether any automatic split is turned on.
func (o Options) wanted() bool {
	return o.MaxShards > 1 && (o.Threshold > 0 || o.InitialThreshold > 0 && o.InitialShards > 1)
}

// run looks for tenants that have become large and splits them, until ctx ends.
func (a *auto) run(ctx context.Context) {
	if !a.options.wanted() {
		return
	}
	defer a.wg.Wait()
	for wait.Sleep(ctx, a.options.Interval) == nil {
		for _, c := range a.candidates(ctx) {
			a.start(ctx, c)
		}
		a.prune()
	}
}

// candidate is a tenant that is to be split.
type candidate struct {
	tenant neon.TenantID
	from   int
	req    neon.ShardSplitRequest
	size   uint64 // of its largest timeline, in bytes
}

// candidates lists the tenants to be split, the largest first. Those that never were
// split come before the others: they may be growing right now.
func (a *auto) candidates(ctx context.Context) (list []candidate) {
	o := a.options
	var tops []neon.TopTenant
	if o.InitialThreshold > 0 && o.InitialShards > 1 {
		tops = a.tops(ctx, neon.TopTenantsRequest{
			Order: neon.ByMaxLogicalSize, Limit: candidatesPerNode,
			ShardsLT: new(neon.ShardCount(2)),
			GT:       &o.InitialThreshold,
		})
	}
	if o.Threshold > 0 {
		tops = append(tops, a.tops(ctx, neon.TopTenantsRequest{
			Order: neon.ByMaxLogicalSizePerShard, Limit: candidatesPerNode,
			ShardsLT: new(neon.ShardCount(o.MaxShards)), GT: &o.Threshold,
		})...)
	}
	s := a.log.State()
	seen := make(map[neon.TenantID]bool)
	for _, top := range tops {
		if c, ok := a.judge(s, top); ok && !seen[c.tenant] {
			seen[c.tenant] = true
			list = append(list, c)
		}
	}
	return list
}

// tops asks all available pageservers, the largest first. One that fails is passed
// over.
func (a *auto) tops(ctx context.Context, req neon.TopTenantsRequest) (all []neon.TopTenant) {
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(callsAtOnce)
	for n := range a.log.State().Nodes() {
		if !n.Available() {
			continue
		}
		g.Go(func() error {
			list, err := a.pageservers.TopTenants(ctx, n, req)
			if err != nil {
				if ctx.Err() == nil {
					a.logger.Info("The largest tenants of a node are not known",
						"node", n.ID.String(), "err", err)
				}
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, list...)
			return nil
		})
	}
	_ = g.Wait()
	slices.SortFunc(all, func(x, y neon.TopTenant) int {
		return cmp.Or(cmp.Compare(y.MaxLogicalSize, x.MaxLogicalSize), x.Shard.Compare(y.Shard))
	})
	return all
}

// judge reports whether a tenant is to be split and may be now, and how.
func (a *auto) judge(s *fsm.State, top neon.TopTenant) (c candidate, ok bool) {
	id := top.Shard.Tenant
	tenant, ok := s.Tenant(id)
	if !ok || tenant.Deleting || tenant.Count != top.Shard.Count ||
		tenant.Scheduling != neon.ShardActive ||
		tenant.Policy.Kind != neon.PlaceAttached || s.Splitting(id) || s.Importing(id) {
		return c, false
	}
	count := a.options.shards(tenant.Count.Shards(), top.MaxLogicalSize)
	if count <= tenant.Count.Shards() {
		return c, false
	}
	c = candidate{
		tenant: id, from: tenant.Count.Shards(), size: top.MaxLogicalSize,
		req: neon.ShardSplitRequest{Count: uint8(count)},
	}
	if c.from == 1 {
		// The stripe size of an unsharded tenant means nothing and may be an old default.
		c.req.StripeSize = new(neon.DefaultStripeSize)
	}
	return c, true
}

// shards is how many shards a tenant should have: as many as keep every one of them
// below the threshold, in powers of two, and at least the initial number once its
// size exceeds the initial threshold. It is never less than what it has.
func (o Options) shards(have int, size uint64) int {
	want := have
	if o.Threshold > 0 {
		if n := size/o.Threshold + min(1, size%o.Threshold); n > uint64(have) {
			want = 1 << bits.Len64(min(n, 256)-1)
		}
	}
	if o.InitialThreshold > 0 && have == 1 && size > o.InitialThreshold {
		want = max(want, int(o.InitialShards))
	}
	want = min(want, int(o.MaxShards))
	// Every shard is cut into the same power of two.
	fit := have
	for fit*2 <= want {
		fit *= 2
	}
	return fit
}

// start splits a tenant unless there are as many under way as may be, or the tenant
// has failed a short while ago: it waits, the others do not.
func (a *auto) start(ctx context.Context, c candidate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.running) >= autoSplits || a.running[c.tenant] ||
		time.Now().Before(a.failed[c.tenant].until) || ctx.Err() != nil {
		return
	}
	a.running[c.tenant] = true
	a.wg.Go(func() { a.split(ctx, c) })
}

// prune forgets failures of tenants that are no more.
func (a *auto) prune() {
	s := a.log.State()
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.failed,
		func(id neon.TenantID, _ failure) bool { _, ok := s.Tenant(id); return !ok })
}

func (a *auto) split(ctx context.Context, c candidate) {
	log := a.logger.With("tenant_id", c.tenant.String())
	log.Info(fmt.Sprintf("auto-splitting tenant %d → %d shards", c.from, c.req.Count),
		"size", c.size)
	_, err := a.splitter.Split(ctx, c.tenant, c.req)
	a.mu.Lock()
	delete(a.running, c.tenant)
	f := a.failed[c.tenant]
	if err != nil {
		f.pause = min(max(autoRetryMin, 2*f.pause), autoRetryMax)
		f.until = time.Now().Add(f.pause)
		a.failed[c.tenant] = f
	} else {
		delete(a.failed, c.tenant)
	}
	a.mu.Unlock()
	switch {
	case err == nil:
		log.Info(fmt.Sprintf("successful auto-split %d → %d shards", c.from, c.req.Count))
	case ctx.Err() == nil:
		log.Info("auto-split failed, others go on", "retry_in", f.pause, "err", err)
	}
}
