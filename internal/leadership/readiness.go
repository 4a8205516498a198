package leadership

import (
	"context"
	"sync/atomic"
	"time"

	"quorate/api"
	"quorate/api/neon"
	"quorate/internal/wait"
)

// catchUpPause is the pause between two tries to catch up with the leader. Nothing tells
// when the next one will succeed. A try that finds no leader waits for one by itself.
const catchUpPause = 50 * time.Millisecond

// Member is what readiness must know of the Raft member.
type Member interface {
	IsLeader() bool
	LeaderChanged() <-chan struct{} // closed when the answer of IsLeader may have changed
	ReadBarrier(ctx context.Context) error
	OutOfService() string // why it must not be asked anything; "" when it may be
	Leaderless() string   // why there is no leader; "" while one is known
}

// Term is what readiness must know of the leader's work.
type Term interface {
	Ready() bool   // it has listed every node and asked it for a sign of life
	Leading() bool // it has begun

	TermChanged() <-chan struct{} // closed when the answer of Leading has changed
}

// Readiness is the api.Readiness of a replica.
type Readiness struct {
	member   Member
	term     Term
	caughtUp atomic.Bool    // a linearizable read has succeeded here once
	progress wait.Broadcast // caughtUp has been set

	leaderTimeout time.Duration
}

// NewReadiness makes the readiness of a replica. Without a leader, a request waits for it
// for leaderTimeout.
func NewReadiness(m Member, t Term, leaderTimeout time.Duration) *Readiness {
	return &Readiness{member: m, term: t, leaderTimeout: leaderTimeout}
}

// Ready reports, on the leader, whether every node was listed and asked for a sign
// of life in this term; on a follower, whether it has caught up once. A replica that is
// out of service is not ready.
func (r *Readiness) Ready() bool {
	if r.member.OutOfService() != "" {
		return false
	}
	if r.member.IsLeader() {
		return r.term.Ready()
	}
	return r.caughtUp.Load()
}

// OutOfService says why this replica must not be asked anything; "" when it may be.
func (r *Readiness) OutOfService() string { return r.member.OutOfService() }

// WaitReady returns nil as soon as this replica can do what it is asked: on the
// leader, once the work of its term has begun. It does not wait for the first answers of
// the pageservers: the log has the intents, and a node that does not answer must not stop
// writes after every change of leader.
func (r *Readiness) WaitReady(ctx context.Context) error {
	limit := time.NewTimer(r.leaderTimeout)
	defer limit.Stop()
	for !r.Serves() {
		leader, term := r.member.LeaderChanged(), r.term.TermChanged()
		progress := r.progress.Changed()
		if r.Serves() {
			break
		}
		select {
		case <-leader:
		case <-term:
		case <-progress:
		case <-limit.C:
			if why := r.member.Leaderless(); why != "" {
				return &neon.Error{Code: neon.NotLeader, Msg: why, Err: api.ErrLeaderless}
			}
			limit.Reset(r.leaderTimeout)
		case <-ctx.Done():
			return neon.Errorf(neon.Timeout, "Timed out waiting for service readiness")
		}
	}
	return nil
}

// Serves reports whether WaitReady would return nil at once.
func (r *Readiness) Serves() bool {
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
			r.progress.Notify()
			return
		}
		if wait.Sleep(ctx, catchUpPause) != nil {
			return
		}
	}
}
