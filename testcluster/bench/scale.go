package bench

import (
	"context"
	"fmt"
	"time"

	"quorate/internal/wait"
	"quorate/testcluster"
)

// The targets at scale.
const (
	restartLimit  = 5 * time.Second
	bytesPerShard = 2048
	idleLimit     = 0.02 // of one core
)

// scaleTimeout bounds building one large cluster and measuring it.
const scaleTimeout = 15 * time.Minute

// scale measures restarts, memory and idling with so many shards. Pageservers are
// asked for signs of life as often as in production.
func (o *Options) scale(
	ctx context.Context, shards int, more BenchOptions,
) (figures []figure, err error) {
	ctx, cancel := context.WithTimeout(ctx, scaleTimeout)
	defer cancel()
	c, err := o.start(ctx, fleet{pageservers: more.Pageservers, builder: testcluster.Builder{
		HeartbeatInterval: 5 * time.Second, MaxOffline: 30 * time.Second,
	}})
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Stop() }()
	o.say("  seeding %d shards on %d pageservers", shards, more.Pageservers)
	if err := seed(ctx, c, shards); err != nil {
		return nil, err
	}
	label := fmt.Sprintf("%d shards: ", shards)
	memory, err := o.memory(ctx, c, shards, label+"after the pageservers re-attached")
	if err != nil {
		return nil, err
	}
	restarts, err := o.restarts(ctx, c, more.Restarts, label)
	if err != nil {
		return nil, err
	}
	if _, err := caughtUp(ctx, c); err != nil {
		return nil, err
	}
	idle, err := o.idle(ctx, c, more.Idle, label)
	if err != nil {
		return nil, err
	}
	rested, err := o.memory(ctx, c, shards, label+"idle")
	if err != nil {
		return nil, err
	}
	return append(append(append(restarts, memory...), idle...), rested...), nil
}

// restarts kills all and starts all, again and again: until a leader
// has looked at all pageservers and the others have caught up. It also kills one
// leader at a time.
func (o *Options) restarts(
	ctx context.Context, c *testcluster.Cluster, n int, label string,
) ([]figure, error) {
	var all, one durations
	for range n {
		for i := range c.Controllers() {
			if err := c.Kill(i); err != nil {
				return nil, err
			}
		}
		began := time.Now()
		if err := startControllers(ctx, c); err != nil {
			return nil, err
		}
		if err := allReady(ctx, c); err != nil {
			return nil, err
		}
		all = append(all, time.Since(began))
		o.say("  %sall restarted: ready after %s", label, short(all[len(all)-1]))
	}
	for range n {
		leader, err := caughtUp(ctx, c)
		if err != nil {
			return nil, err
		}
		began := time.Now()
		if err := c.Kill(leader); err != nil {
			return nil, err
		}
		if _, err := c.WaitLeader(ctx); err != nil {
			return nil, err
		}
		one = append(one, time.Since(began))
		o.say("  %sleader killed: successor ready after %s", label, short(one[len(one)-1]))
		if err := c.Restart(ctx, leader); err != nil {
			return nil, err
		}
	}
	return []figure{
		spread(label+"restart of all replicas until all are ready", all).
			want("≤ "+restartLimit.String(), all.quantile(1) <= restartLimit),
		spread(label+"kill of the leader until its successor is ready", one),
	}, nil
}

func allReady(ctx context.Context, c *testcluster.Cluster) error {
	if _, err := c.WaitLeader(ctx); err != nil {
		return err
	}
	return await(ctx, "all replicas are ready", func() bool {
		for i := range c.Controllers() {
			if c.ClientOf(i).Cluster().Ready(ctx) != nil {
				return false
			}
		}
		return true
	})
}

// memory is what the processes occupy, the leader and the largest follower.
func (o *Options) memory(
	ctx context.Context, c *testcluster.Cluster, shards int, label string,
) ([]figure, error) {
	leader, err := caughtUp(ctx, c)
	if err != nil {
		return nil, err
	}
	var leads, follows int64
	for i := range c.Controllers() {
		rss, err := resident(c.PID(i))
		if err != nil {
			return nil, err
		}
		if i == leader {
			leads = rss
		} else {
			follows = max(follows, rss)
		}
	}
	o.say("  %s: %d MiB resident in the leader, %d MiB in a follower", label, leads>>20,
		follows>>20)
	row := func(who string, rss int64) figure {
		each := rss / int64(shards)
		f := single(fmt.Sprintf("%s: resident memory of %s per shard", label, who),
			fmt.Sprintf("%d B", each))
		return f.want(fmt.Sprintf("≤ %d B", bytesPerShard), each <= bytesPerShard).noting("%d MiB",
			rss>>20)
	}
	return []figure{row("the leader", leads), row("a follower", follows)}, nil
}

// idle measures what the processes use of a core when no client asks for anything.
func (o *Options) idle(
	ctx context.Context, c *testcluster.Cluster, d time.Duration, label string,
) ([]figure, error) {
	leader, err := c.WaitLeader(ctx)
	if err != nil {
		return nil, err
	}
	// What the measuring left behind, such as garbage, is not idling.
	if err := wait.Sleep(ctx, 10*time.Second); err != nil {
		return nil, err
	}
	o.say("  %sidling for %s", label, d)
	share, err := usage(ctx, c, d)
	if err != nil {
		return nil, err
	}
	var followers float64
	for i, s := range share {
		if i != leader {
			followers = max(followers, s)
		}
	}
	row := func(who string, share float64) figure {
		f := single(fmt.Sprintf("%sidle %s", label, who), fmt.Sprintf("%.2f %%", share*100))
		return f.want(fmt.Sprintf("< %.0f %% of a core", idleLimit*100), share < idleLimit)
	}
	return []figure{row("leader", share[leader]), row("follower", followers)}, nil
}

// usage is the share of one core that each controller uses over a while.
func usage(ctx context.Context, c *testcluster.Cluster, d time.Duration) ([]float64, error) {
	read := func() ([]time.Duration, error) {
		used := make([]time.Duration, c.Controllers())
		for i := range used {
			var err error
			if used[i], err = cpuTime(c.PID(i)); err != nil {
				return nil, err
			}
		}
		return used, nil
	}
	began := time.Now()
	before, err := read()
	if err != nil {
		return nil, err
	}
	if err := wait.Sleep(ctx, d); err != nil {
		return nil, err
	}
	after, err := read()
	if err != nil {
		return nil, err
	}
	share := make([]float64, len(before))
	for i := range share {
		share[i] = (after[i] - before[i]).Seconds() / time.Since(began).Seconds()
	}
	return share, nil
}
