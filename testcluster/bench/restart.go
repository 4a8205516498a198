package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"quorate/api/neon"
	"quorate/internal/results"
	"quorate/internal/wait"
	"quorate/testcluster"
)

// The goals of restarts.
const (
	readyGoal     = 250 * time.Millisecond
	firstReadGoal = 200 * time.Millisecond
	creatableGoal = 300 * time.Millisecond
	gapGoal       = 60 * time.Millisecond
	gapAloneGoal  = 250 * time.Millisecond
)

// restartPause is how often a process that starts is asked.
const restartPause = time.Millisecond

// leaderRestarts measures how soon a leader that is stopped and started again serves, and how
// soon tenants can be created after all controllers have started beside a dead pageserver.
func leaderRestarts(ctx context.Context, o *BenchOptions) (found []results.Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, partTimeout)
	defer cancel()
	c, err := o.start(ctx, fleet{pageservers: crowdPageservers})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	if _, err := create(ctx, c, creation{
		tenants: o.Tenants, shards: crowdShards, clients: crowdClients,
		policy: neon.Attached(1),
	}); err != nil {
		return nil, err
	}
	if err := c.WaitQuiescent(ctx); err != nil {
		return nil, err
	}
	var ready, firstRead, creatable durations
	for range max(1, o.Restarts) {
		r, f, err := restartLeader(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("restart the leader: %w", err)
		}
		ready, firstRead = append(ready, r), append(firstRead, f)
	}
	if err := bury(ctx, c, o.Tenants*crowdShards); err != nil {
		return nil, err
	}
	for n := range max(1, o.Restarts) {
		d, err := restartAll(ctx, c, o.Tenants+n)
		if err != nil {
			return nil, fmt.Errorf("restart beside a dead pageserver: %w", err)
		}
		creatable = append(creatable, d)
	}
	return o.labelled([]results.Result{
		results.Durations("restart.ready", "restart of the leading process until it is ready",
			ready).WantWithin(results.Median, readyGoal),
		results.Durations("restart.read", "… until it has answered a read", firstRead).
			WantWithin(results.Median, firstReadGoal),
		results.Durations("restart.dead.create",
			"restart of all with one pageserver dead until a tenant is created", creatable).
			WantWithin(results.Median, creatableGoal),
	}), nil
}

// restartLeader stops the leader with SIGTERM and starts it again. The times are from the
// start of the process.
func restartLeader(
	ctx context.Context, c *testcluster.Cluster,
) (ready, firstRead time.Duration, err error) {
	leader, err := caughtUp(ctx, c)
	if err != nil {
		return 0, 0, err
	}
	if err := c.StopController(ctx, leader); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	client := c.ClientOf(leader)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.Restart(ctx, leader) })
	g.Go(func() error {
		err := keepTrying(ctx, func() error { return client.Cluster().Ready(ctx) })
		ready = time.Since(began)
		return err
	})
	g.Go(func() error {
		err := keepTrying(ctx, func() error {
			_, err := client.Tenants().Locate(ctx, tenantID(0))
			return err
		})
		firstRead = time.Since(began)
		return err
	})
	return ready, firstRead, g.Wait()
}

// keepTrying tries until there is no error.
func keepTrying(ctx context.Context, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		if ended := wait.Sleep(ctx, restartPause); ended != nil {
			return errors.Join(ended, err)
		}
	}
}

// bury kills a pageserver for good and waits until its shards are elsewhere.
func bury(ctx context.Context, c *testcluster.Cluster, shards int) error {
	c.KillPageserver(dying)
	return await(ctx, "the dead pageserver is offline and without shards", func() bool {
		n, err := c.Client().Nodes().Get(ctx, dying)
		if err != nil || n.Availability != neon.NodeOffline {
			return false
		}
		all := 0
		for id, on := range c.Fleet().Attached() {
			if id != dying {
				all += on
			}
		}
		return all >= shards
	})
}

// restartAll stops all controllers, starts them, and says when a new tenant was created.
func restartAll(ctx context.Context, c *testcluster.Cluster, tenant int) (time.Duration, error) {
	for i := range c.Controllers() {
		if err := c.StopController(ctx, i); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	var took time.Duration
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return startControllers(ctx, c) })
	g.Go(func() error {
		client := c.Client()
		err := keepTrying(ctx, func() error {
			_, err := client.Tenants().Create(ctx, createRequest(tenant, 1, neon.Attached(0)))
			return err
		})
		took = time.Since(began)
		return err
	})
	return took, g.Wait()
}

// killGaps measures how long writes wait when the leader is killed. One that is alone is
// started again at once.
func killGaps(ctx context.Context, o *BenchOptions) ([]results.Result, error) {
	f := FailoverOptions{
		Options: o.Options, Kills: max(1, o.Kills), Rate: 200, Tenants: 1000, TenantShards: 1,
		Pageservers: 3,
	}
	found, err := f.all(ctx)
	for i, r := range found {
		if r.Name != "gap.kill" {
			continue
		}
		goal := gapGoal
		if o.members == 1 {
			goal = gapAloneGoal
		}
		found[i].Goals = nil
		found[i] = found[i].WantWithin(results.Median, goal)
	}
	return found, err
}

// killAlone kills the only controller and starts it at once.
func killAlone(ctx context.Context, c *testcluster.Cluster, i int) error {
	if err := c.Kill(i); err != nil {
		return err
	}
	return c.Restart(ctx, i)
}
