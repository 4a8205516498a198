package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"quorate/api/neon"
	"quorate/internal/results"
	"quorate/internal/wait"
	"quorate/testcluster"
)

// Options are common to all measurements.
type Options struct {
	Controller string    // the storage_controller binary
	Dir        string    // for data and logs; empty means a temporary one, which is removed
	Out        io.Writer // is told what is being done

	members  int          // controllers of a cluster; 0: three
	recorded *results.Run // gets what is more than results
}

// ErrMissed is met when everything was measured and a goal was missed.
var ErrMissed = errors.New("a goal was missed")

// record adds a series to the run.
func (o *Options) record(s results.Series) {
	if o.recorded != nil {
		o.recorded.Series = append(o.recorded.Series, s)
	}
}

func (o *Options) say(format string, args ...any) { fmt.Fprintf(o.Out, format+"\n", args...) }

// fleet describes one cluster to measure.
type fleet struct {
	pageservers int
	builder     testcluster.Builder // what differs from the usual
}

// start starts controllers as processes of their own and simulated pageservers in this
// one.
func (o *Options) start(ctx context.Context, f fleet) (*testcluster.Cluster, error) {
	b := f.builder
	b.Mode, b.Binary = testcluster.Processes, o.Controller
	b.Controllers, b.Pageservers, b.Zones = 3, f.pageservers, 3
	if o.members > 0 {
		b.Controllers = o.members
	}
	if o.Dir != "" {
		dir, err := os.MkdirTemp(o.Dir, "cluster-")
		if err != nil {
			return nil, err
		}
		b.Dir = dir
	}
	c, err := b.Start(ctx)
	if err != nil {
		return nil, fmt.Errorf("start a cluster: %w", err)
	}
	return c, nil
}

// tenantID is the id of the tenant with a number. The ids are spread over the
// whole range, as random ones are.
func tenantID(n int) (id neon.TenantID) {
	x := uint64(n+1) * 0x9e3779b97f4a7c15
	binary.BigEndian.PutUint64(id[:], x)
	binary.BigEndian.PutUint64(id[8:], x^uint64(n)<<20)
	return id
}

// createRequest asks for a tenant with a number.
func createRequest(n, shards int, policy neon.Placement) neon.TenantCreateRequest {
	return neon.TenantCreateRequest{
		Tenant:    neon.ShardID{Tenant: tenantID(n)},
		Placement: &policy,
		ShardParameters: &neon.ShardParameters{
			Count: neon.ShardCount(shards), StripeSize: neon.DefaultStripeSize,
		},
	}
}

// creation is tenants to create through the API.
type creation struct {
	tenants, shards, clients int
	policy                   neon.Placement
}

// create makes tenants with so many clients at once and returns how long it took.
func create(ctx context.Context, c *testcluster.Cluster, how creation) (time.Duration, error) {
	took, _, err := createEach(ctx, c, how)
	return took, err
}

// createEach does the same and also returns how long each request took.
func createEach(
	ctx context.Context, c *testcluster.Cluster, how creation,
) (took time.Duration, each durations, err error) {
	var next atomic.Int64
	each = make(durations, how.tenants)
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for range how.clients {
		g.Go(func() error {
			client := c.Client()
			for {
				n := int(next.Add(1)) - 1
				if n >= how.tenants {
					return nil
				}
				sent := time.Now()
				if _, err := client.Tenants().Create(ctx,
					createRequest(n, how.shards, how.policy)); err != nil {
					return fmt.Errorf("create tenant %d: %w", n, err)
				}
				each[n] = time.Since(sent)
			}
		})
	}
	err = g.Wait()
	return time.Since(began), each, err
}

// pollPause is how often conditions are looked at.
const pollPause = 5 * time.Millisecond

// await waits for a condition.
func await(ctx context.Context, what string, condition func() bool) error {
	for !condition() {
		if err := wait.Sleep(ctx, pollPause); err != nil {
			return fmt.Errorf("wait until %s: %w", what, err)
		}
	}
	return nil
}
