package reconciler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
	"quorate/internal/failpoint"
	"quorate/internal/wait"
	"quorate/reconciler/outbox"
	"quorate/reconciler/plan"
)

// fleet is a set of pageservers that obey the rules of generations and fail the
// test when one is broken.
type fleet struct {
	t    *testing.T
	log  *fsmtest.Log
	mu   sync.Mutex
	rng  *rand.Rand
	down map[neon.NodeID]bool
	// calls to it end when their callers give up
	hung   neon.NodeID
	stalls map[neon.NodeID]call          // of which these calls end so, and no others
	deaf   neon.NodeID                   // answers no heartbeats
	frozen time.Duration                 // how long heartbeats take that then fail
	lists  map[neon.NodeID]time.Duration // how long they take to be listed
	// answers everything but a listing
	unlisted neon.NodeID
	onList   func()             // called between a listing and its answer
	onLook   func(neon.ShardID) // called before a location is looked at
	// decides on every call that changes a location
	onPut func(neon.NodeID, neon.ShardID) error
	// timelines; one for a node that is not here
	has      map[neon.NodeID]map[neon.TimelineID]neon.Lsn
	at       map[neon.NodeID]map[neon.ShardID]neon.LocationConfig
	owners   map[neon.ShardID]map[neon.Generation]neon.NodeID
	notified map[neon.ShardID]neon.NodeID
	hookErr  error
	// of one tenant
	hookErrOf func(neon.TenantID) error
	notes     int     // notifications that came
	flaky     float64 // share of calls whose answer is lost after they took effect
	latency   time.Duration
	puts      int
	lag       uint64                    // what every secondary still has to download
	lagOf     func(neon.ShardID) uint64 // instead, if set
	slow      bool                      // downloads end without having everything
	cut       int                       // downloads that their caller dropped
	asked     int                       // slow downloads
	heatmaps  []neon.NodeID             // nodes that were asked for one
	refuse    neon.NodeID               // a node that takes no new locations
	mute      bool                      // no secondary has a heatmap
	disks     map[neon.NodeID]uint64
	bytes     map[neon.ShardID]uint64 // what an attached shard has
	other     map[neon.NodeID]uint64  // what else is on disks; nil: nothing is told
}

func newFleet(t *testing.T, log *fsmtest.Log) *fleet {
	return &fleet{
		t: t, log: log, rng: rand.New(rand.NewPCG(1, 2)), down: map[neon.NodeID]bool{},
		latency:  time.Millisecond,
		at:       map[neon.NodeID]map[neon.ShardID]neon.LocationConfig{},
		owners:   map[neon.ShardID]map[neon.Generation]neon.NodeID{},
		notified: map[neon.ShardID]neon.NodeID{},
	}
}

var errDown = errors.New("connection refused")
var errRefused = errors.New("no space left on device")
var errLost = errors.New("the answer was lost")

// call is a set of kinds of calls to a pageserver.
type call uint8

const (
	callPut call = 1 << iota
	callLook
	callList
	callWarm  // heatmaps, downloads and their progress
	callWrote // timelines, and waiting for their ends
	callProbe

	callsButProbes = callPut | callLook | callList | callWarm | callWrote
)

// enter is what every call begins with.
func (f *fleet) enter(ctx context.Context, n neon.NodeID, kind call) error {
	f.mu.Lock()
	latency, hung := f.latency, f.hung == n || f.stalls[n]&kind != 0
	f.mu.Unlock()
	if hung && n != 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	if err := wait.Sleep(ctx, latency); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down[n] {
		return errDown
	}
	return nil
}

func (f *fleet) PutLocation(
	ctx context.Context, node *fsm.Node, id neon.ShardID, c *neon.LocationConfig,
	_ neon.LocationOptions,
) error {
	if err := f.enter(ctx, node.ID, callPut); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.onPut != nil {
		if err := f.onPut(node.ID, id); err != nil {
			return err
		}
	}
	f.puts++
	if f.refuse == node.ID && c.Mode != neon.Detached {
		return errRefused
	}
	have := f.at[node.ID]
	if have == nil {
		have = map[neon.ShardID]neon.LocationConfig{}
		f.at[node.ID] = have
	}
	if c.Mode.Attached() {
		f.attach(node.ID, id, have[id], c)
		if old := have[id]; old.Mode.Attached() && *old.Generation > *c.Generation {
			return errors.New("generation goes back")
		}
	}
	if c.Mode == neon.Detached {
		delete(have, id)
	} else {
		have[id] = *c
	}
	if f.rng.Float64() < f.flaky {
		return errLost
	}
	return nil
}

