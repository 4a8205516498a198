package leadership

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api"
	"quorate/api/neon"
	"quorate/internal/wait"
)

// progress is a Raft member with a term that a test moves on.
type progress struct {
	leads, leading, ready atomic.Bool
	behind                atomic.Int32 // how many barriers still fail
	changed               wait.Broadcast
	diverged              atomic.Bool
	leaderless            string
}

func (p *progress) OutOfService() string {
	if p.diverged.Load() {
		return "diverged"
	}
	return ""
}

func (p *progress) Leaderless() string { return p.leaderless }

func (p *progress) LeaderChanged() <-chan struct{} { return p.changed.Changed() }
func (p *progress) TermChanged() <-chan struct{}   { return p.changed.Changed() }

func (p *progress) IsLeader() bool { return p.leads.Load() }
func (p *progress) Leading() bool  { return p.leading.Load() }
func (p *progress) Ready() bool    { return p.ready.Load() }

func (p *progress) ReadBarrier(context.Context) error {
	if p.behind.Add(-1) >= 0 {
		return errors.New("there is no leader")
	}
	return nil
}

func TestLeaderServesOnceItsTermHasBegunAndIsReadyOnceItHasLookedAtAllNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &progress{}
		r := NewReadiness(p, p, 5*time.Second)
		p.leads.Store(true)
		time.AfterFunc(time.Second, func() { p.leading.Store(true); p.changed.Notify() })
		begun := time.Now()
		if err := r.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took != time.Second {
			t.Errorf("it serves after %s", took)
		}
		if r.Ready() {
			t.Error("it is ready before it has looked at the nodes")
		}
		p.ready.Store(true)
		if !r.Ready() {
			t.Error("it is not ready though it has looked at all nodes")
		}
	})
}

func TestFollowerIsReadyOnceItHasCaughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &progress{}
		p.behind.Store(3)
		r := NewReadiness(p, p, 5*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := r.WaitReady(ctx); neon.CodeOf(err) != neon.Timeout || r.Ready() {
			t.Errorf("before it has caught up: %v, ready %v", err, r.Ready())
		}
		go r.CatchUp(t.Context())
		if err := r.WaitReady(t.Context()); err != nil || !r.Ready() {
			t.Errorf("after it has caught up: %v, ready %v", err, r.Ready())
		}
	})
}

func TestAReplicaThatIsOutOfServiceIsNotReady(t *testing.T) {
	p := &progress{}
	r := NewReadiness(p, p, 5*time.Second)
	r.CatchUp(t.Context())
	if !r.Ready() || r.OutOfService() != "" {
		t.Fatal("it is not ready")
	}
	p.diverged.Store(true)
	if r.Ready() || r.OutOfService() != "diverged" {
		t.Errorf("as a follower: ready %v, out of service %q", r.Ready(), r.OutOfService())
	}
	p.leads.Store(true)
	p.ready.Store(true)
	if r.Ready() {
		t.Error("it is ready as a leader")
	}
}

func TestCatchingUpEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &progress{}
		p.behind.Store(1000)
		r := NewReadiness(p, p, 5*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if r.CatchUp(ctx); r.Ready() {
			t.Error("it says that it has caught up")
		}
	})
}

func TestARequestDoesNotWaitForLongWithoutALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &progress{leaderless: "nobody leads"}
		r := NewReadiness(p, p, 5*time.Second)
		begun := time.Now()
		err := r.WaitReady(t.Context())
		if took := time.Since(begun); !errors.Is(err, api.ErrLeaderless) ||
			neon.CodeOf(err) != neon.NotLeader || took != 5*time.Second {
			t.Errorf("%v after %s", err, took)
		}
		// With a leader, it waits until this replica has caught up.
		p.leaderless = ""
		time.AfterFunc(20*time.Second, func() { r.CatchUp(t.Context()) })
		if err := r.WaitReady(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
