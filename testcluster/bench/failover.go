package bench

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"quorate/api/neon"
	"quorate/internal/results"
	"quorate/internal/wait"
	"quorate/testcluster"
)

// FailoverOptions say what Failover measures. A count of 0 leaves an event out.
type FailoverOptions struct {
	Options
	Report

	Kills, Freezes, Disks int // leaders killed with SIGKILL, frozen, given a hanging disk
	HandOvers, Stops      int // leaders asked to step down, stopped with SIGTERM
	Cuts, Links           int // leaders cut off from both others, from one of them
	Rate                  int // writes a second
	Heavy                 time.Duration
	HeavyClients          int
	RaftHeartbeat         time.Duration // 0: the controllers' default
	Tenants, TenantShards int
	Pageservers           int

	// PageserverFault is what one pageserver has all the time: dead, hanging or slow.
	// Empty: none.
	PageserverFault string
}

// The targets of a failover.
const (
	killMedian, killP99 = 80 * time.Millisecond, 700 * time.Millisecond
	frozenMedian        = 600 * time.Millisecond
	frozenMax           = 800 * time.Millisecond
	handOverP99         = 100 * time.Millisecond
)

const (
	// watchedBefore and watchedAfter are the time around an event in which the
	// longest gap is looked for.
	watchedBefore = 100 * time.Millisecond
	watchedAfter  = 2 * time.Second

	// controlWindow is the time before an event in which the longest gap is
	// measured for comparison.
	controlWindow = time.Second
	// silentWindow is that before an event that silences the leader: five seconds and one.
	silentWindow = 6 * time.Second

	// roundTimeout bounds one event with its recovery.
	roundTimeout = time.Minute
)

// event is one kind of trouble.
type event struct {
	name   string // of its results
	title  string // for people
	strike func(ctx context.Context, c *testcluster.Cluster, leader int) error
	heal   func(ctx context.Context, c *testcluster.Cluster, victim int) error
	count  int
}

// after is how long the leader leads before the event. One that has just begun to lead is left
// to raft's time-outs when it falls silent, which is not what an operator meets.
func (e event) after() time.Duration {
	if e.name == "freeze" || e.name == "cut" {
		return silentWindow
	}
	return controlWindow
}

// Failover measures how long writes wait when leaders go. An error other than ErrMissed is met
// when a write was lost or something could not be measured; what was measured before is
// returned too.
func Failover(ctx context.Context, o FailoverOptions) (*results.Run, error) {
	run := o.begin(&o.Options)
	if err := checkPageserverFault(o.PageserverFault); err != nil {
		return run, err
	}
	title := fmt.Sprintf(
		"Longest time without an acknowledged write, %d writes/s, 3 processes, fsync, one disk",
		o.Rate)
	if o.PageserverFault != "" {
		title += ", one pageserver " + o.PageserverFault
	}
	return run, o.suite(ctx, &o.Options, run, "failover", title,
		func(ctx context.Context, binary string) ([]results.Result, error) {
			one := o
			one.Controller = binary
			return one.all(ctx)
		})
}

// all has everything happen that is asked for.
func (o *FailoverOptions) all(ctx context.Context) (found []results.Result, err error) {
	for _, part := range []struct {
		wires  bool
		wanted int
		events func(context.Context, *testcluster.Cluster, *load) ([]results.Result, error)
	}{
		{false, o.Kills + o.Freezes + o.Disks + o.HandOvers + o.Stops, o.events},
		{true, o.Cuts + o.Links, o.cuts},
	} {
		if part.wanted == 0 {
			continue
		}
		more, err := o.with(ctx, part.wires,
			func(ctx context.Context, c *testcluster.Cluster) ([]results.Result, error) {
				return o.underLoad(ctx, c, part.events)
			})
		if found = append(found, more...); err != nil {
			return found, err
		}
	}
	if o.Heavy > 0 {
		more, err := o.with(ctx, false,
			func(ctx context.Context, c *testcluster.Cluster) ([]results.Result, error) {
				f, err := o.heavy(ctx, c)
				return []results.Result{f}, err
			})
		if found = append(found, more...); err != nil {
			return found, err
		}
	}
	if o.PageserverFault != "" {
		for i := range found {
			found[i] = found[i].With("pageserver", o.PageserverFault)
		}
	}
	return found, nil
}

