package simpageserver

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"quorate/api/neon"
	"quorate/internal/wait"
)

// incarnation is one life of a node, as its handlers see it. It starts the goroutines
// of the process and joins them when the process ends. They change the core only
// through with, so that nothing of a killed process has an effect.
type incarnation struct {
	host   *host
	index  uint32 // in the oracle
	number uint32
	ctx    context.Context // ends with the process
	cancel context.CancelFunc
	gate   gate
	work   crew
}

func newIncarnation(h *host, number uint32) *incarnation {
	in := &incarnation{host: h, index: h.oracle.started(h.id, number), number: number}
	in.ctx, in.cancel = context.WithCancel(context.Background())
	return in
}

// with runs f on the core unless the process is dead. f must not block.
func (in *incarnation) with(f func(now time.Duration, c *core)) bool {
	h := in.host
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.current != in {
		return false
	}
	f(h.now(), h.core)
	return true
}

// start runs f in a goroutine of the process. It reports false, and runs nothing,
// when the process has ended.
func (in *incarnation) start(f func()) bool {
	if !in.work.enter() {
		return false
	}
	go func() {
		defer in.work.leave()
		f()
	}()
	return true
}

// sleep waits for d; false means the process died.
func (in *incarnation) sleep(d time.Duration) bool { return sleep(in.ctx, d) }

// pass waits while the node is paused; false means the process died.
func (in *incarnation) pass() bool { return in.gate.wait(in.ctx) }

// activeWait is how long a call on a tenant waits for it to become active.
const activeWait = 5 * time.Second

// busyPoll is how often waiting calls look again.
const busyPoll = 20 * time.Millisecond

// whenActive runs f on an attached shard as soon as it is active. A shard that is
// there but does not get ready is 503, never 404: the caller must not believe
// that it is free.
func (in *incarnation) whenActive(
	shard neon.ShardID, f func(now time.Duration, c *core, s *slot) reply,
) reply {
	deadline := time.Now().Add(activeWait)
	for {
		var out *reply
		var wait time.Duration
		alive := in.with(func(now time.Duration, c *core) {
			s, left, refused := c.access(now, shard)
			wait = left
			switch {
			case refused != nil:
				r := refused.reply()
				out = &r
			case s != nil:
				r := f(now, c, s)
				out = &r
			}
		})
		switch {
		case !alive:
			return aborted
		case out != nil:
			return *out
		}
		left := time.Until(deadline)
		if left <= 0 {
			return failf(http.StatusServiceUnavailable,
				"Timed out waiting for tenant %s to become active", shard).reply()
		}
		if wait < 0 {
			wait = busyPoll
		}
		if !in.sleep(min(wait, left)) {
			return aborted
		}
	}
}

// onTimeline runs f on a timeline of an active shard.
func (in *incarnation) onTimeline(
	c *call, f func(now time.Duration, core *core, s *slot, tl *timeline) reply,
) reply {
	return in.whenActive(c.shard, func(now time.Duration, core *core, s *slot) reply {
		tl := core.timelines.find(now, c.shard, s, c.timeline)
		if tl == nil || tl.deleting {
			return failf(http.StatusNotFound, "NotFound: Timeline %s/%s was not found", c.shard,
				c.timeline).reply()
		}
		return f(now, core, s, tl)
	})
}

// sleep waits for d; false means that ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	return wait.Sleep(ctx, d) == nil
}

// gate holds up everything while it is shut.
type gate struct {
	shut    atomic.Bool
	changed wait.Broadcast
}

func (g *gate) set(shut bool) {
	g.shut.Store(shut)
	g.changed.Notify()
}

// wait returns when the gate is open; false means ctx ended first.
func (g *gate) wait(ctx context.Context) bool {
	for g.shut.Load() {
		changed := g.changed.Changed()
		if !g.shut.Load() {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil
}

// crew counts running goroutines and admits no more once it is closed.
type crew struct {
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

// enter reports whether the caller may run; it then has to call leave.
func (c *crew) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.wg.Add(1)
	return true
}

func (c *crew) leave() { c.wg.Done() }

// close refuses newcomers and waits for those inside.
func (c *crew) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.wg.Wait()
}
