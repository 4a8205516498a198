package testcluster_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/fsm/fsmtest"
	"quorate/reconciler"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

var (
	simHours = flag.Float64("sim.hours", 0.05, "virtual hours that TestSimulation runs")
	simSeed  = flag.Uint64("sim.seed", 1,
		"seed of the first episode of TestSimulation; the next ones count up")
	simObstacle = flag.Int("sim.obstacle", -1,
		"what refuses for good in each round: 0 to 3, as in episode.obstruct; -1: drawn")
)

const (
	// An episode is one cluster in one bubble. It consists of rounds: faults and
	// work for a while, then peace and a full check.
	episodeTime = 30 * time.Minute
	roundTime   = 4 * time.Minute

	// convergeLimit bounds the time from the end of all faults until everything is
	// as it should be. What a late call has changed is found by the listing that
	// happens every minute.
	convergeLimit = 5 * time.Minute

	// slowConvergence is when what is missing is logged.
	slowConvergence = time.Minute
)

// TestSimulation runs whole clusters in virtual time under random work and random
// faults, one episode after another, each from a seed that is printed.
func TestSimulation(t *testing.T) {
	left := time.Duration(*simHours * float64(time.Hour))
	var total tally
	began := time.Now()
	for seed := *simSeed; left > 0; seed++ {
		length := min(left, episodeTime)
		left -= length
		ok := t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			real := time.Now()
			var done tally
			synctest.Test(t, func(t *testing.T) { done = runEpisode(t, seed, length) })
			total.add(done)
			t.Logf("seed %d: %s virtual in %s: %s", seed, done.virtual.Round(time.Second),
				time.Since(real).Round(time.Millisecond), done)
		})
		if !ok {
			break
		}
	}
	total.met.demandMet(t.Errorf)
	t.Logf("%.1f virtual hours in %s: %s", total.virtual.Hours(),
		time.Since(began).Round(time.Second), total)
}

// tally is what happened in a simulation.
type tally struct {
	virtual                 time.Duration
	acknowledged, failed    int // requests
	repeated, refused       int // long after they were acknowledged; refused the second time
	faults, rounds, late    int
	spoils                  int // of states
	reads                   int
	orders                  int           // long operations begun or cancelled
	obstacles               int           // that refused for good
	slowest                 time.Duration // from the end of the faults until all was well
	longest                 time.Duration // until what was begun beside an obstacle had ended
	deaths, silences        int           // beside pageservers that hang, before decisions
	slowestFailOver         time.Duration // from a verdict, beside pageservers that hang
	notifications, location uint64
	moves, returns          int // that nobody has asked for, and back again
	met                     metStrains
}

func (t *tally) add(o tally) {
	t.virtual += o.virtual
	t.acknowledged += o.acknowledged
	t.failed += o.failed
	t.repeated += o.repeated
	t.refused += o.refused
	t.faults += o.faults
	t.spoils += o.spoils
	t.rounds += o.rounds
	t.late += o.late
	t.reads += o.reads
	t.orders += o.orders
	t.obstacles += o.obstacles
	t.notifications += o.notifications
	t.location += o.location
	t.slowest = max(t.slowest, o.slowest)
	t.longest = max(t.longest, o.longest)
	t.deaths += o.deaths
	t.moves += o.moves
	t.returns += o.returns
	for i, n := range o.met {
		t.met[i] += n
	}
	t.silences += o.silences
	t.slowestFailOver = max(t.slowestFailOver, o.slowestFailOver)
}

func (t tally) String() string {
	return fmt.Sprintf("%d requests acknowledged, %d failed, %d repeated late and %d of them refused, %d orders about nodes, %d checked reads, %d faults, %d of them spoiled states, %d rounds, %d location changes, %d late effects, %d notifications, %d things that refused for good, longest end beside one %s, %d deaths beside nodes that hang, slowest failover there %s, %d silences, %d voluntary moves, %d of them back%s, slowest convergence %s",
		t.acknowledged, t.failed, t.repeated, t.refused, t.orders, t.reads, t.faults, t.spoils,
		t.rounds, t.location, t.late, t.notifications, t.obstacles,
		t.longest.Round(time.Millisecond),
		t.deaths, t.slowestFailOver.Round(time.Millisecond), t.silences,
		t.moves, t.returns, t.met,
		t.slowest.Round(time.Millisecond))
}

