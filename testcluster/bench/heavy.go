package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"quorate/api/neon"
	"quorate/cluster"
	"quorate/internal/results"
	"quorate/testcluster"
)

func raftTimeouts(heartbeat time.Duration) cluster.Timeouts {
	return cluster.Timeouts{Heartbeat: heartbeat, Election: heartbeat}
}

// heavy writes and reads with as many clients as keep all processors busy, and
// counts the elections, none of which is needed.
func (o *FailoverOptions) heavy(
	ctx context.Context, c *testcluster.Cluster,
) (f results.Result, err error) {
	leader, err := caughtUp(ctx, c)
	if err != nil {
		return f, err
	}
	before, err := c.ClientOf(leader).Cluster().Members(ctx)
	if err != nil {
		return f, err
	}
	stalls := diskStalls(c)
	o.say("  heavy load for %s", o.Heavy)
	var writes, reads atomic.Int64
	load, cancel := context.WithTimeout(ctx, o.Heavy)
	defer cancel()
	g, load := errgroup.WithContext(load)
	for n := range o.HeavyClients {
		g.Go(func() error {
			client := c.ClientOf(n % c.Controllers())
			for value := 0; load.Err() == nil; value++ {
				t := tenantID((n*31 + value) % o.Tenants)
				if n%4 == 0 {
					_, err = client.Tenants().Locate(load, t)
					reads.Add(1)
					continue
				}
				conf, err := neon.TenantConfig{}.With("gc_horizon", fmt.Append(nil,
					value*o.HeavyClients+n))
				if err != nil {
					return err
				}
				if client.Tenants().PutConfig(load, t, conf) == nil {
					writes.Add(1)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return f, err
	}
	if leader, err = caughtUp(ctx, c); err != nil {
		return f, err
	}
	after, err := c.ClientOf(leader).Cluster().Members(ctx)
	if err != nil {
		return f, err
	}
	seconds := o.Heavy.Seconds()
	f = count("heavy.elections", "elections under heavy load for "+o.Heavy.String(),
		int(after.Term-before.Term)).Want(results.Median, 0)
	return f.Noting("%d clients, %.0f writes/s, %.0f reads/s; %d times a disk was slower than the deadline",
		o.HeavyClients, float64(writes.Load())/seconds, float64(reads.Load())/seconds,
		diskStalls(c)-stalls), nil
}

// diskStalls counts in the controllers' logs how often a write took longer than a
// leader may wait: the elections that follow are not needless.
func diskStalls(c *testcluster.Cluster) (n int) {
	for i := range c.Controllers() {
		if b, err := os.ReadFile(logFile(c, i)); err == nil {
			n += bytes.Count(b, []byte(" the disk hangs;"))
		}
	}
	return n
}

func logFile(c *testcluster.Cluster, i int) string {
	return filepath.Join(filepath.Dir(dataDir(c, i)), "storage_controller.log")
}
