package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"quorate/internal/results"
	"quorate/testcluster"
)

// reading describes a measurement of requests that read.
type reading struct {
	replicas []int
	clients  int
	lasting  time.Duration
	path     func(n int) string
}

// reads measures linearizable reads by clients that each wait for their answer.
// The clients write and read their sockets by hand: on a machine of two cores an
// ordinary HTTP client takes more of it than the controllers.
func reads(
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
				if err := get(conn, in, target.Host, r.path(i)); err != nil {
					return err
				}
				results[n] = append(results[n], time.Since(sent))
				done.Add(1)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return 0, nil, fmt.Errorf("read: %w", err)
	}
	for _, d := range results {
		took = append(took, d...)
	}
	return float64(done.Load()) / time.Since(began).Seconds(), took, nil
}

// get asks for something and reads the whole answer.
func get(conn net.Conn, in *bufio.Reader, host, path string) error {
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path,
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
	length, parts := -1, false
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
		parts = parts || string(line) == "Transfer-Encoding: chunked\r\n"
	}
	switch {
	case parts:
		if _, err = io.Copy(io.Discard, httputil.NewChunkedReader(in)); err == nil {
			_, err = in.ReadSlice('\n') // after the last part
		}
	case length < 0:
		err = errors.New("the answer has no length")
	default:
		_, err = in.Discard(length)
	}
	return err
}

// heartbeats measures what the leader pays for one heartbeat of one pageserver.
func heartbeats(ctx context.Context, o *BenchOptions) (found []results.Result, err error) {
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
	share, err := usage(ctx, c, o.Idle/2)
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
	return []results.Result{
		single("heartbeat.cpu", "processor time of the leader for one heartbeat",
			time.Duration(each*float64(time.Second))).
			Noting("%d pageservers, each every %s; every heartbeat on a new connection", nodes,
				interval),
	}, nil
}
