package app

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"quorate/api"
	"quorate/api/neon"
	"quorate/cluster"
)

// leaderPoll is how often somebody who waits for a request at the leader looks
// whether it still leads.
const leaderPoll = 10 * time.Millisecond

// leadership tells the api who leads.
type leadership struct {
	cluster *cluster.Cluster
	replica *Replica
	stepped stepDown
	retired atomic.Pointer[successor] // set once this replica has put its part down

	mu      sync.Mutex
	waiting map[*follow]struct{} // requests under way at a leader
	polling chan struct{}        // closed when poll has ended; nil while it does not run
}

// successor tells who uses the data directory after this replica.
type successor interface {
	// current names the instance that leads now, "" when there is none, and the base
	// URL of its API.
	current() (name, address string)

	// expected tells whether it makes sense to wait for one.
	expected() bool
}

// follow is one request under way at the leader with this name.
type follow struct {
	leader string
	cancel context.CancelFunc
}

var errLeaderGone = errors.New("the leader this request went to does not lead any more")

func (l *leadership) IsLeader() bool { return l.retired.Load() == nil && l.cluster.IsLeader() }

// known is the leader as far as this replica knows: a name, "" when there is none,
// and the base URL of its API without a trailing slash, "" when it is not known.
func (l *leadership) known() (name, address string) {
	if next := l.retired.Load(); next != nil {
		name, address = (*next).current()
		return name, strings.TrimSuffix(address, "/")
	}
	info, ok := l.cluster.Leader()
	if !ok {
		return "", ""
	}
	if address = info.HTTPAddr; address == "" {
		address = l.addressOf(info.ID)
	}
	return info.ID, strings.TrimSuffix(address, "/")
}

// Leader waits until there is a leader whose address is known, at most until ctx
// ends, which is then the error. address is the base URL of its HTTP API without
// a trailing slash.
func (l *leadership) Leader(ctx context.Context) (address string, self bool, err error) {
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		if l.IsLeader() {
			return l.addressOf(l.cluster.ID()), true, nil
		}
		name, address := l.known()
		next := l.retired.Load()
		switch {
		case next == nil && name == l.cluster.ID(): // it has not begun to lead yet
		case name != "" && address != "":
			return address, false, nil
		case next != nil && !(*next).expected():
			return "", false, api.ErrSteppedDown
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return "", false, &neon.Error{
				Code: neon.Unavailable, Msg: "No leader to forward to", Err: ctx.Err(),
			}
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

// While derives a context that ends when this replica learns that the leader at
// the address does not lead any more: a frozen one would never answer. The
// returned function must be called.
func (l *leadership) While(
	ctx context.Context, address string,
) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	name, _ := l.known()
	if name == "" {
		cancel(errLeaderGone)
		return ctx, func() {}
	}
	f := &follow{leader: name, cancel: func() { cancel(errLeaderGone) }}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting == nil {
		l.waiting = make(map[*follow]struct{})
	}
	l.waiting[f] = struct{}{}
	if l.polling == nil {
		l.polling = make(chan struct{})
		go l.poll(l.polling) // wait joins it
	}
	return ctx, func() {
		l.mu.Lock()
		delete(l.waiting, f)
		l.mu.Unlock()
		cancel(nil)
	}
}

// wait joins what was started for requests, once none is under way any more.
func (l *leadership) wait() {
	l.stepped.mu.Lock()
	stepping := l.stepped.running
	l.stepped.mu.Unlock()
	l.mu.Lock()
	polling := l.polling
	l.mu.Unlock()
	for _, running := range []chan struct{}{stepping, polling} {
		if running != nil {
			<-running
		}
	}
}

// poll cancels the requests whose leader is gone. It runs only while there are
// requests under way, and ends with the last of them.
func (l *leadership) poll(ended chan struct{}) {
	for {
		time.Sleep(leaderPoll)
		name, _ := l.known()
		l.mu.Lock()
		for f := range l.waiting {
			if f.leader != name {
				f.cancel()
			}
		}
		if len(l.waiting) == 0 {
			l.polling = nil
			close(ended)
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
	}
}
