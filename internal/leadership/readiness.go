package leadership

import (
	"context"
	"sync/atomic"
	"time"

	"quorate/api/neon"
	"quorate/internal/wait"
)

const (
	// readyPoll is how often a waiting request checks again. Becoming ready takes a
	// round of heartbeats, a hundred times longer.
	readyPoll = 5 * time.Millisecond

	// catchUpPause is the pause between two tries to catch up with the leader.
	catchUpPause = 50 * time.Millisecond
)

// Member is what readiness must know of the Raft member.
type Member interface {
	IsLeader() bool
	ReadBarrier(ctx context.Context) error
}

// Term is what readiness must know of the leader's work.
type Term interface {
	Ready() bool   // it has listed every node and asked it for a sign of life
	Leading() bool // it has begun
}

// Readiness is the api.Readiness of a replica.
type Readiness struct {
	member   Member
	term     Term
	caughtUp atomic.Bool // a linearizable read has succeeded here once
}

// NewReadiness makes the readiness of a replica.
func NewReadiness(m Member, t Term) *Readiness { return &Readiness{member: m, term: t} }

// Ready reports, on the leader, whether every node was listed and asked for a sign
// of life in this term; on a follower, whether it has caught up once.
func (r *Readiness) Ready() bool {
	if r.member.IsLeader() {
		return r.term.Ready()
	}
	return r.caughtUp.Load()
}

// WaitReady returns nil as soon as this replica can do what it is asked: on the
// leader, once the work of its term has begun. It does not wait for the first answers of
// the pageservers: the log has the intents, and a node that does not answer must not stop
// writes after every change of leader.
func (r *Readiness) WaitReady(ctx context.Context) error {
	for !r.serves() {
		if wait.Sleep(ctx, readyPoll) != nil {
			return neon.Errorf(neon.Timeout, "Timed out waiting for service readiness")
		}
	}
	return nil
}

func (r *Readiness) serves() bool {
	if r.member.IsLeader() {
		return r.term.Leading()
	}
	return r.caughtUp.Load()
}

// CatchUp returns when this replica has everything that was acknowledged at some
// moment after its start, or when ctx ends.
func (r *Readiness) CatchUp(ctx context.Context) {
	for {
		if r.member.ReadBarrier(ctx) == nil {
			r.caughtUp.Store(true)
			return
		}
		if wait.Sleep(ctx, catchUpPause) != nil {
			return
		}
	}
}
