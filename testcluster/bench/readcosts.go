package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"quorate/api/neon"
	"quorate/testcluster"
)

// The reads of one client that are asked for most often, and the largest answers.
const (
	readTenants  = 2500 // of 4 shards with one secondary
	readNodes    = 10
	readClients  = 32
	readPage     = 100
	locateCost   = 40 * time.Microsecond
	describeCost = 50 * time.Microsecond
	listTime     = 12 * time.Millisecond
	pagesTime    = 18 * time.Millisecond
	reAttachTime = 7 * time.Millisecond
)

// readCosts measures what reads cost the controllers, through each of them in turn.
func readCosts(ctx context.Context, o *BenchOptions) (figures []figure, err error) {
	c, err := o.start(ctx, fleet{pageservers: readNodes})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	created, err := creationCost(ctx, c)
	if err != nil {
		return nil, err
	}
	figures = append(figures, created)
	if err := c.WaitQuiescent(ctx); err != nil {
		return nil, err
	}
	if _, err := caughtUp(ctx, c); err != nil {
		return nil, err
	}
	for _, m := range []struct {
		name, path string
		goal       time.Duration
	}{
		{"locate", "/debug/v1/tenant/%s/locate", locateCost},
		{"describe a tenant", "/control/v1/tenant/%s", describeCost},
	} {
		f, err := costOf(ctx, c, m.path, o.Reads)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		figures = append(figures, f.figure(m.name).want("≤ "+short(m.goal), f.each() <= m.goal))
	}
	large, err := answerTimes(ctx, c)
	return append(figures, large...), err
}

// creationCost creates the tenants that are read.
func creationCost(ctx context.Context, c *testcluster.Cluster) (figure, error) {
	before, _, err := used(c)
	if err != nil {
		return figure{}, err
	}
	took, err := create(ctx, c, creation{
		tenants: readTenants, shards: 4, clients: readClients, policy: neon.Attached(1),
	})
	if err != nil {
		return figure{}, err
	}
	after, _, err := used(c)
	if err != nil {
		return figure{}, err
	}
	return single("create tenants of 4 shards and a secondary each, shards a second",
		fmt.Sprintf("%.0f", readTenants*4/took.Seconds())).
		noting("%s of the processors a shard", short((after-before)/(readTenants*4))), nil
}

// answerTimes measures how long the largest answers take, of one client.
func answerTimes(ctx context.Context, c *testcluster.Cluster) (figures []figure, err error) {
	for _, m := range []struct {
		name string
		goal time.Duration
		do   func(context.Context, *testcluster.Cluster, int) error
		rest bool // until what one has begun is done
	}{
		{"list 2,500 tenants in one", listTime, listAll, false},
		{"list 2,500 tenants by 100", pagesTime, listByPages, false},
		{"re-attach of 1,000 attached and 1,000 secondary", reAttachTime, reAttach, true},
	} {
		var took durations
		ours, _, err := used(c)
		if err != nil {
			return nil, err
		}
		const times = 30
		for i := range times {
			began := time.Now()
			if err := m.do(ctx, c, i); err != nil {
				return nil, fmt.Errorf("%s: %w", m.name, err)
			}
			took = append(took, time.Since(began))
			if !m.rest {
				continue
			}
			if err := c.WaitQuiescent(ctx); err != nil {
				return nil, err
			}
		}
		then, _, err := used(c)
		if err != nil {
			return nil, err
		}
		figures = append(figures, spread(m.name, took).want("≤ "+short(m.goal),
			took.median() <= m.goal).noting("%s of the processors each", short((then-ours)/times)))
	}
	return figures, nil
}

// readCost is what was seen of many equal reads.
type readCost struct {
	took   durations
	rate   float64
	ours   time.Duration // of the processors, all controllers
	client time.Duration
}

func (r readCost) each() time.Duration { return r.ours / time.Duration(max(1, len(r.took))) }

func (r readCost) figure(name string) figure {
	return figure{
		name: name + ", processor time of all members a read", n: len(r.took),
		median: short(r.each()),
	}.noting("%.0f/s; answers after %s, p99 %s; the clients use %s a read", r.rate,
		short(r.took.median()), short(r.took.quantile(0.99)),
		short(r.client/time.Duration(max(1, len(r.took)))))
}