// attach checks that the number was committed for this node before it was sent.
func (f *fleet) attach(
	n neon.NodeID, id neon.ShardID, was neon.LocationConfig, c *neon.LocationConfig,
) {
	sh, ok := f.log.State().Shard(id)
	if !ok || *c.Generation > sh.Generation {
		f.t.Errorf("%s: node %d is sent %s, the log says %s", id, n, *c.Generation, sh.Generation)
	}
	if was.Mode.Attached() && *was.Generation == *c.Generation {
		return
	}
	by := f.owners[id]
	if by == nil {
		by = map[neon.Generation]neon.NodeID{}
		f.owners[id] = by
	}
	if other, used := by[*c.Generation]; used && other != n {
		f.t.Errorf("%s: generation %s at nodes %d and %d", id, *c.Generation, other, n)
	}
	by[*c.Generation] = n
}

func (f *fleet) Location(
	ctx context.Context, node *fsm.Node, id neon.ShardID,
) (conf *neon.LocationConfig, found bool, err error) {
	f.mu.Lock()
	onLook := f.onLook
	f.mu.Unlock()
	if onLook != nil {
		onLook(id)
	}
	if err := f.enter(ctx, node.ID, callLook); err != nil {
		return nil, false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.at[node.ID][id]
	if !ok {
		return nil, false, nil
	}
	return &c, true, nil
}

func (f *fleet) Locations(
	ctx context.Context, node *fsm.Node,
) (list []neon.ListedLocation, err error) {
	if err := f.enter(ctx, node.ID, callList); err != nil {
		return nil, err
	}
	f.mu.Lock()
	slow, unlisted := f.lists[node.ID], f.unlisted
	f.mu.Unlock()
	if unlisted == node.ID {
		return nil, errUnlisted
	}
	if err := wait.Sleep(ctx, slow); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, c := range f.at[node.ID] {
		list = append(list, neon.ListedLocation{Shard: id, Config: &c})
	}
	if f.onList != nil {
		f.onList()
	}
	return list, nil
}

func (f *fleet) Utilization(ctx context.Context, node *fsm.Node) (*neon.Utilization, error) {
	f.mu.Lock()
	deaf, frozen := f.deaf == node.ID, f.frozen
	u := &neon.Utilization{MaxShardCount: 2500}
	if disk, ok := f.disks[node.ID]; ok {
		u.FreeSpaceBytes, u.DiskUsablePct = disk, 100
		if f.other != nil {
			for id := range f.at[node.ID] {
				u.DiskWantedBytes += f.bytes[id]
			}
			u.DiskUsageBytes = min(disk, u.DiskWantedBytes+f.other[node.ID])
			u.FreeSpaceBytes -= u.DiskUsageBytes
		}
	}
	f.mu.Unlock()
	if frozen > 0 {
		_ = wait.Sleep(context.Background(), frozen) // the caller stands still too
		return nil, context.DeadlineExceeded
	}
	if deaf {
		return nil, errDown
	}
	return u, f.enter(ctx, node.ID, callProbe)
}

func (f *fleet) TopTenants(
	ctx context.Context, node *fsm.Node, _ neon.TopTenantsRequest,
) (list []neon.TopTenant, err error) {
	if err := f.enter(ctx, node.ID, callList); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, c := range f.at[node.ID] {
		if c.Mode.Attached() {
			list = append(list, neon.TopTenant{Shard: id, ResidentSize: f.bytes[id]})
		}
	}
	return list, nil
}

func (f *fleet) SecondaryDownload(
	ctx context.Context, node *fsm.Node, id neon.ShardID, atMost time.Duration,
) (done bool, p neon.SecondaryProgress, err error) {
	if err := f.enter(ctx, node.ID, callWarm); err != nil {
		return false, p, err
	}
	f.mu.Lock()
	slow := f.slow
	f.mu.Unlock()
	if slow {
		err = wait.Sleep(ctx, atMost)
		f.set(func() {
			f.asked++
			if err != nil {
				f.cut++
			}
		})
	}
	if err == nil {
		p, err = f.progress(node, id)
	}
	return err == nil && !slow, p, err
}

func (f *fleet) SecondaryStatus(
	ctx context.Context, node *fsm.Node, id neon.ShardID,
) (p neon.SecondaryProgress, err error) {
	if err := f.enter(ctx, node.ID, callWarm); err != nil {
		return p, err
	}
	return f.progress(node, id)
}

func (f *fleet) HeatmapUpload(ctx context.Context, node *fsm.Node, _ neon.ShardID) error {
	f.set(func() { f.heatmaps = append(f.heatmaps, node.ID) })
	return f.enter(ctx, node.ID, callWarm)
}

func (f *fleet) Timelines(
	ctx context.Context, node *fsm.Node, _ neon.ShardID,
) (map[neon.TimelineID]neon.Lsn, error) {
	f.mu.Lock()
	has, ok := f.has[node.ID]
	f.mu.Unlock()
	if !ok {
		has = map[neon.TimelineID]neon.Lsn{{1}: 100}
	}
	return has, f.enter(ctx, node.ID, callWrote)
}

func (f *fleet) WaitLSN(
	ctx context.Context, node *fsm.Node, _ neon.ShardID, _ map[neon.TimelineID]neon.Lsn,
	_ time.Duration,
) (bool, error) {
	err := f.enter(ctx, node.ID, callWrote)
	return err == nil, err
}

func (f *fleet) NotifyAttach(ctx context.Context, body *neon.NotifyAttach) error {
	if err := f.enter(ctx, 0, 0); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notes++
	if f.hookErr != nil {
		return f.hookErr
	}
	if f.hookErrOf != nil {
		if err := f.hookErrOf(body.Tenant); err != nil {
			return err
		}
	}
	for _, s := range body.Shards {
		for _, id := range []neon.ShardID{
			{Tenant: body.Tenant, Number: s.Number, Count: neon.ShardCount(len(body.Shards))},
			neon.Unsharded(body.Tenant),
		} {
			f.notified[id] = s.Node
		}
	}
	return nil
}

func (f *fleet) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// bench is a log, a fleet and one leader after another.
type bench struct {
	t      *testing.T
	log    *fsmtest.Log
	fleet  *fleet
	opts   Options
	hook   outbox.Hook
	points failpoint.Points
	metric Metrics
	mu     sync.Mutex // guards now and denies
	now    *Reconciler
	stop   context.CancelFunc
	joined chan struct{}
	term   uint64

	watch *watch // nil: not looked at

	refuses func(fsm.Intent) bool // by the log; guarded by the lock of the fleet
	// denies lists the shards for which the log refuses a command, whatever the state says;
	// nil: none.
	denies func(fsm.Command) []neon.ShardID

	retell bool

	migrations Migrations // nil: those of the fleet
}

func newBench(t *testing.T, nodes int) *bench {
	b := &bench{t: t, log: fsmtest.NewLog(), opts: Options{
		HeartbeatInterval: time.Second, MaxOffline: 5 * time.Second, MaxWarmingUp: 20 * time.Second,
		SteadyAfter: 5 * time.Minute,
	}}
	pace := &fsmtest.Pace{Size: b.size}
	b.log.Proposing = func(c fsm.Command) {
		if err := pace.Note(c); err != nil {
			t.Error(err)
		}
	}
	b.fleet = newFleet(t, b.log)
	b.hook = b.fleet
	b.log.Subscribe(func(s *fsm.State, c fsm.Touched) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.now != nil {
			b.now.Changed(s, c)
		}
	})
	for i := 1; i <= nodes; i++ {
		b.must(fsm.RegisterNode{
			ID: neon.NodeID(i), Addr: fsm.NodeAddr{HTTPHost: "h", HTTPPort: uint16(i)},
			AZ: neon.MakeAZ(fmt.Sprintf("az-%d", i%3)),
		})
	}
	b.lead()
	b.awaitIdle()
	return b
}