// episode is one cluster under work and faults.
type episode struct {
	*testing.T
	*testcluster.Cluster
	seed      uint64
	rng       *rand.Rand // of the episode's own goroutine
	workers   []*worker
	behaviour simpageserver.Behaviour

	heartbeat, maxOffline time.Duration // of pageservers
	rehome                time.Duration // until a secondary is given up with its node

	mu       sync.Mutex
	tally    tally
	tenants  []*simTenant        // living ones, of all workers
	suspects map[neon.NodeID]int // pageservers that the controllers may take for dead
	// pageservers whose deletion was ordered, and what to do at its end
	deleted map[neon.NodeID]func()
	spoilt  time.Time // when the state of a controller was last spoiled

	// whole has a place while the controllers are neither divided nor must not be. A
	// mutex would hold up the virtual time.
	whole chan struct{}

	next int // number of the next tenant and timeline

	pace    fsmtest.Pace
	servers int // pageservers and safekeepers

	shaped [len(metStrains{})]bool // strains for which the cluster is prepared
	disks  map[neon.NodeID]uint64  // sizes that are not the usual one
	zones  int                     // of pageservers
	ingest int64                   // growth of timelines, bytes a second
	moves  *moves
	trap   trap

	// pageservers that died in a lopsided fleet, and what to do when they are back
	unsettled map[neon.NodeID]func()
	fell      falls
}

func runEpisode(t *testing.T, seed uint64, length time.Duration) tally {
	rng := rand.New(rand.NewPCG(seed, 0x51b))
	e := &episode{
		T: t, seed: seed, rng: rng, suspects: make(map[neon.NodeID]int),
		deleted: make(map[neon.NodeID]func()), whole: make(chan struct{}, 1),
		unsettled: make(map[neon.NodeID]func()), fell: make(falls),
	}
	e.pace.Size = e.things
	b := e.describe()
	e.moves = newMoves(func(what string) { e.Errorf("seed %d: %s", seed, what) })
	b.Foreseen = e.moves.foreseen
	b.Proposing, b.Calling, e.servers = e.proposing, e.calling, b.Pageservers+b.Safekeepers
	e.heartbeat, e.maxOffline = b.HeartbeatInterval, b.MaxOffline
	t.Logf("seed %d: %d controllers, %d pageservers in %d zones, %d safekeepers, heartbeats every %s, offline after %s, snapshots every %d entries",
		seed, b.Controllers, b.Pageservers, b.Zones, b.Safekeepers, b.HeartbeatInterval,
		b.MaxOffline, b.Snapshots.Every)
	e.Cluster = testcluster.Run(t, b)
	e.behave(nil)
	began := time.Now()
	for i := range uint64(4) {
		e.workers = append(e.workers, &worker{episode: e, rng: rand.New(rand.NewPCG(seed, i))})
	}
	e.strainFirst()
	for !t.Failed() && time.Since(began) < length {
		e.round(min(roundTime, length-time.Since(began)))
		e.tally.rounds++
	}
	e.tally.virtual = time.Since(began)
	e.tally.late = e.Oracle().Late()
	e.tally.moves, e.tally.returns = e.moves.counts()
	e.tally.location = e.Fleet().Changes()
	e.tally.notifications = e.Hook().Count()
	return e.tally
}

// describe draws the cluster of a seed.
func (e *episode) describe() testcluster.Builder {
	b := testcluster.Builder{
		Mode: testcluster.Virtual, Controllers: 3, Hook: true, Seed: e.seed,
		Pageservers: 3 + e.rng.IntN(4), Zones: 1 + e.rng.IntN(3),
		HeartbeatInterval: time.Second, MaxOffline: 5 * time.Second, Splits: simSplits(),
	}
	switch e.rng.IntN(8) {
	case 0:
		b.Controllers = 1
	case 1:
		b.Controllers = 5
	}
	if e.rng.IntN(3) == 0 {
		b.HeartbeatInterval, b.MaxOffline = 5*time.Second, 30*time.Second
	}
	if e.rng.IntN(2) == 0 {
		e.behaviour = simpageserver.Behaviour{
			SlotBusy: e.upTo(50 * time.Millisecond), Activation: e.upTo(time.Second),
			ActivationJitter: e.upTo(time.Second),
			DownloadRate:     1 << 20, ReplayRate: 1 << 16, HeatmapDelay: time.Second,
			DeleteTimeline: e.upTo(2 * time.Second),
			SplitStage:     e.upTo(2 * time.Second),
			Takes:          e.slowCalls(),
		}
	}
	if e.rng.IntN(2) == 0 {
		b.Snapshots = testcluster.Snapshots{Every: 64, Trailing: 32}
	}
	if e.rng.IntN(3) > 0 {
		b.Maintenance = 5*time.Second + e.upTo(20*time.Second)
	}
	e.behaviour.Offload, e.behaviour.ArchivalStep, e.behaviour.ImportTime = e.rng.IntN(
		3) > 0, e.upTo(200*time.Millisecond), e.upTo(20*time.Second)
	b.Behaviour = e.behaviour
	few, steady := false, e.steadyAfter()
	e.rehome = time.Minute + e.upTo(10*time.Minute)
	b.Tune = func(o *reconciler.Options) {
		o.MaxWarmingUp = 30 * time.Second // the default is as long as the time to converge
		o.RehomeSecondary, o.SteadyAfter = e.rehome, steady
		switch {
		case e.shapedFor(7):
			manyCalls(o)
		case few:
			fewWorkers(o)
		}
	}
	if e.rng.IntN(3) > 0 {
		b.Safekeepers = 3 + e.rng.IntN(3)
	}
	few = e.rng.IntN(2) == 0
	e.shape(&b)
	return b
}

