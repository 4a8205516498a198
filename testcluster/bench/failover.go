package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"quorate/api/neon"
	"quorate/internal/wait"
	"quorate/testcluster"
)

// FailoverOptions say what Failover measures. A count of 0 leaves an event out.
type FailoverOptions struct {
	Options

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
	frozenP99           = 1500 * time.Millisecond
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

	// roundTimeout bounds one event with its recovery.
	roundTimeout = time.Minute
)

// event is one kind of trouble.
type event struct {
	name   string
	strike func(ctx context.Context, c *testcluster.Cluster, leader int) error
	heal   func(ctx context.Context, c *testcluster.Cluster, victim int) error
	count  int
}

// Failover prints how long writes wait when leaders go. It returns ErrMissed when
// a target was missed, and another error when a write was lost or something could
// not be measured.
func Failover(ctx context.Context, o FailoverOptions) error {
	o.say("%s", machine())
	if err := checkPageserverFault(o.PageserverFault); err != nil {
		return err
	}
	var figures []figure
	for _, part := range []struct {
		wires  bool
		wanted int
		events func(context.Context, *testcluster.Cluster, *load) ([]figure, error)
	}{
		{false, o.Kills + o.Freezes + o.Disks + o.HandOvers + o.Stops, o.events},
		{true, o.Cuts + o.Links, o.cuts},
	} {
		if part.wanted == 0 {
			continue
		}
		found, err := o.with(ctx, part.wires,
			func(ctx context.Context, c *testcluster.Cluster) ([]figure, error) {
				return o.underLoad(ctx, c, part.events)
			})
		if err != nil {
			return err
		}
		figures = append(figures, found...)
	}
	if o.Heavy > 0 {
		found, err := o.with(ctx, false,
			func(ctx context.Context, c *testcluster.Cluster) ([]figure, error) {
				f, err := o.heavy(ctx, c)
				return []figure{f}, err
			})
		if err != nil {
			return err
		}
		figures = append(figures, found...)
	}
	title := fmt.Sprintf(
		"Longest time without an acknowledged write, %d writes/s, 3 processes, fsync, one disk",
		o.Rate)
	if o.PageserverFault != "" {
		title += ", one pageserver " + o.PageserverFault
	}
	if report(o.Out, title, figures) > 0 {
		return ErrMissed
	}
	return nil
}