// obstinate is the log of a bench, which denies what the bench wants it to.
type obstinate struct {
	stubborn
	b *bench
}

func (l obstinate) Propose(
	ctx context.Context, id fsm.RequestID, c fsm.Command,
) (fsm.Result, error) {
	l.b.mu.Lock()
	denies := l.b.denies
	l.b.mu.Unlock()
	if denies != nil {
		if denied := denies(c); len(denied) > 0 {
			l.Proposing(c)
			return fsm.Result{Refused: denied}, ctx.Err()
		}
	}
	return l.stubborn.Propose(ctx, id, c)
}

func (b *bench) deny(f func(fsm.Command) []neon.ShardID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.denies = f
}

// size is the number of things in the state.
func (b *bench) size() (n int) {
	st := b.log.State()
	for range st.Nodes() {
		n++
	}
	return n + st.TenantCount() + st.ShardCount()
}

func (b *bench) must(c fsm.Command) fsm.Result {
	b.t.Helper()
	return b.log.Must(b.t, c)
}

// lead starts a new leader, which knows nothing.
func (b *bench) lead() {
	ctx, cancel := context.WithCancel(context.Background())
	b.term++
	d := Deps{
		Log: obstinate{stubborn{b.log, b}, b}, Locations: b.fleet, Prober: b.fleet,
		Migrations: b.fleet, Sizes: b.fleet, Hook: b.hook, Failpoints: b.points, Options: b.opts,
		Logger: slog.New(slog.DiscardHandler),
	}
	if b.migrations != nil {
		d.Migrations = b.migrations
	}
	d.Retell = func() bool { return b.retell }
	if b.metric != nil {
		d.Metrics = b.metric
	}
	if b.watch != nil {
		d.Metrics, d.Failpoints, d.Logger = b.watch, b.watch, slog.New(slog.NewTextHandler(b.watch,
			nil))
	}
	r := New(d)
	b.mu.Lock()
	b.now = r
	b.mu.Unlock()
	b.stop, b.joined = cancel, make(chan struct{})
	go func() {
		defer close(b.joined)
		_ = r.Run(ctx, b.term)
	}()
}