// steadyAfter is when a pageserver that fell is counted on again: often so soon that only what
// is known of its calls keeps shards away from one that is not well.
func (e *episode) steadyAfter() time.Duration {
	rng := rand.New(rand.NewPCG(e.seed, 0x57ead)) // whatever else is drawn stays as it is
	if rng.IntN(3) == 0 {
		return 5 * time.Minute
	}
	return time.Second + time.Duration(rng.Int64N(int64(5*time.Minute)))>>rng.IntN(6)
}

func (e *episode) upTo(d time.Duration) time.Duration {
	return 1 + time.Duration(e.rng.Int64N(int64(d)))
}

// round lets work and faults go on for a while, then ends the faults and demands
// that everything becomes as it should be.
func (e *episode) round(length time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), length)
	defer cancel()
	var wg sync.WaitGroup
	for _, w := range e.workers {
		wg.Go(func() { w.work(ctx) })
	}
	reader := &worker{episode: e, rng: rand.New(rand.NewPCG(e.seed, 1<<32|uint64(e.tally.rounds)))}
	wg.Go(func() { reader.ask(ctx) })
	var trouble sync.WaitGroup
	for i, f := range []func(*nemesis, context.Context){
		(*nemesis).controllers, (*nemesis).network, (*nemesis).pageservers, (*nemesis).hook,
		(*nemesis).safekeepers,
	} {
		n := &nemesis{
			episode: e, rng: rand.New(rand.NewPCG(e.seed<<8|uint64(i), uint64(e.tally.rounds))),
		}
		trouble.Go(func() { f(n, ctx) })
	}
	<-ctx.Done()
	trouble.Wait()
	e.endFaults(e.stayDead())
	wg.Wait()
	if *simStrain < 0 {
		e.live()
	}
	e.strain()
	for _, n := range append(e.Fleet().Nodes(), nil) {
		if n != nil && n.Running() {
			continue
		}
		e.demandPeace() // first with the dead one, then with all
		if n == nil || e.Failed() {
			break
		}
		if err := n.Start(context.Background()); err != nil {
			e.Errorf("seed %d: %v", e.seed, err)
		}
	}
	if e.Failed() {
		e.explain()
	}
}

// stayDead picks a pageserver that stays dead when the faults end: its shards have
// to move. Now and then there is none.
func (e *episode) stayDead() neon.NodeID {
	if e.rng.IntN(3) == 0 {
		return 0
	}
	nodes := e.Fleet().Nodes()
	return nodes[e.rng.IntN(len(nodes))].ID()
}

func (e *episode) demandPeace() {
	began := time.Now()
	if err := e.converge(); err != nil {
		e.Errorf("seed %d, round %d: not as it should be %s after the end of all faults: %v",
			e.seed, e.tally.rounds, time.Since(began), err)
		e.explainShards(err)
		e.stacks()
	}
	e.checkCrossed()
	e.tally.slowest = max(e.tally.slowest, time.Since(began))
}

