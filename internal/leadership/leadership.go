// Package leadership tells the API who leads, bounds the requests that were forwarded to
// a leader by that leader's term, and gives leadership away on request.
//
// It does no work of a term and decides no election.
package leadership

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"

	"quorate/api"
	"quorate/api/neon"
	"quorate/cluster"
	"quorate/fsm"
	"quorate/internal/wait"
)

// Cluster is what must be known of the Raft member.
type Cluster interface {
	ID() string
	IsLeader() bool
	Leader() (cluster.LeaderInfo, bool)

	// LeaderChanged returns a channel that is closed when the answer of Leader or of
	// IsLeader may have changed.
	LeaderChanged() <-chan struct{}
	TransferLeadership(ctx context.Context, to string) error
	Leaderless() string // why there is no leader; "" while one is known
}

// Successor tells who uses the data directory after this replica.
type Successor interface {
	// Current names the instance that leads now and the base URL of its API. The name
	// is empty when there is none.
	Current() (name, address string)

	// Expected reports whether it makes sense to wait for one.
	Expected() bool

	// Changed returns a channel that is closed when the answer of one of these has
	// changed.
	Changed() <-chan struct{}
}

// Log is what must be known of the replicated state.
type Log interface {
	State() *fsm.State
	Changed() <-chan struct{} // closed when State has changed
}

// Options are what a Leadership is made of.
type Options struct {
	Cluster Cluster
	Log     Log

	// Give gives leadership away; nil transfers it to the healthiest other member.
	Give func(context.Context) error

	Logger *slog.Logger
}

// Leadership is the api.Leadership of a replica.
type Leadership struct {
	cluster  Cluster
	log      Log
	stepDown stepDown
	retired  atomic.Pointer[Successor] // set once this replica has retired
	retiring wait.Broadcast            // retired has been set
}

// New makes the leadership of a replica.
func New(o Options) *Leadership {
	l := &Leadership{cluster: o.Cluster, log: o.Log}
	l.stepDown.give, l.stepDown.log = o.Give, o.Logger
	if o.Give == nil {
		l.stepDown.give = l.transfer
	}
	return l
}

// IsLeader reports whether this replica leads, as far as it knows.
func (l *Leadership) IsLeader() bool { return l.retired.Load() == nil && l.cluster.IsLeader() }

// Retire makes this replica forward everything to those who come after it.
func (l *Leadership) Retire(next Successor) {
	l.retired.Store(&next)
	l.retiring.Notify()
}

// Retired reports whether another instance has taken this replica's place.
func (l *Leadership) Retired() bool { return l.retired.Load() != nil }

// Leaderless says why there is no leader; "" while one is known, or when it is not for
// this replica to know.
func (l *Leadership) Leaderless() string {
	if l.Retired() {
		return ""
	}
	return l.cluster.Leaderless()
}

// changed returns two channels. One of them is closed when the answer of known or of
// IsLeader may have changed.
func (l *Leadership) changed() (leader, retired <-chan struct{}) {
	retired = l.retiring.Changed()
	if next := l.retired.Load(); next != nil {
		return (*next).Changed(), retired
	}
	return l.cluster.LeaderChanged(), retired
}

// known is the leader as far as this replica knows: its name, empty when there is none,
// and the base URL of its API without a trailing slash, empty when it is not known.
func (l *Leadership) known() (name, address string) {
	if next := l.retired.Load(); next != nil {
		name, address = (*next).Current()
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
func (l *Leadership) Leader(ctx context.Context) (address string, self bool, err error) {
	for {
		logged := l.log.Changed() // its address may be there
		changed, retired := l.changed()
		if l.IsLeader() {
			return l.addressOf(l.cluster.ID()), true, nil
		}
		name, address := l.known()
		next := l.retired.Load()
		switch {
		case next == nil && name == l.cluster.ID(): // it has not begun to lead yet
		case name != "" && address != "":
			return address, false, nil
		case next != nil && !(*next).Expected():
			return "", false, api.ErrSteppedDown
		}
		select {
		case <-changed:
		case <-retired:
		case <-logged:
		case <-ctx.Done():
			return "", false, &neon.Error{
				Code: neon.Unavailable, Msg: "No leader to forward to", Err: ctx.Err(),
			}
		}
	}
}

// addressOf is what the log says about a replica that has led before.
func (l *Leadership) addressOf(id string) string {
	if last := l.log.State().Leader; last.ServerID == id {
		return strings.TrimSuffix(last.Address, "/")
	}
	return ""
}

// Wait joins a step-down that was asked for, once no request is under way any more.
func (l *Leadership) Wait() {
	l.stepDown.wait()
}
