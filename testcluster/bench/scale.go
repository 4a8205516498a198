package bench

import (
	"context"
	"strconv"
	"time"

	"quorate/internal/results"
	"quorate/internal/wait"
	"quorate/testcluster"
)

// The targets at scale.
const (
	restartLimit  = 5 * time.Second
	bytesPerShard = 2048
	idleLimit     = 2 // percent of one core
)

// scaleTimeout bounds building one large cluster and measuring it.
const scaleTimeout = 15 * time.Minute

// scale measures restarts, memory and idling with so many shards. Pageservers are
// asked for signs of life as often as in production.
func scale(ctx context.Context, o *BenchOptions) (found []results.Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, scaleTimeout)
	defer cancel()
	c, err := o.start(ctx, fleet{pageservers: o.Pageservers, builder: atLeisure()})
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Stop() }()
	o.say("  seeding %d shards on %d pageservers", o.Shards, o.Pageservers)
	if err := seed(ctx, c, o.Shards); err != nil {
		return nil, err
	}
	memory, err := o.memory(ctx, c, "memory.reattached", "after the pageservers re-attached")
	if err != nil {
		return nil, err
	}
	restarts, err := o.restarts(ctx, c)
	if err != nil {
		return nil, err
	}
	if _, err := caughtUp(ctx, c); err != nil {
		return nil, err
	}
	idle, err := o.idle(ctx, c)
	if err != nil {
		return nil, err
	}
	rested, err := o.memory(ctx, c, "memory.idle", "idle")
	if err != nil {
		return nil, err
	}
	found = append(append(append(restarts, memory...), idle...), rested...)
	for i := range found {
		found[i] = found[i].With("shards", strconv.Itoa(o.Shards))
	}
	return found, nil
}

// atLeisure has pageservers looked at as often as in production.
func atLeisure() testcluster.Builder {
	return testcluster.Builder{HeartbeatInterval: 5 * time.Second, MaxOffline: 30 * time.Second}
}

// restarts kills all and starts all, again and again: until a leader
// has looked at all pageservers and the others have caught up. It also kills one
// leader at a time.
func (o *BenchOptions) restarts(
	ctx context.Context, c *testcluster.Cluster,
) ([]results.Result, error) {
	var all, one durations
	for range o.Restarts {
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
		o.say("  all restarted: ready after %s", short(all[len(all)-1]))
	}
	for range o.Restarts {
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
		o.say("  leader killed: successor ready after %s", short(one[len(one)-1]))
		if err := c.Restart(ctx, leader); err != nil {
			return nil, err
		}
	}
	return []results.Result{
		results.Durations("restart.all", "restart of all replicas until all are ready", all).
			WantWithin(results.Max, restartLimit),
		results.Durations("kill.successor", "kill of the leader until its successor is ready", one),
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
func (o *BenchOptions) memory(
	ctx context.Context, c *testcluster.Cluster, name, when string,
) ([]results.Result, error) {
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
	o.say("  %s: %d MiB resident in the leader, %d MiB in a follower", when, leads>>20,
		follows>>20)
	row := func(who string, rss int64) results.Result {
		return results.Values(name+"."+who, when+": resident memory of the "+who+" per shard",
			results.Bytes, results.Less, float64(rss)/float64(o.Shards)).
			Want(results.Median, bytesPerShard).Noting("%d MiB", rss>>20)
	}
	return []results.Result{row("leader", leads), row("follower", follows)}, nil
}

// idle measures what the processes use of a core when no client asks for anything.
func (o *BenchOptions) idle(
	ctx context.Context, c *testcluster.Cluster,
) ([]results.Result, error) {
	leader, err := c.WaitLeader(ctx)
	if err != nil {
		return nil, err
	}
	// What the measuring left behind, such as garbage, is not idling.
	if err := wait.Sleep(ctx, 10*time.Second); err != nil {
		return nil, err
	}
	o.say("  idling for %s", o.Idle)
	woken, began := wakeUps(c), time.Now()
	share, err := usage(ctx, c, o.Idle)
	if err != nil {
		return nil, err
	}
	perSecond := float64(wakeUps(c)-woken) / time.Since(began).Seconds()
	var followers, all float64
	for i, s := range share {
		all += s
		if i != leader {
			followers = max(followers, s)
		}
	}
	row := func(who, title string, share float64) results.Result {
		return results.Values("idle."+who, title, results.Percent, results.Less, share*100)
	}
	found := []results.Result{
		row("all", "idle, of one core, all controllers", all),
		results.Values("idle.wakeups", "… how often their threads are woken up", "1/s",
			results.Less, perSecond),
	}
	if len(share) > 1 {
		found = append(found,
			row("leader", "… the leader", share[leader]).Want(results.Median, idleLimit),
			row("follower", "… a follower", followers).Want(results.Median, idleLimit))
	}
	return found, nil
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