// with measures on a cluster of its own, in which the links between the controllers can
// be cut if there are wires.
func (o *FailoverOptions) with(
	ctx context.Context, wires bool,
	measure func(context.Context, *testcluster.Cluster) ([]figure, error),
) ([]figure, error) {
	b := testcluster.Builder{
		DiskFaults: true, Raft: raftTimeouts(o.RaftHeartbeat), Wires: wires,
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
	happen func(context.Context, *testcluster.Cluster, *load) ([]figure, error),
) ([]figure, error) {
	l := startLoad(ctx, c, o.Rate, o.Tenants)
	defer l.stop()
	figures, err := happen(ctx, c, l)
	if err != nil {
		return nil, err
	}
	l.stop()
	return append(figures, ledger(ctx, c, l)), nil
}

// events has leaders fail and go.
func (o *FailoverOptions) events(
	ctx context.Context, c *testcluster.Cluster, l *load,
) (figures []figure, err error) {
	for _, g := range []struct {
		event
		judge func(figure, durations) figure
	}{
		{event{"kill -9 of the leader", simple((*testcluster.Cluster).Kill), restart, o.Kills},
			killed},
		{event{
			"SIGSTOP of the leader", simple((*testcluster.Cluster).Pause),
			simple((*testcluster.Cluster).Resume), o.Freezes,
		}, frozen},
		{event{
			"hanging disk of the leader", simple((*testcluster.Cluster).HangDisk),
			simple((*testcluster.Cluster).HealDisk), o.Disks,
		}, frozen},
	} {
		found, err := o.gaps(ctx, c, l, g.event, g.judge)
		if err != nil {
			return nil, err
		}
		figures = append(figures, found...)
	}
	for _, e := range []event{
		{"step_down", stepDown, nothing, o.HandOvers},
		{"SIGTERM of the leader", stop, restart, o.Stops},
	} {
		if e.count == 0 {
			continue
		}
		found, err := o.handOvers(ctx, c, l, e)
		if err != nil {
			return nil, err
		}
		figures = append(figures, found...)
	}
	return figures, nil
}

// cuts has links between controllers fail. Clients and pageservers still reach them all.
func (o *FailoverOptions) cuts(
	ctx context.Context, c *testcluster.Cluster, l *load,
) ([]figure, error) {
	off := func(_ context.Context, c *testcluster.Cluster, i int) error {
		return c.Partition([]int{i}, []int{(i + 1) % 3, (i + 2) % 3})
	}
	heal := func(_ context.Context, c *testcluster.Cluster, _ int) error { return c.Heal() }
	link := func(_ context.Context, c *testcluster.Cluster, i int) error {
		return c.Cut(i, (i+1)%3)
	}
	figures, err := o.gaps(ctx, c, l, event{"leader cut off from both others", off, heal, o.Cuts},
		frozen)
	if err != nil {
		return nil, err
	}
	more, err := o.gaps(ctx, c, l, event{"leader cut off from one other", link, heal, o.Links},
		frozen)
	return append(figures, more...), err
}

// gaps measures the longest gaps of one kind of event.
func (o *FailoverOptions) gaps(
	ctx context.Context, c *testcluster.Cluster, l *load, e event,
	judge func(figure, durations) figure,
) ([]figure, error) {
	if e.count == 0 {
		return nil, nil
	}
	gaps, control, err := o.measure(ctx, c, l, e)
	if err != nil {
		return nil, err
	}
	return []figure{judge(spread(e.name, gaps), gaps).noting(
		"without the event %s, at most %s", short(control.median()), short(control.quantile(1)))}, nil
}

func killed(f figure, d durations) figure {
	return f.want(fmt.Sprintf("median ≤ %s, p99 ≤ %s", killMedian, killP99),
		d.median() <= killMedian && d.quantile(0.99) <= killP99)
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

func frozen(f figure, d durations) figure {
	return f.want(fmt.Sprintf("p99 ≤ %s", frozenP99), d.quantile(0.99) <= frozenP99)
}

// ledger compares what was acknowledged with what each replica has.
func ledger(ctx context.Context, c *testcluster.Cluster, l *load) figure {
	acked, failed, skipped := l.totals()
	f := single("acknowledged writes that are missing", "0")
	for i := range c.Controllers() {
		if err := l.verify(ctx, c.ClientOf(i)); err != nil {
			f.median, f.missed = err.Error(), true
		}
	}
	return f.want("0", true).noting("%d acknowledged, %d not, %d not sent", acked, failed, skipped)
}

// measure strikes again and again and returns the longest gap around each event,
// and the longest gap in a second before it.
func (o *FailoverOptions) measure(
	ctx context.Context, c *testcluster.Cluster, l *load, e event,
) (gaps, control durations, err error) {
	err = o.rounds(ctx, c, l, e, func(at time.Duration) {
		g, before := l.gap(at-watchedBefore, l.now()), l.gap(at-controlWindow, at)
		gaps, control = append(gaps, g), append(control, before)
		o.say("  %-28s %3d  %s (before: %s)", e.name, len(gaps), short(g), short(before))
	})
	return gaps, control, err
}

// handOvers measures the requests that were under way during planned changes of
// the leader.
func (o *FailoverOptions) handOvers(
	ctx context.Context, c *testcluster.Cluster, l *load, e event,
) ([]figure, error) {
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
	bad := single(e.name+": requests that failed", fmt.Sprint(failed)).want("0", failed == 0)
	bad = bad.noting("%d were sent more than once by the client", repeated)
	if first != nil {
		bad = bad.noting("such as: %v", first)
	}
	return []figure{
		spread(e.name+": requests in the second after", took).want(fmt.Sprintf("p99 ≤ %s",
			handOverP99), took.quantile(0.99) <= handOverP99),
		bad,
		spread(e.name+": longest gap", gaps),
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
	if err := wait.Sleep(ctx, controlWindow+rand.N(200*time.Millisecond)); err != nil {
		return err
	}
	at := l.now()
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