// with measures on a cluster of its own, in which the links between the controllers can
// be cut if there are wires.
func (o *FailoverOptions) with(
	ctx context.Context, wires bool,
	measure func(context.Context, *testcluster.Cluster) ([]results.Result, error),
) ([]results.Result, error) {
	b := testcluster.Builder{
		DiskFaults: o.Disks > 0, Raft: raftTimeouts(o.RaftHeartbeat), Wires: wires,
	}
	policy := neon.Attached(0)
	if o.PageserverFault != "" {
		b.MaxOffline, policy = patience, neon.Attached(o.Pageservers-1)
	}
	c, err := o.start(ctx, fleet{pageservers: o.Pageservers, builder: b})
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Stop() }()
	if _, err := create(ctx, c, creation{
		tenants: o.Tenants, shards: o.TenantShards, clients: 16, policy: policy,
	}); err != nil {
		return nil, err
	}
	injectPageserverFault(c, o.PageserverFault)
	return measure(ctx, c)
}

// underLoad has things happen under one load and checks at the end that nothing that was
// acknowledged is missing.
func (o *FailoverOptions) underLoad(
	ctx context.Context, c *testcluster.Cluster,
	happen func(context.Context, *testcluster.Cluster, *load) ([]results.Result, error),
) ([]results.Result, error) {
	l := startLoad(ctx, c, o.Rate, o.Tenants)
	defer l.stop()
	found, err := happen(ctx, c, l)
	if err != nil {
		return nil, err
	}
	l.stop()
	o.record(l.series(c.Controllers()))
	return append(found, ledger(ctx, c, l)), nil
}

