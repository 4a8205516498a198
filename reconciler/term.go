package reconciler

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/wait"
	"quorate/reconciler/observed"
	"quorate/reconciler/outbox"
	"quorate/reconciler/plan"
	"quorate/reconciler/queue"
)

// term is everything one leader remembers. It builds the parts, runs them and joins
// them. It is made when the term begins and thrown away with it; nothing of it is
// carried into the next.
//
// Each part has its own state and lock, and knows only what it is given here.
type term struct {
	ctx    context.Context
	log    decide.Log
	logger *slog.Logger
	ready  chan struct{} // closed after the first look at the nodes

	seen     *observed.Locations
	nodes    *nodeWatch
	queue    *shardQueue
	outbox   *outbox.Outbox
	scenes   *scenes
	strays   *strays
	unplaced *unplaced
	wait     *waiters
	report   *report
	alarms   *alarms
	limits   *warmLimits
	answers  *answers
	calls    *calls

	feed       *feed
	rules      *rules
	optimiser  *optimiser
	sizes      *sizes
	operations *operations
	chaos      *chaos
}

func newTerm(ctx context.Context, d Deps) *term {
	t := &term{
		ctx: ctx, log: d.Log, logger: d.Logger, ready: make(chan struct{}),
		seen: observed.New(), unplaced: newUnplaced(), wait: newWaiters(), report: newReport(),
		alarms: newAlarms(ctx, d), limits: newWarmLimits(d.Options),
	}
	t.strays = newStrays(ctx, d.Log)
	t.nodes = newNodeWatch(ctx, d, t.seen, t.strays, t.report)
	t.scenes = &scenes{
		log: d.Log, seen: t.seen, nodes: t.nodes, strays: t.strays, surveyed: t.ready,
		notifies: d.Hook != nil, vanished: d.Options.Vanished,
	}
	t.answers = t.nodes.answers
	t.outbox = outbox.New(ctx, outbox.Deps{
		Log: d.Log, Observed: t.seen, Hook: d.Hook, Calls: d.Options.HookCalls,
		Listener: &unnotified{
			log: d.Log, scenes: t.scenes, wait: t.wait, report: t.report, metrics: d.Metrics,
			logger: d.Logger,
		},
	})
	t.addWorkers(d)
	t.addLoops(d)
	return t
}

// addWorkers makes the queue and who works on what is in it.
func (t *term) addWorkers(d Deps) {
	o := d.Options
	w := &worker{
		ctx: t.ctx, opts: o, log: d.Log, failpoints: d.Failpoints, metrics: d.Metrics,
		logger: d.Logger, scenes: t.scenes, seen: t.seen, strays: t.strays, outbox: t.outbox,
		wait: t.wait, report: t.report, alarms: t.alarms, limits: t.limits,
		ended: func(id neon.ShardID) { t.operations.ended(id) },
	}
	t.queue = queue.New(queue.Limits{
		High: o.HighWorkers, Normal: o.NormalWorkers, Failover: o.FailoverWorkers,
		Slow: o.SlowWorkers, PerNode: o.PerNode,
	}, w.turn)
	w.queue, t.nodes.queue, t.strays.queue = t.queue, t.queue, t.queue
	t.answers.throttle = t.queue.Throttle
	w.calls = &calls{
		ctx: t.ctx, opts: o, log: d.Log, locations: d.Locations, seen: t.seen, queue: t.queue,
		nodes: t.nodes, answers: t.answers,
	}
	t.calls = w.calls
	w.mover = &mover{
		ctx: t.ctx, opts: o, log: d.Log, migrations: d.Migrations, logger: d.Logger, seen: t.seen,
		limits: t.limits, loads: t.nodes.loads,
	}
}

