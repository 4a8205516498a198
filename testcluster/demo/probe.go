package demo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/internal/wait"
	"quorate/testcluster"
)

// probe writes all the time, through any controller, and notes when each write
// was acknowledged. It toggles the scheduling of a tenant of its own.
type probe struct {
	client *testcluster.Client
	tenant neon.TenantID
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	acks   []time.Time
	failed int
	// what may be in force: the last acknowledged and all later tries
	allowed []neon.ShardScheduling
}

// probePause lies between two writes; a gap is known no finer.
const probePause = 4 * time.Millisecond

func startProbe(client *testcluster.Client, tenant neon.TenantID) *probe {
	ctx, cancel := context.WithCancel(context.Background())
	p := &probe{client: client, tenant: tenant, cancel: cancel}
	p.wg.Go(func() { p.run(ctx) })
	return p
}

func (p *probe) run(ctx context.Context) {
	values := []neon.ShardScheduling{neon.ShardEssential, neon.ShardActive}
	for i := 0; ctx.Err() == nil; i++ {
		v := values[i%2]
		p.mu.Lock()
		p.allowed = append(p.allowed, v)
		p.mu.Unlock()
		err := p.client.Tenants().SetPolicy(ctx, p.tenant, neon.PolicyRequest{Scheduling: &v})
		p.mu.Lock()
		if err == nil {
			p.acks = append(p.acks, time.Now())
			p.allowed = []neon.ShardScheduling{v}
		} else if ctx.Err() == nil {
			p.failed++
		}
		p.mu.Unlock()
		_ = wait.Sleep(ctx, probePause)
	}
}

// stop ends the writes. Stopping twice is harmless.
func (p *probe) stop() {
	p.cancel()
	p.wg.Wait()
}

// gap is the longest pause between two acknowledged writes that overlaps the
// time since t.
func (p *probe) gap(t time.Time) (longest time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := 1; i < len(p.acks); i++ {
		if p.acks[i].After(t) {
			longest = max(longest, p.acks[i].Sub(p.acks[i-1]))
		}
	}
	return longest
}

func (p *probe) counts() (acknowledged, failed int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.acks), p.failed
}

// verify compares what is in force with what was acknowledged.
func (p *probe) verify(ctx context.Context, client *testcluster.Client) error {
	d, err := client.Tenants().Describe(ctx, p.tenant)
	if err != nil {
		return err
	}
	if len(d.Shards) == 0 {
		return errors.New("the probe's tenant has no shards")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, v := range p.allowed {
		if d.Shards[0].Scheduling == v {
			return nil
		}
	}
	return fmt.Errorf("the last acknowledged write was %v and %s is there", p.allowed,
		d.Shards[0].Scheduling)
}