func (b *bench) depose() {
	b.stop()
	<-b.joined
}

// awaitIdle waits, in virtual time, until nothing is left to do.
func (b *bench) awaitIdle() {
	b.t.Helper()
	for range 200 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		n, err := b.now.ReconcileAll(ctx)
		cancel()
		if err == nil && n == 0 && b.now.Ready() {
			return
		}
		wait.Sleep(context.Background(), time.Second)
	}
	b.depose()
	b.t.Fatal("it does not become idle")
}

func (b *bench) create(n int, count neon.ShardCount, policy neon.Placement) (ids []neon.TenantID) {
	for i := range n {
		id := neon.TenantID{0xaa, byte(i >> 8), byte(i), byte(count)}
		b.createAs(id, count, policy)
		ids = append(ids, id)
	}
	return ids
}

func (b *bench) createAs(id neon.TenantID, count neon.ShardCount, policy neon.Placement) {
	b.t.Helper()
	b.createBy(nil, id, count, policy)
}

// pin makes a tenant one that is not moved for its own good.
func (b *bench) pin(id neon.TenantID) {
	b.t.Helper()
	tenant, _ := b.log.State().Tenant(id)
	b.must(fsm.UpdateTenant{
		ID: id, Sequence: tenant.Sequence, Scheduling: new(neon.ShardEssential),
	})
}

// check demands that the pageservers are what the log says: everything attached
// once, in its newest generation, secondaries in place, nothing else anywhere,
// and compute informed.
func (b *bench) check() {
	b.t.Helper()
	st := b.log.State()
	if err := fsm.Check(st); err != nil {
		b.t.Error(err)
	}
	b.fleet.mu.Lock()
	defer b.fleet.mu.Unlock()
	for sh := range st.ShardsFrom(neon.ShardID{}) {
		for id := range b.fleet.at {
			c, there := b.fleet.at[id][sh.ID]
			switch {
			case b.fleet.down[id]:
			case id == sh.Attached:
				if c.Mode != neon.AttachedSingle || *c.Generation != sh.Generation {
					b.t.Errorf("%s is %v on node %d, not attached in %s", sh.ID, c.Mode, id,
						sh.Generation)
				}
			case sh.HasSecondary(id):
				if c.Mode != neon.Secondary {
					b.t.Errorf("%s is %q on node %d, not secondary", sh.ID, c.Mode, id)
				}
			case there:
				b.t.Errorf("%s is left on node %d as %v", sh.ID, id, c.Mode)
			}
		}
		if b.hook != nil && sh.Attached != 0 &&
			(b.fleet.notified[sh.ID] != sh.Attached || !sh.ComputeAcknowledged) {
			b.t.Errorf("%s: compute was told node %d, it is on %d", sh.ID, b.fleet.notified[sh.ID],
				sh.Attached)
		}
	}
}

func (b *bench) attachedOn(n neon.NodeID) int { return b.log.State().Counts(n).Attached }

func (b *bench) busiest() neon.NodeID {
	nodes := slices.Collect(maps.Keys(b.fleet.at))
	slices.Sort(nodes)
	return slices.MaxFunc(nodes,
		func(x, y neon.NodeID) int { return b.attachedOn(x) - b.attachedOn(y) })
}

// sightOf is what the present leader knows of a shard on a node.
func (b *bench) sightOf(id neon.ShardID, n neon.NodeID) plan.Sight {
	sc := &plan.Scene{Shard: fsm.Shard{ID: id, Attached: n}}
	b.now.current.Load().seen.Describe(sc, func(neon.NodeID, uint64) bool { return true })
	return sc.On(n)
}
