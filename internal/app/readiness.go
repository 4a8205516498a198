package app

import (
	"context"
	"sync/atomic"
	"time"

	"quorate/api/neon"
)

// readyPoll is how often a waiting request looks again. Becoming ready takes a
// round of heartbeats, a hundred times longer.
const readyPoll = 5 * time.Millisecond

// readiness tells whether this replica has looked around.
type readiness struct {
	app      *App
	caughtUp atomic.Bool // a linearizable read has succeeded here once
}

// Ready tells, on the leader, whether every node was listed and asked for a sign
// of life in this term; on a follower, whether it has caught up once.
func (r *readiness) Ready() bool {
	if r.app.cluster.IsLeader() {
		return r.app.reconciler.Ready()
	}
	return r.caughtUp.Load()
}

// WaitReady returns nil as soon as this replica can do what it is asked: on the
// leader, once the work of its term has begun. The first look at the pageservers
// is not waited for: the log has the intents, and a node that does not answer just
// then must not stop writes after every change of leader.
func (r *readiness) WaitReady(ctx context.Context) error {
	for !r.serves() {
		select {
		case <-time.After(readyPoll):
		case <-ctx.Done():
			return neon.Errorf(neon.Timeout, "Timed out waiting for service readiness")
		}
	}
	return nil
}

func (r *readiness) serves() bool {
	if r.app.cluster.IsLeader() {
		return r.app.reconciler.Leading()
	}
	return r.caughtUp.Load()
}

// catchUp returns when this replica has everything that was acknowledged at some
// moment after its start.
func (r *readiness) catchUp(ctx context.Context) {
	for {
		if err := r.app.cluster.ReadBarrier(ctx); err == nil {
			r.caughtUp.Store(true)
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}