// endFaults ends all faults but the death of one pageserver.
func (e *episode) endFaults(dead neon.NodeID) {
	ctx, cancel := context.WithTimeout(context.Background(), convergeLimit)
	defer cancel()
	errs := []error{e.Heal()}
	for i := range e.Controllers() {
		errs = append(errs, e.CutOff(i), e.Resume(i), e.HealDisk(i))
		if !e.Running(i) {
			errs = append(errs, e.Restart(ctx, i))
		}
	}
	e.Hook().SetFaults()
	errs = append(errs, e.endSafekeeperFaults())
	for _, n := range e.Fleet().Nodes() {
		n.SetFaults()
		n.Resume()
		n.SetBehaviour(e.behaviourOf(n.ID()))
		if n.ID() == dead {
			n.Kill()
			continue
		}
		if !n.Running() {
			errs = append(errs, n.Start(ctx))
		}
	}
	if err := errors.Join(errs...); err != nil {
		e.Errorf("seed %d: end the faults: %v", e.seed, err)
	}
}

// converge waits until everything is as it should be.
func (e *episode) converge() error {
	ctx, cancel := context.WithTimeout(context.Background(), convergeLimit)
	defer cancel()
	e.restorePolicies(ctx)
	began := time.Now()
	for {
		try, done := context.WithTimeout(ctx, slowConvergence)
		err := e.atRest(try)
		done()
		if err == nil {
			return nil
		}
		if time.Since(began) > slowConvergence {
			began = time.Now()
			e.Logf("seed %d, round %d: slow, after %s: %v", e.seed, e.tally.rounds, slowConvergence,
				err)
		}
		if o := e.Oracle().Err(); o != nil || e.Failed() {
			return errors.Join(o, err) // waiting does not help
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return err
		}
	}
}

func (e *episode) atRest(ctx context.Context) error {
	if err := e.WaitNodes(ctx); err != nil {
		return err
	}
	if err := e.WaitQuiescent(ctx); err != nil {
		return err
	}
	if err := checkEverything(ctx, e.Cluster); err != nil {
		return err
	}
	return checkBelief(ctx, e.Cluster)
}

// restorePolicies undoes what keeps shards from being scheduled.
func (e *episode) restorePolicies(ctx context.Context) {
	e.endOperations(ctx)
	e.finishSafekeeperMoves(ctx)
	e.tame(ctx)
	var nodes []neon.NodeDescribe
	e.persist(ctx, "list the pageservers",
		func(ctx context.Context, c *testcluster.Client) (err error) {
			nodes, err = c.Nodes().List(ctx)
			return err
		})
	for _, n := range nodes {
		e.persist(ctx, "activate a pageserver's scheduling",
			func(ctx context.Context, c *testcluster.Client) error {
				return c.Nodes().Configure(ctx,
					neon.NodeConfigure{ID: n.ID, Scheduling: ptr(neon.SchedulingActive)})
			})
	}
	for _, t := range e.tenants {
		if !t.paused {
			continue
		}
		t.paused = false
		e.persist(ctx, "activate a tenant's scheduling",
			func(ctx context.Context, c *testcluster.Client) error {
				return c.Tenants().SetPolicy(ctx, t.id,
					neon.PolicyRequest{Scheduling: ptr(neon.ShardActive)})
			})
	}
	e.dropHalves(ctx)
}

// persist repeats something until it succeeds. A tenant may be gone, and a change
// that cannot be followed for want of pageservers is made all the same.
func (e *episode) persist(
	ctx context.Context, what string, f func(context.Context, *testcluster.Client) error,
) {
	for {
		err := f(ctx, e.Client().WithTryTimeout(answerTimeout))
		if status := client.StatusOf(err); err == nil || status == http.StatusNotFound ||
			status == http.StatusConflict {
			return
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			e.Errorf("seed %d: %s: %v", e.seed, what, err)
			e.stacks()
			return
		}
	}
}

// slowCalls are calls that go on when a leader dies, and meet its successor.
func (e *episode) slowCalls() map[simpageserver.Route]time.Duration {
	// Of some large tenants it is long, so that much can happen meanwhile.
	large := time.Second
	if e.rng.IntN(3) == 0 {
		large = 20 * time.Second
	}
	return map[simpageserver.Route]time.Duration{
		simpageserver.RouteTimelineCreate: e.upTo(time.Second),
		simpageserver.RouteTimelineDelete: e.upTo(time.Second),
		simpageserver.RouteArchival:       e.upTo(time.Second),
		simpageserver.RouteTenantDelete:   e.upTo(large),
		simpageserver.RouteTimeTravel:     e.upTo(2 * large),
		simpageserver.RouteActivateImport: e.upTo(time.Second),
	}
}