// events has leaders fail and go.
func (o *FailoverOptions) events(
	ctx context.Context, c *testcluster.Cluster, l *load,
) (found []results.Result, err error) {
	kill := event{
		"kill", "kill -9 of the leader", simple((*testcluster.Cluster).Kill), restart, o.Kills,
	}
	if c.Controllers() == 1 {
		kill.strike, kill.heal = killAlone, nothing
	}
	for _, g := range []struct {
		event
		judge func(results.Result) results.Result
	}{
		{kill, killed},
		{event{
			"freeze", "SIGSTOP of the leader", simple((*testcluster.Cluster).Pause),
			simple((*testcluster.Cluster).Resume), o.Freezes,
		}, frozen},
		{event{
			"disk", "hanging disk of the leader", simple((*testcluster.Cluster).HangDisk),
			simple((*testcluster.Cluster).HealDisk), o.Disks,
		}, frozen},
	} {
		more, err := o.gaps(ctx, c, l, g.event, g.judge)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	for _, e := range []event{
		{"step_down", "step_down", stepDown, nothing, o.HandOvers},
		{"stop", "SIGTERM of the leader", stop, restart, o.Stops},
	} {
		if e.count == 0 {
			continue
		}
		more, err := o.handOvers(ctx, c, l, e)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	return found, nil
}

// cuts has links between controllers fail. Clients and pageservers still reach them all.
func (o *FailoverOptions) cuts(
	ctx context.Context, c *testcluster.Cluster, l *load,
) ([]results.Result, error) {
	off := func(_ context.Context, c *testcluster.Cluster, i int) error {
		return c.Partition([]int{i}, []int{(i + 1) % 3, (i + 2) % 3})
	}
	heal := func(_ context.Context, c *testcluster.Cluster, _ int) error { return c.Heal() }
	link := func(_ context.Context, c *testcluster.Cluster, i int) error {
		return c.Cut(i, (i+1)%3)
	}
	found, err := o.gaps(ctx, c, l,
		event{"cut", "leader cut off from both others", off, heal, o.Cuts}, frozen)
	if err != nil {
		return nil, err
	}
	more, err := o.gaps(ctx, c, l,
		event{"link", "leader cut off from one other", link, heal, o.Links}, frozen)
	return append(found, more...), err
}

// gaps measures the longest gaps of one kind of event.
func (o *FailoverOptions) gaps(
	ctx context.Context, c *testcluster.Cluster, l *load, e event,
	judge func(results.Result) results.Result,
) ([]results.Result, error) {
	if e.count == 0 {
		return nil, nil
	}
	gaps, control, err := o.measure(ctx, c, l, e)
	if err != nil {
		return nil, err
	}
	return []results.Result{
		judge(results.Durations("gap."+e.name, e.title+": longest gap", gaps)),
		results.Durations("gap."+e.name+".before", "… in the second before it", control),
	}, nil
}

func killed(r results.Result) results.Result {
	return r.WantWithin(results.Median, killMedian).WantWithin(results.P99, killP99)
}

func restart(ctx context.Context, c *testcluster.Cluster, i int) error {
	return c.Restart(ctx, i)
}

func stepDown(ctx context.Context, c *testcluster.Cluster, i int) error {
	return c.ClientOf(i).Cluster().StepDown(ctx)
}

func stop(ctx context.Context, c *testcluster.Cluster, i int) error {
	return c.StopController(ctx, i)
}

func nothing(context.Context, *testcluster.Cluster, int) error { return nil }

func simple(
	f func(*testcluster.Cluster, int) error,
) func(context.Context, *testcluster.Cluster, int) error {
	return func(_ context.Context, c *testcluster.Cluster, i int) error { return f(c, i) }
}

func frozen(r results.Result) results.Result {
	return r.WantWithin(results.Median, frozenMedian).WantWithin(results.Max, frozenMax)
}

// ledger compares what was acknowledged with what each replica has.
func ledger(ctx context.Context, c *testcluster.Cluster, l *load) results.Result {
	acked, failed, skipped := l.totals()
	wrong := 0
	var first error
	for i := range c.Controllers() {
		if err := l.verify(ctx, c.ClientOf(i)); err != nil {
			wrong++
			first = cmp.Or(first, err)
		}
	}
	r := count("lost", "replicas without an acknowledged write", wrong).Want(results.Median, 0)
	if first != nil {
		r = r.Noting("%v", first)
	}
	return r.Noting("%d acknowledged, %d not, %d not sent", acked, failed, skipped)
}

// measure strikes again and again and returns the longest gap around each event,
// and the longest gap in a second before it.
func (o *FailoverOptions) measure(
	ctx context.Context, c *testcluster.Cluster, l *load, e event,
) (gaps, control durations, err error) {
	err = o.rounds(ctx, c, l, e, func(at time.Duration) {
		g, before := l.gap(at-watchedBefore, l.now()), l.gap(at-controlWindow, at)
		gaps, control = append(gaps, g), append(control, before)
		o.say("  %-28s %3d  %s (before: %s)", e.title, len(gaps), short(g), short(before))
	})
	return gaps, control, err
}

// handOvers measures the requests that were under way during planned changes of
// the leader.
func (o *FailoverOptions) handOvers(
	ctx context.Context, c *testcluster.Cluster, l *load, e event,
) ([]results.Result, error) {
	var took, gaps durations
	failed, repeated := 0, 0
	var first error
	err := o.rounds(ctx, c, l, e, func(at time.Duration) {
		gaps = append(gaps, l.gap(at-watchedBefore, l.now()))
		for _, r := range l.between(at, at+time.Second) {
			took = append(took, r.end-r.begin)
			if r.tries > 1 {
				repeated++
			}
			if r.err != nil {
				failed++
				first = r.err
			}
		}
	})
	if err != nil {
		return nil, err
	}
	bad := count("handover."+e.name+".failed", e.title+": requests that failed", failed).
		Want(results.Median, 0).Noting("%d were sent more than once by the client", repeated)
	if first != nil {
		bad = bad.Noting("such as: %v", first)
	}
	return []results.Result{
		results.Durations("handover."+e.name, e.title+": requests in the second after", took).
			WantWithin(results.P99, handOverP99),
		bad,
		results.Durations("gap."+e.name, e.title+": longest gap", gaps),
	}, nil
}

// rounds repeats an event: catch up, strike, watch, heal.
func (o *FailoverOptions) rounds(
	ctx context.Context, c *testcluster.Cluster, l *load, e event, look func(at time.Duration),
) error {
	for n := range e.count {
		if err := o.round(ctx, c, l, e, look); err != nil {
			return fmt.Errorf("%s, round %d: %w", e.name, n+1, err)
		}
	}
	return nil
}

func (o *FailoverOptions) round(
	ctx context.Context, c *testcluster.Cluster, l *load, e event, look func(at time.Duration),
) error {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	leader, err := caughtUp(ctx, c)
	if err != nil {
		return err
	}
	// Events must not always meet the same moment between two heartbeats.
	if err := wait.Sleep(ctx, e.after()+rand.N(200*time.Millisecond)); err != nil {
		return err
	}
	at := l.now()
	l.mark(at, e.title)
	if err := e.strike(ctx, c, leader); err != nil {
		return err
	}
	if err := await(ctx, "a write is acknowledged again",
		func() bool { return l.ackedSince(at) && l.now() >= at+watchedAfter }); err != nil {
		return err
	}
	look(at)
	return e.heal(ctx, c, leader)
}

// caughtUp waits until all replicas run, agree on a ready leader and have caught
// up.
func caughtUp(ctx context.Context, c *testcluster.Cluster) (leader int, err error) {
	err = await(ctx, "all replicas have caught up", func() bool {
		i, ok := c.Leader(ctx)
		if !ok || c.ClientOf(i).Cluster().Ready(ctx) != nil {
			return false
		}
		leader = i
		view, err := c.ClientOf(i).Cluster().Members(ctx)
		if err != nil || len(view.Members) != c.Controllers() {
			return false
		}
		for _, m := range view.Members {
			if m.Role == "learner" || m.Lag > 64 {
				return false
			}
		}
		for j := range c.Controllers() {
			other, err := c.ClientOf(j).Cluster().Members(ctx)
			if err != nil || other.Leader != view.Server {
				return false
			}
		}
		return true
	})
	return leader, err
}
