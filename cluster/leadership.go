package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"quorate/internal/wait"
)

// lead is one stretch of leadership: a term, or what is left of it after a hand-over
// that failed.
type lead struct {
	term   uint64
	ctx    context.Context // ends with ErrLeadershipLost, or with what else took the lead
	cancel context.CancelCauseFunc
	ready  chan struct{} // closed once an entry of this term is committed and applied
}

// leadership follows raft's state. It is told of each change on the goroutine that
// makes the change, so the context of a lost lead ends at once.
type leadership struct {
	ctx    context.Context // of every lead
	node   *raftNode
	health diskHealth
	log    *slog.Logger
	// leaderMoved is called when the known leader has changed. It must not block.
	leaderMoved func()

	changed wait.Broadcast // now, the known leader or its address has changed

	mu     sync.Mutex
	now    *lead
	paused int       // hand-overs under way
	since  time.Time // when the known leader last changed
	lost   time.Time // when this server last stopped leading
	wins   uint64
	moves  uint64 // changes of the known leader
}

// openRetry is the pause after an entry that could not open the term.
const openRetry = 5 * time.Millisecond

// observe is the filter of a raft observer. It runs inside raft's state change, so it
// must not block or call back into the main loop.
func (l *leadership) observe(o *raft.Observation) bool {
	switch o.Data.(type) {
	case raft.RaftState:
		l.refresh(ErrLeadershipLost)
	case raft.LeaderObservation:
		l.mu.Lock()
		l.since = time.Now()
		l.moves++
		l.mu.Unlock()
		l.changed.Notify()
		l.leaderMoved()
	}
	return false
}

// known is for how long the known leader has been the same.
func (l *leadership) known() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.since)
}

// refresh brings now in line with raft's state and with the reasons not to lead.
func (l *leadership) refresh(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.node.raft()
	if r == nil {
		return
	}
	leads := r.State() == raft.Leader && l.paused == 0 && l.health.Works()
	term := r.CurrentTerm()
	if l.now != nil && (!leads || l.now.term != term) {
		l.now.cancel(cause)
		l.now = nil
		l.lost = time.Now()
		l.changed.Notify()
	}
	if leads && l.now == nil {
		ctx, cancel := context.WithCancelCause(l.ctx)
		l.now = &lead{term: term, ctx: ctx, cancel: cancel, ready: make(chan struct{})}
		l.wins++
		l.changed.Notify()
	}
}

// watch returns the present lead, nil without one, and a channel that is closed when
// it changes.
func (l *leadership) watch() (*lead, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now, l.changed.Changed()
}

// current returns the present lead, nil without one.
func (l *leadership) current() *lead {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// leads reports whether this server acts as the leader.
func (l *leadership) leads() bool { return l.current() != nil }

// counts returns how often this server began to lead, how often the known leader has
// changed, and when it last did.
func (l *leadership) counts() (wins, moves uint64, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wins, l.moves, l.since
}

// lostRecently reports whether the lead was lost so recently that no other server can
// have it.
func (l *leadership) lostRecently() bool {
	if l.node.leader() != "" {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.lost.IsZero() && time.Since(l.lost) < l.node.timeouts.Election
}

// awaitOther waits until another server is known to lead. It reports false when ctx
// ends first.
func (l *leadership) awaitOther(ctx context.Context) bool {
	for {
		changed := l.changed.Changed()
		if id := l.node.leader(); id != "" && id != l.node.id {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// pause keeps this server from acting as the leader until resume is called.
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

// openTerms commits an empty entry in each new term. Only then are all entries of
// earlier terms known to be applied, and the commit index is one that the machine of
// every replica will reach.
func (l *leadership) openTerms(ctx context.Context) {
	for {
		now, changed := l.watch()
		if now != nil {
			select {
			case <-now.ready:
			default:
				if !l.openTerm(now) && wait.Sleep(now.ctx, openRetry) == nil {
					continue
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
	future := l.node.raft().ApplyLog(raft.Log{Data: encodeFrame(nil)}, l.node.timeouts.Election)
	if err := l.node.await(future); err != nil {
		l.log.Debug("could not open the term", "term", now.term, "err", err)
		return false
	}
	close(now.ready)
	l.log.Info("leading", "term", now.term)
	return true
}

// opened reports whether this server leads and has opened its term: all entries of earlier
// terms are applied.
func (l *leadership) opened() bool {
	now, _ := l.watch()
	if now == nil {
		return false
	}
	select {
	case <-now.ready:
		return true
	default:
		return false
	}
}

// run is RunWhileLeader.
func (l *leadership) run(ctx context.Context, f func(context.Context, uint64) error) error {
	var last *lead
	for {
		now, changed := l.watch()
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
		case <-l.ctx.Done():
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
