package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"quorate/api/neon"
	"quorate/internal/wait"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

// A small cluster that nobody asks for anything, and that starts again: once with three
// controllers and once with one.
const (
	quietTenants     = 2500 // of 4 shards
	quietPageservers = 10
	quietSettle      = 20 * time.Second // until garbage and late work of the start are gone

	readyLimit  = 250 * time.Millisecond
	readLimit   = 200 * time.Millisecond
	gapLimit    = 250 * time.Millisecond // one controller, killed and started at once
	createLimit = 300 * time.Millisecond // beside a pageserver that is dead
	restartRate = 200                    // writes a second around a kill
)

// quiet are the goals by the number of controllers.
var quiet = map[int]struct {
	share    float64 // of one core, all processes
	resident int64   // bytes, all processes; 0: no goal
}{
	1: {share: 0.002},
	3: {share: 0.008, resident: 90 << 20},
}

// quietPart measures idling, resident memory and restarts of a small cluster.
func quietPart(ctx context.Context, o *BenchOptions) (figures []figure, err error) {
	for _, n := range o.controllers() {
		found, err := o.quiet(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("%d controllers: %w", n, err)
		}
		figures = append(figures, found...)
	}
	return figures, nil
}

// quiet measures one cluster.
func (o *BenchOptions) quiet(ctx context.Context, controllers int) (figures []figure, err error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	c, err := o.start(ctx, fleet{pageservers: quietPageservers, builder: testcluster.Builder{
		Controllers: controllers, HeartbeatInterval: 5 * time.Second, MaxOffline: 30 * time.Second,
	}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	if _, err := create(ctx, c, creation{
		tenants: quietTenants, shards: 4, clients: 32, policy: neon.Attached(0),
	}); err != nil {
		return nil, err
	}
	label := fmt.Sprintf("%d controllers: ", controllers)
	if controllers == 1 {
		label = "one controller: "
	}
	for _, part := range []func(context.Context, *testcluster.Cluster, string) ([]figure, error){
		o.rest, o.restartsOfLeader, o.restartsBesideDead,
	} {
		found, err := part(ctx, c, label)
		if err != nil {
			return nil, err
		}
		figures = append(figures, found...)
	}
	return figures, nil
}

// rest measures what the processes use while nobody asks for anything.
func (o *BenchOptions) rest(
	ctx context.Context, c *testcluster.Cluster, label string,
) ([]figure, error) {
	if err := wait.Sleep(ctx, quietSettle); err != nil {
		return nil, err
	}
	o.say("  %sidling for %s", label, o.Idle)
	before, began := wakeUps(c), time.Now()
	share, err := usage(ctx, c, o.Idle)
	if err != nil {
		return nil, err
	}
	woken := float64(wakeUps(c)-before) / time.Since(began).Seconds()
	all, rss := 0.0, int64(0)
	each, sizes := make([]string, len(share)), make([]string, len(share))
	for i, s := range share {
		all += s
		r, err := resident(c.PID(i))
		if err != nil {
			return nil, err
		}
		rss += r
		each[i], sizes[i] = fmt.Sprintf("%.2f %%", s*100), fmt.Sprintf("%d MB", r/1e6)
	}
	goal := quiet[c.Controllers()]
	f := single(label+"idle, of one core, all processes", fmt.Sprintf("%.2f %%", all*100)).
		want(fmt.Sprintf("≤ %.1f %%", goal.share*100), all <= goal.share).
		noting("%s; %.0f wake-ups a second", strings.Join(each, ", "), woken)
	m := single(label+"resident, all processes", fmt.Sprintf("%d MB", rss/1e6)).
		noting("%s", strings.Join(sizes, ", "))
	if goal.resident > 0 {
		m = m.want(fmt.Sprintf("≤ %d MB", goal.resident/1e6), rss <= goal.resident)
	}
	return []figure{f, m}, nil
}

// wakeUps is how often threads of the controllers were woken up so far.
func wakeUps(c *testcluster.Cluster) (n int64) {
	for i := range c.Controllers() {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", c.PID(i)))
		for _, file := range tasks {
			b, _ := os.ReadFile(file) // a thread that has ended counts no more
			_, rest, _ := strings.Cut(string(b), "\nvoluntary_ctxt_switches:")
			count, _, _ := strings.Cut(rest, "\n")
			v, _ := strconv.ParseInt(strings.TrimSpace(count), 10, 64)
			n += v
		}
	}
	return n
}

// restartsOfLeader kills the leader and starts it again at once, again and again, under load
// and without.
func (o *BenchOptions) restartsOfLeader(
	ctx context.Context, c *testcluster.Cluster, label string,
) ([]figure, error) {
	var ready, read, gaps durations
	for range max(1, o.Restarts) {
		leader, err := caughtUp(ctx, c)
		if err != nil {
			return nil, err
		}
		if err := wait.Sleep(ctx, controlWindow); err != nil {
			return nil, err
		}
		s, err := again(ctx, c, leader)
		if err != nil {
			return nil, err
		}
		ready, read = append(ready, s.ready), append(read, s.read)
	}
	figures := []figure{
		spread(label+"restart of the leader until it is ready", ready).
			want("≤ "+readyLimit.String(), ready.quantile(1) <= readyLimit),
		spread("… until its first read", read).
			want("≤ "+readLimit.String(), read.quantile(1) <= readLimit),
	}
	if c.Controllers() > 1 {
		return figures, nil // the failover measurements have more of it
	}
	l := startLoad(ctx, c, restartRate, quietTenants)
	defer l.stop()
	for range max(1, o.Restarts) {
		if err := wait.Sleep(ctx, controlWindow); err != nil {
			return nil, err
		}
		at := l.now()
		if _, err := again(ctx, c, 0); err != nil {
			return nil, err
		}
		if err := await(ctx, "a write is acknowledged again",
			func() bool { return l.ackedSince(at) && l.now() >= at+watchedAfter }); err != nil {
			return nil, err
		}
		gaps = append(gaps, l.gap(at-watchedBefore, l.now()))
	}
	l.stop()
	return append(figures, spread(label+"kill -9, started at once: longest write gap", gaps).
		want("≤ "+gapLimit.String(), gaps.quantile(1) <= gapLimit), ledger(ctx, c, l)), nil
}

// started is how long after its start a controller could do something.
type started struct{ ready, read time.Duration }

// again kills a controller and starts it at once.
func again(ctx context.Context, c *testcluster.Cluster, i int) (s started, err error) {
	if err := c.Kill(i); err != nil {
		return s, err
	}
	began := time.Now()
	if err := c.Restart(ctx, i); err != nil {
		return s, err
	}
	err = await(ctx, "the controller is ready and has answered a read", func() bool {
		if _, err := c.ClientOf(i).Tenants().Locate(ctx, tenantID(1)); s.read == 0 && err == nil {
			s.read = time.Since(began)
		}
		if s.ready == 0 && c.ClientOf(i).Cluster().Ready(ctx) == nil {
			s.ready = time.Since(began)
		}
		return s.read > 0 && s.ready > 0
	})
	return s, err
}

// restartsBesideDead kills one pageserver and all controllers, and starts the controllers.
func (o *BenchOptions) restartsBesideDead(
	ctx context.Context, c *testcluster.Cluster, label string,
) (figures []figure, err error) {
	next := quietTenants
	n := c.Fleet().Node(faulty)
	nothing := func() error { return nil }
	hangs := func(faults ...simpageserver.Fault) func() error {
		return func() error { n.SetFaults(faults...); return nil }
	}
	for _, kind := range []struct {
		name         string
		begin, after func() error
	}{
		{"none", nothing, nothing},
		{"one that hangs", hangs(simpageserver.Fault{Kind: simpageserver.FaultHang}), hangs()},
		{
			"one that refuses",
			func() error { n.Kill(); return nil },
			func() error { return errors.Join(n.Start(ctx), n.WaitReady(ctx)) },
		},
	} {
		var took durations
		for range max(1, o.Restarts) {
			if _, err := caughtUp(ctx, c); err != nil {
				return nil, err
			}
			if err := errors.Join(kind.begin(), killAll(c)); err != nil {
				return nil, err
			}
			began := time.Now()
			if err := startControllers(ctx, c); err != nil {
				return nil, err
			}
			next++
			if _, err := c.Client().Tenants().Create(ctx,
				createRequest(next, 4, neon.Attached(0))); err != nil {
				return nil, err
			}
			took = append(took, time.Since(began))
			if err := errors.Join(kind.after(), c.WaitNodes(ctx)); err != nil {
				return nil, err
			}
		}
		figures = append(figures, spread(fmt.Sprintf(
			"%srestart of all until a tenant is created, dead pageservers: %s", label, kind.name),
			took).want("≤ "+createLimit.String(), took.quantile(1) <= createLimit))
	}
	return figures, nil
}

func killAll(c *testcluster.Cluster) (err error) {
	for i := range c.Controllers() {
		err = errors.Join(err, c.Kill(i))
	}
	return err
}

// controllers are the sizes of the clusters to measure.
func (o *BenchOptions) controllers() []int {
	if o.Controllers > 0 {
		return []int{o.Controllers}
	}
	return []int{3, 1}
}
