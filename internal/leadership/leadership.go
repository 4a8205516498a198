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
	"time"

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
	TransferLeadership(ctx context.Context, to string) error
}

// Successor tells who uses the data directory after this replica.
type Successor interface {
	// Current names the instance that leads now and the base URL of its API. The name
	// is empty when there is none.
	Current() (name, address string)

	// Expected reports whether it makes sense to wait for one.
	Expected() bool
}

// Options are what a Leadership is made of.
type Options struct {
	Cluster Cluster
	State   func() *fsm.State

	// Give gives leadership away; nil transfers it to the healthiest other member.
	Give func(context.Context) error

	Logger *slog.Logger
}

// Leadership is the api.Leadership of a replica.
type Leadership struct {
	cluster   Cluster
	state     func() *fsm.State
	stepDown  stepDown
	retired   atomic.Pointer[Successor] // set once this replica has retired
	forwarded forwarded
}

// New makes the leadership of a replica.
func New(o Options) *Leadership {
	l := &Leadership{cluster: o.Cluster, state: o.State}
	l.stepDown.give, l.stepDown.log = o.Give, o.Logger
	if o.Give == nil {
		l.stepDown.give = l.transfer
	}
	l.forwarded.leader = func() string { name, _ := l.known(); return name }
	return l
}

// IsLeader reports whether this replica leads, as far as it knows.
func (l *Leadership) IsLeader() bool { return l.retired.Load() == nil && l.cluster.IsLeader() }

// Retire makes this replica forward everything to those who come after it.
func (l *Leadership) Retire(next Successor) { l.retired.Store(&next) }

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
		case next != nil && !(*next).Expected():
			return "", false, api.ErrSteppedDown
		}
		if wait.Sleep(ctx, pause) != nil {
			return "", false, &neon.Error{
				Code: neon.Unavailable, Msg: "No leader to forward to", Err: ctx.Err(),
			}
		}
	}
}

// addressOf is what the log says about a replica that has led before.
func (l *Leadership) addressOf(id string) string {
	if last := l.state().Leader; last.ServerID == id {
		return strings.TrimSuffix(last.Address, "/")
	}
	return ""
}

// While derives a context that ends when this replica learns that the leader at
// the address does not lead any more: a frozen one would never answer. The
// returned function must be called.
func (l *Leadership) While(ctx context.Context, _ string) (context.Context, context.CancelFunc) {
	name, _ := l.known()
	return l.forwarded.follow(ctx, name)
}

// Wait joins what was started for requests, once none is under way any more.
func (l *Leadership) Wait() {
	l.stepDown.wait()
	l.forwarded.wait()
}
