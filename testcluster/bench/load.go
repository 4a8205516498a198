package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/internal/results"
	"quorate/internal/wait"
	"quorate/testcluster"
)

const (
	// tryTimeout is when a client gives an address up and asks the next one. A
	// frozen replica accepts connections and never answers.
	tryTimeout = time.Second

	// callTimeout is when it gives the write up.
	callTimeout = 15 * time.Second

	tryPause = 10 * time.Millisecond
)

// call is what became of one write.
type call struct {
	begin, end time.Duration // since the beginning of the load
	tries      int
	err        error
}

// load writes at a steady rate, whatever the answers: each write changes the
// configuration of a tenant and waits for its answer on a goroutine of its own. A
// client knows all replicas, begins with each in turn, and repeats under the same
// idempotency key at the next one what was not answered.
type load struct {
	urls    []string
	rate    int // a second
	http    *http.Client
	began   time.Time
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	tenants chan *target // those without a write under way

	mu      sync.Mutex
	calls   []call
	marks   []results.Mark
	skipped int // writes that found no tenant without a write under way
}

// target is one tenant and what was acknowledged to it.
type target struct {
	id    neon.TenantID
	tried int // the last value sent
	acked int // the last value acknowledged
}

// startLoad begins to write to tenants 0 to n-1.
func startLoad(ctx context.Context, c *testcluster.Cluster, rate, n int) *load {
	l := &load{
		rate: rate, began: time.Now(), tenants: make(chan *target, n),
		http: &http.Client{
			Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
		},
	}
	for i := range c.Controllers() {
		l.urls = append(l.urls, c.URL(i))
	}
	for i := range n {
		l.tenants <- &target{id: tenantID(i)}
	}
	ctx, l.cancel = context.WithCancel(ctx)
	l.wg.Go(func() { l.run(ctx) })
	return l
}

// now is the load's own clock.
func (l *load) now() time.Duration { return time.Since(l.began) }

func (l *load) run(ctx context.Context) {
	tick := time.NewTicker(time.Second / time.Duration(l.rate))
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case t := <-l.tenants:
			l.wg.Go(func() { l.write(ctx, n, t) })
		default:
			l.mu.Lock()
			l.skipped++
			l.mu.Unlock()
		}
	}
}

// write makes one write and notes what became of it. One that the end of the load
// interrupts is not counted.
func (l *load) write(ctx context.Context, n int, t *target) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	t.tried++
	body := fmt.Appendf(nil, `{"tenant_id":"%s","gc_horizon":%d}`, t.id, t.tried)
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	r := call{begin: l.now()}
	for {
		r.err = l.try(ctx, l.urls[(n+r.tries)%len(l.urls)], hex.EncodeToString(id[:]), body)
		r.tries++
		if r.err == nil || ctx.Err() != nil || permanent(r.err) {
			break
		}
		_ = wait.Sleep(ctx, tryPause)
	}
	r.end = l.now()
	if r.err == nil {
		t.acked = t.tried
	}
	if r.err == nil || !errors.Is(ctx.Err(), context.Canceled) {
		l.mu.Lock()
		l.calls = append(l.calls, r)
		l.mu.Unlock()
	}
	l.tenants <- t
}

func permanent(err error) bool {
	status := client.StatusOf(err)
	return status != 0 && status != http.StatusServiceUnavailable
}

func (l *load) try(ctx context.Context, url, id string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url+"v1/tenant/config",
		bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", id)
	resp, err := l.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err == nil && resp.StatusCode/100 != 2 {
		err = &client.StatusError{
			Method: http.MethodPut, Path: "/v1/tenant/config", Status: resp.StatusCode,
			Msg: string(text),
		}
	}
	return err
}

// mark notes that something happened.
func (l *load) mark(at time.Duration, what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marks = append(l.marks, results.Mark{At: at.Seconds(), Text: what})
}

// seriesStep is the width of one point of a series.
const seriesStep = 100 * time.Millisecond

// series is the acknowledged writes over time. It is of a load that has ended.
func (l *load) series(members int) results.Series {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := results.Series{
		Name: "writes", Title: fmt.Sprintf("Acknowledged writes, %d controllers", members),
		Unit: "writes/s", Marks: l.marks,
	}
	for _, c := range l.calls {
		at := int(c.end / seriesStep)
		for len(s.Points) <= at {
			s.Points = append(s.Points,
				[2]float64{(time.Duration(len(s.Points)) * seriesStep).Seconds()})
		}
		if c.err == nil {
			s.Points[at][1] += 1 / seriesStep.Seconds()
		}
	}
	return s
}

// stop ends the load and joins it.
func (l *load) stop() {
	l.cancel()
	l.wg.Wait()
	l.http.CloseIdleConnections()
}

// between copies the calls that were under way at some moment of a window.
func (l *load) between(from, to time.Duration) (found []call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.calls {
		if c.end >= from && c.begin <= to {
			found = append(found, c)
		}
	}
	return found
}

// gap is the longest time in a window in which nothing was acknowledged.
func (l *load) gap(from, to time.Duration) time.Duration {
	var acks durations
	for _, c := range l.between(from, to) {
		if c.err == nil && c.end <= to {
			acks = append(acks, c.end)
		}
	}
	acks = append(acks, to)
	longest, last := time.Duration(0), from
	for _, at := range sorted(acks) {
		longest, last = max(longest, at-last), at
	}
	return longest
}

// ackedSince tells whether a write that was sent after a moment was acknowledged.
func (l *load) ackedSince(from time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.calls) - 1; i >= 0 && l.calls[i].end >= from; i-- {
		if l.calls[i].err == nil && l.calls[i].begin >= from {
			return true
		}
	}
	return false
}

// totals counts what became of all writes.
func (l *load) totals() (acked, failed, skipped int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.calls {
		if c.err == nil {
			acked++
		} else {
			failed++
		}
	}
	return acked, failed, l.skipped
}

// verify asks a replica for every tenant after the load was stopped: what is there
// must not be older than what was acknowledged, nor newer than what was sent.
func (l *load) verify(ctx context.Context, c *testcluster.Client) error {
	var wrong []error
	for range len(l.tenants) {
		t := <-l.tenants
		l.tenants <- t
		conf, err := c.Tenants().Config(ctx, t.id)
		if err != nil {
			return err
		}
		var have struct {
			Value int `json:"gc_horizon"`
		}
		if err := json.Unmarshal([]byte(conf.JSON()), &have); err != nil && t.acked > 0 {
			return err
		}
		if have.Value < t.acked || have.Value > t.tried {
			wrong = append(wrong, fmt.Errorf("tenant %s has value %d; %d was acknowledged, %d sent",
				t.id, have.Value, t.acked, t.tried))
		}
	}
	return errors.Join(wrong...)
}
