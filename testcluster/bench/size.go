package bench

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"quorate/api/neon"
	"quorate/internal/results"
	"quorate/testcluster"
)

// changesLast is how long changes are made in a cluster of one size.
const changesLast = 5 * time.Second

// costs measures what a change costs in clusters of several sizes.
func costs(ctx context.Context, o *BenchOptions) (found []results.Result, err error) {
	for _, shards := range o.Sizes {
		more, err := costOf(ctx, o, shards)
		if err != nil {
			return found, err
		}
		for _, r := range more {
			found = append(found, r.With("shards", strconv.Itoa(shards)))
		}
	}
	return found, nil
}

func costOf(
	ctx context.Context, o *BenchOptions, shards int,
) (found []results.Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, scaleTimeout)
	defer cancel()
	c, err := o.start(ctx, fleet{pageservers: o.Pageservers, builder: atLeisure()})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	o.say("  seeding %d shards on %d pageservers", shards, o.Pageservers)
	if err := seed(ctx, c, shards); err != nil {
		return nil, err
	}
	if _, err := caughtUp(ctx, c); err != nil {
		return nil, err
	}
	ours, _, err := used(c)
	if err != nil {
		return nil, err
	}
	n, took, err := changes(ctx, c, shards/seededShards)
	if err != nil {
		return nil, err
	}
	then, _, err := used(c)
	if err != nil {
		return nil, err
	}
	var all int64
	for i := range c.Controllers() {
		rss, err := resident(c.PID(i))
		if err != nil {
			return nil, err
		}
		all += rss
	}
	return []results.Result{
		results.Durations("change.cpu", "processor time of one change, all controllers",
			durations{(then - ours) / time.Duration(max(1, n))}),
		results.Durations("change.time", "… until it is answered, 8 clients", took),
		results.Values("memory.shard", "resident memory of one controller per shard",
			results.Bytes, results.Less, float64(all)/float64(c.Controllers()*shards)),
	}, nil
}

// changes sets the policy of tenants, which is one entry of the log each and no call of a
// pageserver.
func changes(
	ctx context.Context, c *testcluster.Cluster, tenants int,
) (n int, took durations, err error) {
	const clients = 8
	var done atomic.Int64
	each := make([]durations, clients)
	end := time.Now().Add(changesLast)
	g, ctx := errgroup.WithContext(ctx)
	for k := range clients {
		g.Go(func() error {
			client := c.Client()
			for i := k; time.Now().Before(end); i += 7919 {
				policy := neon.ShardEssential
				if i%2 == 0 {
					policy = neon.ShardActive
				}
				sent := time.Now()
				if err := client.Tenants().SetPolicy(ctx, tenantID(i%tenants),
					neon.PolicyRequest{Scheduling: &policy}); err != nil {
					return err
				}
				each[k] = append(each[k], time.Since(sent))
				done.Add(1)
			}
			return nil
		})
	}
	err = g.Wait()
	for _, d := range each {
		took = append(took, d...)
	}
	return int(done.Load()), took, err
}
