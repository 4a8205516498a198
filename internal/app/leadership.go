package app

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"quorate/cluster"
	"quorate/internal/neon"
)

// leaderPoll is how often somebody who waits for a request at the leader looks
// whether it still leads.
const leaderPoll = 10 * time.Millisecond

// leadership tells the api who leads.
type leadership struct {
	cluster *cluster.Cluster
	replica *Replica

	mu      sync.Mutex
	waiting map[*follow]struct{} // requests under way at a leader
	polling bool
	wg      sync.WaitGroup
}

// follow is one request under way at the leader with this id.
type follow struct {
	leader string
	cancel context.CancelFunc
}

var errLeaderGone = errors.New("the leader this request went to does not lead any more")

func (l *leadership) IsLeader() bool { return l.cluster.IsLeader() }

// Leader waits until there is a leader whose address is known, at most until ctx
// ends, which is then the error. address is the base URL of its HTTP API without
// a trailing slash.
func (l *leadership) Leader(ctx context.Context) (address string, self bool, err error) {
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		if l.cluster.IsLeader() {
			return l.addressOf(l.cluster.ID()), true, nil
		}
		if info, ok := l.cluster.Leader(); ok && info.ID != l.cluster.ID() {
			address := info.HTTPAddr
			if address == "" {
				address = l.addressOf(info.ID)
			}
			if address != "" {
				return strings.TrimSuffix(address, "/"), false, nil
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return "", false, &neon.Error{Code: neon.Unavailable, Msg: "No leader to forward to", Err: ctx.Err()}
		}
	}
}

// addressOf is what the log says about a replica that has led before.
func (l *leadership) addressOf(id string) string {
	if last := l.replica.State().Leader; last.ServerID == id {
		return strings.TrimSuffix(last.Address, "/")
	}
	return ""
}

// StepDown hands leadership to the healthiest other replica. It does nothing on
// a replica that does not lead.
func (l *leadership) StepDown(ctx context.Context) error {
	err := l.cluster.TransferLeadership(ctx, "")
	switch {
	case err == nil, errors.Is(err, cluster.ErrNotLeader):
		return nil
	case errors.Is(err, cluster.ErrPeerUnreachable):
		return &neon.Error{Code: neon.Unavailable, Msg: "There is no healthy replica to hand leadership to", Err: err}
	default:
		return &neon.Error{Code: neon.Unavailable, Msg: "Leadership was not handed over: " + err.Error(), Err: err}
	}
}

// While derives a context that ends when this replica learns that the leader at
// the address does not lead any more: a frozen one would never answer. The
// returned function must be called.
func (l *leadership) While(ctx context.Context, address string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	info, ok := l.cluster.Leader()
	if !ok {
		cancel(errLeaderGone)
		return ctx, func() {}
	}
	f := &follow{leader: info.ID, cancel: func() { cancel(errLeaderGone) }}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting == nil {
		l.waiting = make(map[*follow]struct{})
	}
	l.waiting[f] = struct{}{}
	if !l.polling {
		l.polling = true
		l.wg.Go(l.poll)
	}
	return ctx, func() {
		l.mu.Lock()
		delete(l.waiting, f)
		l.mu.Unlock()
		cancel(nil)
	}
}

// wait joins poll once no request is under way any more.
func (l *leadership) wait() { l.wg.Wait() }

// poll cancels the requests whose leader is gone. It runs only while there are
// requests under way, and ends with the last of them.
func (l *leadership) poll() {
	for {
		time.Sleep(leaderPoll)
		info, _ := l.cluster.Leader()
		l.mu.Lock()
		for f := range l.waiting {
			if f.leader != info.ID {
				f.cancel()
			}
		}
		if len(l.waiting) == 0 {
			l.polling = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
	}
}
