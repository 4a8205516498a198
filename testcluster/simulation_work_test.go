package testcluster_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/testcluster"
)

const (
	answerTimeout = 10 * time.Second // with one answer
	opLimit       = 2 * time.Minute  // for one request and all its retries
	think         = 3 * time.Second  // the mean pause between two requests of a worker
	mostOwned     = 5                // tenants of one worker
)

// simTenant is what its worker knows of one tenant. Only the worker changes it.
type simTenant struct {
	id        neon.TenantID
	shards    []neon.ShardID // under the episode's mutex
	want      int            // shards that a split is to lead to; 0: none is under way
	large     bool           // and it need not be asked for
	timelines []neon.TimelineID
	half      []neon.TimelineID   // whose creation was given up: some shards may have them
	configs   []neon.TenantConfig // any of these may be in force
	edges     []edge              // between timelines
	crossed   []neon.TimelineID   // created and deleted at the same time, both acknowledged
	located   map[neon.TimelineID]located
	paused    bool
}

// worker sends one request after another. Each owns the tenants that it created,
// so that it knows what it must find.
type worker struct {
	*episode
	rng  *rand.Rand
	mine []*simTenant
	wild []*wild
	past []past

	doomed []neon.TenantID // wild tenants whose deletion may not have begun
}

// work goes on until ctx ends; a request under way is finished.
func (w *worker) work(ctx context.Context) {
	for {
		pause := time.Duration(w.rng.ExpFloat64() * float64(think))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		w.one()
	}
}

// one sends one random request.
func (w *worker) one() {
	ctx, cancel := context.WithTimeout(w.trace(context.Background()), opLimit)
	defer cancel()
	c := w.ClientFrom(w.rng.IntN(w.Controllers())).WithTryTimeout(answerTimeout)
	if w.rng.IntN(12) == 0 {
		w.repeat(ctx, c)
		return
	}
	if len(w.mine) == 0 {
		w.create(ctx, c)
		return
	}
	t := w.mine[w.rng.IntN(len(w.mine))]
	switch w.rng.IntN(44) {
	case 41:
		w.recreate(ctx, t)
	case 42:
		w.cross(ctx, t)
	case 43:
		w.travel(ctx, c, t)
	case 20, 21:
		w.archive(ctx, c, t)
	case 22:
		w.importTimeline(ctx, c, t)
	case 0, 1:
		w.create(ctx, c)
	case 2:
		w.delete(ctx, c, t)
	case 3, 4, 5:
		w.putConfig(ctx, c, t)
	case 6, 7, 8:
		w.readConfig(ctx, t)
	case 9, 10:
		w.changePolicy(ctx, c, t)
	case 11, 12, 13:
		w.migrate(ctx, c)
	case 14, 15:
		w.createTimeline(ctx, c, t)
	case 16:
		w.deleteTimeline(ctx, c, t)
	case 17:
		w.schedule(ctx, c)
	case 18, 19:
		w.operate(ctx, c)
	case 23, 24:
		w.split(ctx, c, t)
	case 25, 26, 27:
		w.toWild(ctx, c)
	case 28, 29, 30:
		w.moveSafekeepers(ctx, c, t)
	case 31, 32, 33:
		w.write(t)
	case 34:
		if tl, ok := w.anyTimeline(t); ok {
			w.locateSafekeepers(ctx, t, tl, nil)
		}
	case 35:
		w.scheduleSafekeeper(ctx, c)
	case 36:
		w.patchConfig(ctx, c, t)
	case 37:
		w.advise(ctx, c, t)
	case 38:
		w.timelineCall(ctx, c, t)
	case 39:
		w.detach(ctx, c, t)
	case 40:
		w.chooseTooLarge(ctx, c)
	}
}

// count notes the outcome of a request and reports whether it was acknowledged.
func (w *worker) count(err error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.tally.acknowledged++
	} else {
		w.tally.failed++
	}
	return err == nil
}

func (w *worker) number() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	return w.next
}

func (w *worker) create(ctx context.Context, c *testcluster.Client) {
	if len(w.mine) >= mostOwned {
		return
	}
	w.createAs(ctx, c, idOf(w.number()))
}