// costOf has readClients read tenants through all controllers, each waiting for its answer.
func costOf(
	ctx context.Context, c *testcluster.Cluster, path string, lasting time.Duration,
) (r readCost, err error) {
	var done atomic.Int64
	results := make([]durations, readClients)
	ours, all, err := used(c)
	if err != nil {
		return r, err
	}
	began := time.Now()
	end := began.Add(lasting)
	g, ctx := errgroup.WithContext(ctx)
	for n := range readClients {
		g.Go(func() error {
			conn, err := dialReader(ctx, c.URL(n%c.Controllers()))
			if err != nil {
				return err
			}
			defer conn.Close()
			for i := n; time.Now().Before(end); i += 7919 {
				sent := time.Now()
				if err := conn.get(fmt.Sprintf(path, tenantID(i%readTenants))); err != nil {
					return err
				}
				results[n] = append(results[n], time.Since(sent))
				done.Add(1)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return r, err
	}
	took := time.Since(began)
	oursThen, allThen, err := used(c)
	if err != nil {
		return r, err
	}
	r.ours, r.client = oursThen-ours, (allThen-all)-(oursThen-ours)
	r.rate = float64(done.Load()) / took.Seconds()
	for _, d := range results {
		r.took = append(r.took, d...)
	}
	return r, nil
}

// readerConn is a connection that is written and read by hand: an ordinary HTTP client
// takes more of two cores than the controllers.
type readerConn struct {
	net.Conn
	host string
	in   *bufio.Reader
	out  []byte
}

func dialReader(ctx context.Context, base string) (*readerConn, error) {
	target, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", target.Host)
	if err != nil {
		return nil, err
	}
	return &readerConn{Conn: conn, host: target.Host, in: bufio.NewReader(conn)}, nil
}

func (r *readerConn) get(path string) error {
	r.out = fmt.Appendf(r.out[:0], "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, r.host)
	if _, err := r.Write(r.out); err != nil {
		return err
	}
	return skipAnswer(r.in)
}

// skipAnswer reads an answer of status 200 with a length.
func skipAnswer(in *bufio.Reader) error {
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
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return errors.New("the answer has no length")
	}
	_, err = in.Discard(length)
	return err
}

// baseURL is that of one of the controllers, of each in turn.
func baseURL(c *testcluster.Cluster, n int) string {
	return strings.TrimSuffix(c.URL(n%c.Controllers()), "/")
}

func listAll(ctx context.Context, c *testcluster.Cluster, n int) error {
	b, err := fetch(ctx, http.MethodGet, baseURL(c, n)+"/control/v1/tenant", nil)
	if err == nil && bytes.Count(b, []byte(`"stripe_size":`)) < readTenants {
		err = fmt.Errorf("%d bytes are not all tenants", len(b))
	}
	return err
}

// listByPages asks for the next page after the last tenant of the one before.
func listByPages(ctx context.Context, c *testcluster.Cluster, n int) error {
	base := baseURL(c, n) + "/control/v1/tenant?limit=" + strconv.Itoa(readPage)
	const name = `{"tenant_id":"`
	found, after := 0, ""
	for found < readTenants {
		b, err := fetch(ctx, http.MethodGet, base+after, nil)
		if err != nil {
			return err
		}
		page := bytes.Count(b, []byte(name))
		last := bytes.LastIndex(b, []byte(name))
		if page == 0 {
			return fmt.Errorf("the list ends after %d tenants", found)
		}
		found += page
		after = "&start_after=" + string(b[last+len(name):last+len(name)+32])
	}
	return nil
}

func reAttach(ctx context.Context, c *testcluster.Cluster, n int) error {
	body := fmt.Appendf(nil, `{"node_id":%d}`, n%readNodes+1)
	_, err := fetch(ctx, http.MethodPost,
		baseURL(c, n)+"/upcall/v1/re-attach", body)
	return err
}

func fetch(ctx context.Context, method, target string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return b, err
}
