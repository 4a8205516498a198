package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"quorate/api/neon"
	"quorate/testcluster"
)

// readRate is the target for locates a second through any replicas.
const readRate = 20000

// reading describes a measurement of locates.
type reading struct {
	replicas []int
	clients  int
	lasting  time.Duration
	tenants  int
}

// locates measures linearizable reads by clients that each wait for their answer.
// The clients write and read their sockets by hand: on a machine of two cores an
// ordinary HTTP client takes more of it than the controllers.
func locates(
	ctx context.Context, c *testcluster.Cluster, r reading,
) (perSecond float64, took durations, err error) {
	var done atomic.Int64
	results := make([]durations, r.clients)
	end := time.Now().Add(r.lasting)
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for n := range r.clients {
		g.Go(func() error {
			target, err := url.Parse(c.URL(r.replicas[n%len(r.replicas)]))
			if err != nil {
				return err
			}
			var d net.Dialer
			conn, err := d.DialContext(ctx, "tcp", target.Host)
			if err != nil {
				return err
			}
			defer conn.Close()
			in := bufio.NewReader(conn)
			for i := n; time.Now().Before(end); i += 7919 {
				sent := time.Now()
				if err := locate(conn, in, target.Host, tenantID(i%r.tenants)); err != nil {
					return err
				}
				results[n] = append(results[n], time.Since(sent))
				done.Add(1)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return 0, nil, fmt.Errorf("locate: %w", err)
	}
	for _, d := range results {
		took = append(took, d...)
	}
	return float64(done.Load()) / time.Since(began).Seconds(), took, nil
}

func locate(conn net.Conn, in *bufio.Reader, host string, t neon.TenantID) error {
	if _, err := fmt.Fprintf(conn, "GET /debug/v1/tenant/%s/locate HTTP/1.1\r\nHost: %s\r\n\r\n", t,
		host); err != nil {
		return err
	}
	line, err := in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if len(line) < 12 || string(line[9:12]) != "200" {
		return errors.New("answer " + string(line))
	}
	length := -1
	for len(line) > 2 {
		if line, err = in.ReadSlice('\n'); err != nil {
			return err
		}
		const name = "Content-Length: "
		if len(line) > len(name) && string(line[:len(name)]) == name {
			length = 0
			for _, b := range line[len(name) : len(line)-2] {
				length = length*10 + int(b-'0')
			}
		}
	}
	if length < 0 {
		return errors.New("the answer has no length")
	}
	_, err = in.Discard(length)
	return err
}

// throughput measures how fast tenants are created and located, and what a
// heartbeat costs.
func (o *Options) throughput(ctx context.Context, more BenchOptions) (figures []figure, err error) {
	c, err := o.start(ctx, fleet{pageservers: 6})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	const tenants = 2000
	took, err := create(ctx, c,
		creation{tenants: tenants, shards: 1, clients: 32, policy: neon.Attached(1)})
	if err != nil {
		return nil, err
	}
	figures = append(figures, single("create tenants of one shard and one secondary, 32 clients",
		fmt.Sprintf("%.0f/s", tenants/took.Seconds())).
		noting("each answered when its location is attached"))
	if err := c.WaitQuiescent(ctx); err != nil {
		return nil, err
	}
	leader, err := caughtUp(ctx, c)
	if err != nil {
		return nil, err
	}
	var followers, all []int
	for i := range c.Controllers() {
		all = append(all, i)
		if i != leader {
			followers = append(followers, i)
		}
	}
	for _, m := range []struct {
		name     string
		replicas []int
	}{{"any replica", all}, {"the leader", []int{leader}}, {"followers", followers}} {
		rate, took, err := locates(ctx, c,
			reading{replicas: m.replicas, clients: 128, lasting: more.Reads, tenants: tenants})
		if err != nil {
			return nil, err
		}
		f := spread("locate through "+m.name+", 128 clients", took).noting("%.0f/s", rate)
		figures = append(figures, f.want(fmt.Sprintf("≥ %d/s", readRate), rate >= readRate))
		o.say("  locate through %s: %.0f/s", m.name, rate)
	}
	return figures, nil
}

// heartbeats measures what the leader pays for one heartbeat of one pageserver.
func (o *Options) heartbeats(ctx context.Context, more BenchOptions) (figures []figure, err error) {
	const nodes = 30
	const interval = 100 * time.Millisecond
	c, err := o.start(ctx, fleet{
		pageservers: nodes,
		builder:     testcluster.Builder{HeartbeatInterval: interval, MaxOffline: 10 * time.Second},
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	leader, err := caughtUp(ctx, c)
	if err != nil {
		return nil, err
	}
	share, err := usage(ctx, c, more.Idle/2)
	if err != nil {
		return nil, err
	}
	idle := 0.0
	for i, s := range share {
		if i != leader {
			idle = max(idle, s)
		}
	}
	each := (share[leader] - idle) / (nodes / interval.Seconds())
	return []figure{single("processor time of the leader for one heartbeat",
		short(time.Duration(each*float64(time.Second)))).
		noting("%d pageservers, each every %s; every heartbeat on a new connection", nodes,
			interval)}, nil
}
