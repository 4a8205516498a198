package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// lead is one stretch of leadership: a term, or what is left of it after a
// hand-over that failed.
type lead struct {
	term   uint64
	ctx    context.Context // ends with ErrLeadershipLost or what else took the lead away
	cancel context.CancelCauseFunc
	ready  chan struct{} // closed once an entry of this term is committed and applied
}

// leadership follows raft's state. It is told of each change synchronously, on
// the goroutine that makes it, so the contexts of a lost lead end at once.
type leadership struct {
	c       *Cluster
	mu      sync.Mutex
	now     *lead
	paused  int           // hand-overs under way
	changed chan struct{} // closed and replaced when now changes
	since   time.Time     // last change of the known leader
	lost    time.Time     // when we last stopped leading
	wins    uint64
}

func newLeadership(c *Cluster) *leadership {
	return &leadership{c: c, changed: make(chan struct{})}
}

// observe is the filter of a raft observer: it runs inside raft's state change,
// so it must not block or call back into the main loop.
func (l *leadership) observe(o *raft.Observation) bool {
	switch o.Data.(type) {
	case raft.RaftState:
		l.refresh(ErrLeadershipLost)
	case raft.LeaderObservation:
		l.mu.Lock()
		l.since = time.Now()
		l.mu.Unlock()
		l.c.peers.poke()
	}
	return false
}

// refresh brings now in line with raft's state and the reasons not to lead.
func (l *leadership) refresh(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Not before the stores are open and raft is running.
	r := l.c.raft
	if r == nil {
		return
	}
	leads := r.State() == raft.Leader && l.paused == 0 && l.c.health.able() &&
		l.c.equality.sound()
	term := r.CurrentTerm()
	if l.now != nil && (!leads || l.now.term != term) {
		l.now.cancel(cause)
		l.now = nil
		l.lost = time.Now()
		l.signal()
	}
	if leads && l.now == nil {
		ctx, cancel := context.WithCancelCause(l.c.ctx)
		l.now = &lead{term: term, ctx: ctx, cancel: cancel, ready: make(chan struct{})}
		l.wins++
		l.signal()
	}
}

func (l *leadership) lostWithin(d time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.lost.IsZero() && time.Since(l.lost) < d
}

func (l *leadership) signal() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *leadership) watch() (*lead, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now, l.changed
}

// pause keeps this server from acting as leader until the returned function is called.
func (l *leadership) pause() (resume func()) {
	l.mu.Lock()
	l.paused++
	l.mu.Unlock()
	l.refresh(ErrLeadershipLost)
	return func() {
		l.mu.Lock()
		l.paused--
		l.mu.Unlock()
		l.refresh(ErrLeadershipLost)
	}
}

// open commits an empty entry in each new term. Only then are all entries of
// earlier terms known to be applied, and the commit index is one that every
// replica's machine will reach.
func (l *leadership) open(ctx context.Context) {
	for {
		now, changed := l.watch()
		if now != nil {
			select {
			case <-now.ready:
			default:
				if !l.openTerm(now) {
					select {
					case <-time.After(5 * time.Millisecond):
						continue
					case <-now.ctx.Done():
					}
				}
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func (l *leadership) openTerm(now *lead) bool {
	future := l.c.raft.ApplyLog(raft.Log{Data: encodeFrame(nil)}, l.c.timeouts.Election)
	if err := l.c.await(future); err != nil {
		l.c.log.Debug("could not open the term", "term", now.term, "err", err)
		return false
	}
	close(now.ready)
	l.c.log.Info("leading", "term", now.term)
	return true
}

func (c *Cluster) currentLead() *lead {
	now, _ := c.leadership.watch()
	return now
}

func (c *Cluster) acceptsProposals() bool { return c.currentLead() != nil }

// RunWhileLeader runs f once for each term in which this server leads. It calls
// f after everything of earlier terms is applied, with a context that is
// cancelled, with the cause ErrLeadershipLost, the moment leadership is lost,
// is being handed over, or the disk is found unhealthy; it joins f before it
// looks at the next term. After a hand-over that failed, f runs again with the
// same term. It returns when ctx ends, or with the error of f when f failed
// while it still led.
func (c *Cluster) RunWhileLeader(
	ctx context.Context, f func(ctx context.Context, term uint64) error,
) error {
	var last *lead
	for {
		now, changed := c.leadership.watch()
		if now != nil && now != last {
			select {
			case <-now.ready:
				last = now
				if err := runLead(ctx, now, f); err != nil {
					return err
				}
				continue
			case <-now.ctx.Done():
			case <-ctx.Done():
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.ctx.Done():
			return ErrClosed
		}
	}
}

func runLead(ctx context.Context, now *lead, f func(context.Context, uint64) error) error {
	runCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if now.ctx.Err() != nil {
		return nil
	}
	stop := context.AfterFunc(now.ctx, func() { cancel(context.Cause(now.ctx)) })
	defer stop()
	err := f(runCtx, now.term)
	if err != nil && runCtx.Err() == nil {
		return fmt.Errorf("leading term %d: %w", now.term, err)
	}
	return nil
}

// LeaderInfo says where the leader is. HTTPAddr is empty until the leader has
// been talked to once.
type LeaderInfo struct {
	ID, RaftAddr, HTTPAddr string
}

// Leader returns the leader as far as this server knows.
func (c *Cluster) Leader() (LeaderInfo, bool) {
	addr, id := c.raft.LeaderWithID()
	if id == "" {
		return LeaderInfo{}, false
	}
	info := LeaderInfo{ID: string(id), RaftAddr: string(addr), HTTPAddr: c.httpAddr(string(id))}
	return info, true
}

func (c *Cluster) httpAddr(id string) string {
	if id == c.id {
		return c.cfg.HTTPAddr
	}
	return c.peers.httpAddr(id)
}

// IsLeader reports whether this server leads, as far as it knows. For anything
// that must be true use VerifyLeader.
func (c *Cluster) IsLeader() bool { return c.currentLead() != nil }

// Term is the server's current term.
func (c *Cluster) Term() uint64 { return c.raft.CurrentTerm() }

// ID is this server's id.
func (c *Cluster) ID() string { return c.id }

// AppliedIndex is the index of the last entry that the Machine has applied.
func (c *Cluster) AppliedIndex() uint64 { return c.fsm.applied.index() }