// createAs creates a tenant under an id.
func (w *worker) createAs(ctx context.Context, c *testcluster.Client, id neon.TenantID) {
	count := []int{0, 1, 2, 4}[w.rng.IntN(4)]
	p := neon.Attached(w.rng.IntN(2))
	t := &simTenant{id: id, located: make(map[neon.TimelineID]located)}
	req := neon.TenantCreateRequest{
		Tenant: neon.ShardID{Tenant: t.id}, Placement: &p, Generation: w.firstGeneration(),
	}
	if count > 0 {
		req.ShardParameters = &neon.ShardParameters{
			Count: neon.ShardCount(count), StripeSize: neon.DefaultStripeSize,
		}
	}
	if !w.named(ctx, c, func(ctx context.Context, c *testcluster.Client) error {
		_, err := c.Tenants().Create(ctx, req)
		return err
	}) {
		return // it is not known whether it is there; it is not touched again
	}
	t.shards = neon.ShardIDs(t.id, neon.ShardCount(count))
	t.configs = []neon.TenantConfig{{}}
	w.mine = append(w.mine, t)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tenants = append(w.tenants, t)
}

func (w *worker) forget(t *simTenant) {
	same := func(o *simTenant) bool { return o == t }
	w.mine = slices.DeleteFunc(w.mine, same)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tenants = slices.DeleteFunc(w.tenants, same)
}

func (w *worker) delete(ctx context.Context, c *testcluster.Client, t *simTenant) {
	w.forget(t)
	w.Oracle().Deleting(t.id)
	w.count(c.Tenants().Delete(ctx, t.id))
}

func (w *worker) putConfig(ctx context.Context, c *testcluster.Client, t *simTenant) {
	next := conf(fmt.Sprintf(`{"gc_horizon":%d}`, w.number()))
	t.configs = append(t.configs, next)
	if w.named(ctx, c, func(ctx context.Context, c *testcluster.Client) error {
		return c.Tenants().PutConfig(ctx, t.id, next)
	}) {
		t.configs = []neon.TenantConfig{next}
	}
}

// readConfig reads through any one replica and demands what was acknowledged last.
func (w *worker) readConfig(ctx context.Context, t *simTenant) {
	i := w.rng.IntN(w.Controllers())
	have, err := w.ClientOf(i).WithTryTimeout(answerTimeout).Tenants().Config(ctx, t.id)
	if err != nil {
		if client.StatusOf(err) == http.StatusNotFound {
			w.Errorf("seed %d: controller %d does not know tenant %s", w.seed, i, t.id)
		}
		return
	}
	w.read()
	if !slices.Contains(t.configs, have) {
		w.Errorf("seed %d: controller %d read the configuration %s of tenant %s, possible are %v",
			w.seed, i, have.JSON(), t.id, t.configs)
	}
}

func (w *worker) read() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tally.reads++
}

func (w *worker) changePolicy(ctx context.Context, c *testcluster.Client, t *simTenant) {
	var req neon.PolicyRequest
	switch w.rng.IntN(6) {
	case 0:
		req.Scheduling = ptr(neon.ShardPause)
		t.paused = true
	case 1:
		req.Scheduling = ptr(neon.ShardEssential)
		t.paused = true
	case 2:
		req.Placement = ptr(neon.Placement{Kind: neon.PlaceSecondary})
		w.Oracle().PutAway(t.id)
	default:
		req.Placement = ptr(neon.Attached(w.rng.IntN(3)))
	}
	if w.count(c.Tenants().SetPolicy(ctx, t.id, req)) && req.Placement != nil &&
		req.Placement.Kind == neon.PlaceAttached {
		w.Oracle().Serving(t.id)
	}
}

// any is a tenant of whichever worker.
func (w *worker) any() *simTenant {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.tenants) == 0 {
		return nil
	}
	return w.tenants[w.rng.IntN(len(w.tenants))]
}

func (w *worker) migrate(ctx context.Context, c *testcluster.Client) {
	t := w.any()
	if t == nil {
		return
	}
	nodes := w.Fleet().Nodes()
	shards := w.shardsOf(t)
	w.count(c.Shards().Migrate(ctx, shards[w.rng.IntN(len(shards))], neon.MigrateRequest{
		Node: nodes[w.rng.IntN(len(nodes))].ID(),
		Config: neon.MigrationConfig{
			OverrideScheduler: w.rng.IntN(4) > 0, Prewarm: w.rng.IntN(2) == 0,
		},
	}))
}

