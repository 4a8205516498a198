package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/internal/wait"
	"quorate/testcluster"
)

// A drain and a fill of one of ten pageservers, of tenants with one secondary.
const (
	operatedTenants     = 2500 // of 4 shards
	operatedPageservers = 10
	operated            = neon.NodeID(5)
	operatedRate        = 500 // moves a second
)

// operationsPart measures how fast a drain and the fill after it move shards.
func operationsPart(ctx context.Context, o *BenchOptions) (figures []figure, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	c, err := o.start(ctx, fleet{pageservers: operatedPageservers})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	if _, err := create(ctx, c, creation{
		tenants: operatedTenants, shards: 4, clients: 32, policy: neon.Attached(1),
	}); err != nil {
		return nil, err
	}
	if err := c.WaitQuiescent(ctx); err != nil {
		return nil, err
	}
	nodes := c.Client().Nodes()
	for _, op := range []struct {
		name  string
		under neon.NodeScheduling
		begin func(context.Context, neon.NodeID, ...client.NodeOption) error
	}{
		{"drain", neon.SchedulingDraining, nodes.Drain}, {"fill", neon.SchedulingFilling, nodes.Fill},
	} {
		before, began := c.Fleet().Attached()[operated], time.Now()
		if err := op.begin(ctx, operated); err != nil {
			return nil, fmt.Errorf("%s: %w", op.name, err)
		}
		took, err := operationEnds(ctx, c, operated, op.under, began)
		if err != nil {
			return nil, err
		}
		moves := c.Fleet().Attached()[operated] - before
		rate := float64(max(moves, -moves)) / took.Seconds()
		figures = append(figures, single(op.name+" of a pageserver, moves a second",
			fmt.Sprintf("%.0f", rate)).want(fmt.Sprintf("≥ %d", operatedRate), rate >= operatedRate).
			noting("%d shards in %s", max(moves, -moves), short(took)))
		if err := c.WaitQuiescent(ctx); err != nil {
			return nil, err
		}
	}
	return figures, c.CheckAttachedExactlyOnce(ctx, 0)
}

// operationEnds waits until a node has another scheduling policy than under, and says how
// long that took.
func operationEnds(
	ctx context.Context, c *testcluster.Cluster, id neon.NodeID, under neon.NodeScheduling,
	began time.Time,
) (time.Duration, error) {
	for {
		n, err := c.Client().Nodes().Get(ctx, id)
		if err == nil && n.Scheduling != under {
			return time.Since(began), nil
		}
		if err := wait.Sleep(ctx, pollPause); err != nil {
			return 0, fmt.Errorf("node %d stays %s: %w", id, under, err)
		}
	}
}
