package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"quorate/api/neon"
	"quorate/internal/results"
	"quorate/internal/wait"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

// Beside pageservers that answer their heartbeats and hang with every change, a dead one's
// shards are served again as soon as without them, and a drain ends.
const (
	hangingPageservers = 10
	besideHangingLimit = 2 * time.Second // verdict → all served
	drainLimit         = 3 * time.Minute

	// hangingBefore is how long they hang before the other one dies.
	hangingBefore = 30 * time.Second

	drained      = neon.NodeID(5)
	drainedCount = 100 // tenants of one shard on it
)

// hanging are the pageservers that hang.
var hanging = []neon.NodeID{2, 3, 4}

// besideHanging measures one evacuation and one drain beside pageservers that hang.
func besideHanging(ctx context.Context, o *BenchOptions) (found []results.Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	e := evacuation{shards: committedShards, pageservers: hangingPageservers}
	c, err := o.start(ctx, fleet{pageservers: e.pageservers})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	if err := fillUp(ctx, c, e); err != nil {
		return nil, err
	}
	if _, err := crowd(ctx, c, e); err != nil {
		return nil, err
	}
	hang(c, simpageserver.Fault{
		Kind: simpageserver.FaultHang, Route: simpageserver.RouteLocationPut,
	})
	began := time.Now()
	if err := c.Client().Nodes().Drain(ctx, drained); err != nil {
		return nil, fmt.Errorf("drain beside hanging pageservers: %w", err)
	}
	if err := wait.Sleep(ctx, hangingBefore); err != nil {
		return nil, err
	}
	c.KillPageserver(dying)
	if err := served(ctx, c, e.shards); err != nil {
		return nil, err
	}
	done := time.Now()
	verdict, _, err := readLogs(c, e.shards)
	if err != nil {
		return nil, err
	}
	found = append(found, single("hanging.evacuation",
		"10,000 shards of a dead pageserver, 3 of 10 others hang: verdict → all served",
		done.Sub(verdict)).WantWithin(results.Median, besideHangingLimit))
	took, err := operationEnds(ctx, c, drained, neon.SchedulingDraining, began)
	if err != nil {
		return nil, err
	}
	found = append(found, single("hanging.drain", "a drain beside them ends after", took).
		WantWithin(results.Median, drainLimit).
		Noting("%d of %d shards are left", c.Fleet().Attached()[drained], drainedCount))
	hang(c)
	if err := c.WaitQuiescent(ctx); err != nil {
		return nil, err
	}
	return found, c.CheckAttachedExactlyOnce(ctx, 0)
}

// hang gives the hanging pageservers their faults, or takes them away.
func hang(c *testcluster.Cluster, faults ...simpageserver.Fault) {
	for _, id := range hanging {
		c.Fleet().Node(id).SetFaults(faults...)
	}
}

// fillUp puts tenants on the pageserver that is to be drained.
func fillUp(ctx context.Context, c *testcluster.Cluster, e evacuation) error {
	only := func(s neon.NodeScheduling) error {
		for _, n := range c.Fleet().Nodes() {
			if n.ID() == drained {
				continue
			}
			if err := c.Client().Nodes().Configure(ctx,
				neon.NodeConfigure{ID: n.ID(), Scheduling: &s}); err != nil {
				return err
			}
		}
		return nil
	}
	if err := only(neon.SchedulingPause); err != nil {
		return err
	}
	for n := range drainedCount {
		if _, err := c.Client().Tenants().Create(ctx,
			createRequest(e.shards+n, 1, neon.Attached(0))); err != nil {
			return err
		}
	}
	return only(neon.SchedulingActive)
}

// served waits until every shard is attached on a pageserver that answers.
func served(ctx context.Context, c *testcluster.Cluster, evacuated int) error {
	return await(ctx, "all shards are served", func() bool {
		n := 0
		for id, on := range c.Fleet().Attached() {
			if id != dying {
				n += on
			}
		}
		return n >= evacuated+drainedCount
	})
}