// addLoops makes the parts that run by themselves.
func (t *term) addLoops(d Deps) {
	committer := newCommitter(t.ctx, d)
	commit := committer.commit
	t.feed = &feed{
		log: d.Log, seen: t.seen, strays: t.strays, queue: t.queue, unplaced: t.unplaced,
		nodes: t.nodes, answers: t.answers, report: t.report, metrics: d.Metrics,
		signal: wait.NewSignal(),
	}
	t.rules = &rules{
		ctx: t.ctx, opts: d.Options, log: d.Log, failpoints: d.Failpoints, logger: d.Logger,
		nodes: t.nodes, unplaced: t.unplaced, propose: committer.propose, commit: commit,
		notifies: d.Hook != nil,
	}
	t.sizes = &sizes{
		ctx: t.ctx, opts: d.Options, log: d.Log, asker: d.Sizes, logger: d.Logger,
		told: make(map[neon.NodeID]sizeList), toldAt: make(map[neon.NodeID]time.Time),
		ready: t.ready,
	}
	t.optimiser = &optimiser{
		ctx: t.ctx, opts: d.Options, log: d.Log, metrics: d.Metrics, logger: d.Logger,
		queue: t.queue, loads: t.nodes.loads, commit: commit, notifies: d.Hook != nil,
		begun: make(map[neon.ShardID]struct{}), left: make(map[neon.ShardID][]departure),
		sizes: t.sizes.known,
	}
	t.operations = &operations{
		ctx: t.ctx, opts: d.Options, log: d.Log, failpoints: d.Failpoints, logger: d.Logger,
		seen: t.seen, queue: t.queue, scenes: t.scenes, outbox: t.outbox, loads: t.nodes.loads,
		commit: commit, wake: wait.NewSignal(), running: make(map[neon.NodeID]*operation),
		crowd:   crowd{opts: d.Options, slots: t.queue.Slots},
		status:  make(map[neon.NodeID]decide.OperationStatus),
		awaited: make(map[neon.ShardID]struct{}),
	}
	t.feed.operations = t.operations.wake
	t.nodes.unsettled = &unsettled{
		log: d.Log, queue: t.queue, scenes: t.scenes, wait: t.wait, report: t.report,
		limits: t.limits, operations: t.operations,
	}
	t.chaos = &chaos{
		ctx: t.ctx, opts: d.Options.Chaos, log: d.Log, logger: d.Logger, loads: t.nodes.loads,
		commit: commit,
	}
}

// run works until the term's context ends and joins all it started.
func (t *term) run(repeat bool) {
	t.nodes.changed()
	var wg sync.WaitGroup
	for _, loop := range []func(){
		func() { t.feed.run(t.ctx) }, t.nodes.run, t.rules.run, t.operations.run, t.optimiser.run,
		t.chaos.run, t.strays.run, t.sizes.run,
	} {
		wg.Go(loop)
	}
	if repeat {
		wg.Go(t.repeatNotifications)
	}
	t.survey()
	wg.Go(func() {
		t.nodes.firstRound()
		close(t.ready)
		t.queue.Wake(queue.Normal, t.seen.CuttingOver()...)
	})
	<-t.ctx.Done()
	wg.Wait()
	t.queue.Close()
	t.outbox.Close()
	t.alarms.endAll()
	t.wait.fail(neon.Errorf(neon.Unavailable, "leadership ended: %w", context.Cause(t.ctx)))
}

// repeatNotifications tells compute everything again, once the nodes were looked at.
func (t *term) repeatNotifications() {
	select {
	case <-t.ready:
		t.outbox.RepeatAll()
	case <-t.ctx.Done():
	}
}

// survey looks once over all shards at the beginning of a term. A shard whose newest
// generation was issued to another node than the intended one has work to do,
// whatever the nodes' listings will say; the others wait for the listings.
func (t *term) survey() {
	st := t.log.State()
	t.logger.Info("Populating tenant shards' states from initial pageserver scan...",
		"shards", st.ShardCount())
	for sh := range st.ShardsFrom(neon.ShardID{}) {
		t.unplaced.note(st, &sh)
		if sh.Attached != 0 && sh.GenNode != sh.Attached {
			t.queue.Wake(queue.Normal, sh.ID)
		}
	}
}

// orders is how many operations on nodes and splits are being worked on.
func (t *term) orders() int {
	st := t.log.State()
	return operating(st) + unfinishedSplits(st)
}

// wakeDirty makes every shard that is not as it should be be looked at, and counts
// them.
func (t *term) wakeDirty() (dirty int) {
	st := t.log.State()
	for sh := range st.ShardsFrom(neon.ShardID{}) {
		sc, ok := t.scenes.of(st, sh.ID)
		if !ok {
			continue
		}
		if step := plan.Next(sc); step.Kind != plan.Done && step.Kind != plan.Blocked {
			dirty++
			t.queue.Wake(queue.Normal, sh.ID)
		}
	}
	return dirty
}

// failedSince is the error for those who wait for everything to be in order.
func (t *term) failedSince(mark uint64, times int) error {
	if id, err := t.report.failedSince(mark, times); err != nil {
		return reconcileError(id, err)
	}
	return nil
}

// unfinishedSplits counts the splits that have work left.
func unfinishedSplits(st *fsm.State) (n int) {
	for sp := range st.Splits() {
		if sp.Active() || leftoversReachable(st, sp) {
			n++
		}
	}
	return n
}