func (w *worker) createTimeline(ctx context.Context, c *testcluster.Client, t *simTenant) {
	if t.want != 0 {
		return // it is not known for which shards it would be acknowledged
	}
	id := timelineOf(w.number())
	req := neon.TimelineCreateRequest{
		Timeline: id, Bootstrap: &neon.TimelineBootstrap{PgVersion: ptr(neon.PgVersion(16))},
	}
	if len(t.timelines) > 0 && w.rng.IntN(2) == 0 {
		req.Bootstrap = nil
		req.Branch = &neon.TimelineBranch{
			Ancestor: t.timelines[w.rng.IntN(len(t.timelines))], PgVersion: ptr(neon.PgVersion(16)),
		}
	}
	if !w.named(ctx, c, func(ctx context.Context, c *testcluster.Client) error {
		_, err := c.Timelines().Create(ctx, t.id, req)
		return err
	}) {
		t.half = append(t.half, id)
		return
	}
	w.Fleet().Durable(id, t.shards...)
	t.timelines = append(t.timelines, id)
	if req.Branch != nil {
		t.edges = append(t.edges, edge{child: id, parent: req.Branch.Ancestor})
	}
}

// dropHalves deletes what is left of creations that were given up: nobody but who
// asked for a timeline sees to it that it gets onto all of its safekeepers.
func (e *episode) dropHalves(ctx context.Context) {
	for _, t := range e.tenants {
		for n := len(t.half); n > 0; n = len(t.half) {
			e.persist(ctx, "delete what is left of a creation",
				func(ctx context.Context, c *testcluster.Client) error {
					return c.Timelines().Delete(ctx, t.id, t.half[n-1])
				})
			t.half = t.half[:n-1]
		}
	}
}

// deleteTimeline deletes the newest timeline that has no branches: what is left of
// creations that were given up goes before, or some shards would refuse for ever.
func (w *worker) deleteTimeline(ctx context.Context, c *testcluster.Client, t *simTenant) {
	for n := len(t.half); n > 0; n = len(t.half) {
		if !w.count(c.Timelines().Delete(ctx, t.id, t.half[n-1])) {
			return
		}
		t.half = t.half[:n-1]
	}
	id, ok := t.leaf()
	if !ok {
		return
	}
	l := t.located[id]
	l.dying = true
	t.located[id] = l
	w.Fleet().Removing(id, t.id)
	if w.count(c.Timelines().Delete(ctx, t.id, id)) {
		t.removed(id)
		w.Fleet().Removed(id, t.id)
	}
}

// questions is the mean pause between two questions of a reader.
const questions = 2 * time.Second

// ask puts questions to random replicas until ctx ends.
func (w *worker) ask(ctx context.Context) {
	for {
		select {
		case <-time.After(time.Duration(w.rng.ExpFloat64() * float64(questions))):
		case <-ctx.Done():
			return
		}
		w.validate()
		w.askForTheSpoiled()
	}
}

// validate asks any one replica which generations are valid, and demands answers
// that were right at some moment of the call.
func (w *worker) validate() {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	var ask neon.ValidateRequest
	before := make(map[neon.ShardID]neon.Generation)
	w.mu.Lock()
	for _, t := range w.tenants {
		for _, shard := range t.shards {
			if f, known := w.Oracle().Shard(shard); known && f.Committed > 1 {
				before[shard] = f.Committed
				ask.Tenants = append(ask.Tenants,
					neon.ValidateTenant{Shard: shard, Gen: f.Committed},
					neon.ValidateTenant{Shard: shard, Gen: f.Committed - 1})
			}
		}
	}
	w.mu.Unlock()
	i := w.rng.IntN(w.Controllers())
	answer, err := w.ClientOf(i).Upcalls().Validate(ctx, ask)
	if err != nil || len(answer.Tenants) != len(ask.Tenants) {
		return // no answer, or one of them was deleted meanwhile
	}
	w.read()
	for k, got := range answer.Tenants {
		asked, was := ask.Tenants[k], before[got.Shard]
		now, _ := w.Oracle().Shard(got.Shard)
		switch {
		case got.Valid && asked.Gen < was:
			w.Errorf(
				"seed %d: controller %d says that generation %d of shard %s is valid, %d was committed before the question",
				w.seed, i, asked.Gen, got.Shard, was)
		case !got.Valid && asked.Gen == was && now.Committed == was:
			w.Errorf(
				"seed %d: controller %d says that generation %d of shard %s is not valid, it was all the time",
				w.seed, i, asked.Gen, got.Shard)
		}
	}
}

// schedule keeps a pageserver from getting more shards, or lets it have them.
func (w *worker) schedule(ctx context.Context, c *testcluster.Client) {
	nodes := w.Fleet().Nodes()
	to := neon.SchedulingActive
	if w.rng.IntN(3) == 0 {
		to = neon.SchedulingPause
	}
	w.count(c.Nodes().Configure(ctx,
		neon.NodeConfigure{ID: nodes[w.rng.IntN(len(nodes))].ID(), Scheduling: &to}))
}
