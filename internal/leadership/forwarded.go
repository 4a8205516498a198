package leadership

import (
	"context"
	"errors"
	"sync"
	"time"
)

// leaderPoll is how often the leader of requests under way is compared with the present
// one.
const leaderPoll = 10 * time.Millisecond

var errLeaderGone = errors.New("the leader this request went to does not lead any more")

// forwarded are the requests under way at a leader. Each is cancelled when its leader
// does not lead any more.
type forwarded struct {
	leader func() string // names the present leader, "" when there is none

	mu       sync.Mutex
	requests map[*request]struct{}
	polling  chan struct{} // closed when poll has ended; nil while it does not run
}

// request is one request under way at the leader with this name.
type request struct {
	leader string
	cancel context.CancelFunc
}

// follow derives a context that ends with the lead of the named leader. The returned
// function must be called.
func (f *forwarded) follow(
	ctx context.Context, leader string,
) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if leader == "" {
		cancel(errLeaderGone)
		return ctx, func() {}
	}
	r := &request{leader: leader, cancel: func() { cancel(errLeaderGone) }}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.requests == nil {
		f.requests = make(map[*request]struct{})
	}
	f.requests[r] = struct{}{}
	if f.polling == nil {
		f.polling = make(chan struct{})
		go f.poll(f.polling) // wait joins it
	}
	return ctx, func() {
		f.mu.Lock()
		delete(f.requests, r)
		f.mu.Unlock()
		cancel(nil)
	}
}

// poll cancels the requests whose leader is gone. It runs only while there are
// requests under way, and ends with the last of them.
func (f *forwarded) poll(ended chan struct{}) {
	tick := time.NewTicker(leaderPoll)
	defer tick.Stop()
	for range tick.C {
		leader := f.leader()
		f.mu.Lock()
		for r := range f.requests {
			if r.leader != leader {
				r.cancel()
			}
		}
		if len(f.requests) == 0 {
			f.polling = nil
			close(ended)
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
	}
}

// wait joins poll, which ends when no request is under way.
func (f *forwarded) wait() {
	f.mu.Lock()
	polling := f.polling
	f.mu.Unlock()
	if polling != nil {
		<-polling
	}
}
