package bench

import (
	"context"
	"errors"
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
	b := testcluster.Builder{DiskFaults: true, Raft: raftTimeouts(o.RaftHeartbeat)}
	policy := neon.Attached(0)
	if o.PageserverFault != "" {
		b.MaxOffline, policy = patience, neon.Attached(o.Pageservers-1)
	}
	c, err := o.start(ctx, fleet{pageservers: o.Pageservers, builder: b})
	if err != nil {
		return err
	}
	defer func() { _ = c.Stop() }()
	if _, err := create(ctx, c, creation{
		tenants: o.Tenants, shards: o.TenantShards, clients: 16, policy: policy,
	}); err != nil {
		return err
	}
	injectPageserverFault(c, o.PageserverFault)
	figures, err := o.events(ctx, c)
	if err != nil {
		return err
	}
	if o.Heavy > 0 {
		f, err := o.heavy(ctx, c)
		if err != nil {
			return err
		}
		figures = append(figures, f)
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

// events runs all rounds under one load and checks at the end that nothing that
// was acknowledged is missing.
func (o *FailoverOptions) events(
	ctx context.Context, c *testcluster.Cluster,
) (figures []figure, err error) {
	l := startLoad(ctx, c, o.Rate, o.Tenants)
	defer l.stop()
	gap := func(e event, judge func(figure, durations) figure) error {
		if e.count == 0 {
			return nil
		}
		gaps, control, err := o.measure(ctx, c, l, e)
		if err != nil {
			return err
		}
		figures = append(figures, judge(spread(e.name, gaps), gaps).noting(
			"without the event %s, at most %s", short(control.median()),
			short(control.quantile(1))))
		return nil
	}
	err = errors.Join(
		gap(event{"kill -9 of the leader", simple((*testcluster.Cluster).Kill), restart, o.Kills},
			func(f figure, d durations) figure {
				return f.want(fmt.Sprintf("median ≤ %s, p99 ≤ %s", killMedian, killP99),
					d.median() <= killMedian && d.quantile(0.99) <= killP99)
			}),
		gap(event{
			"SIGSTOP of the leader", simple((*testcluster.Cluster).Pause),
			simple((*testcluster.Cluster).Resume), o.Freezes,
		}, frozen),
		gap(event{
			"hanging disk of the leader", simple((*testcluster.Cluster).HangDisk),
			simple((*testcluster.Cluster).HealDisk), o.Disks,
		}, frozen),
	)
	if err != nil {
		return nil, err
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
	l.stop()
	return append(figures, ledger(ctx, c, l)), nil
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
