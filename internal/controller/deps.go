package controller

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/scheduler"
)

// Log is the replicated state.
type Log interface {
	// Propose returns after the command was applied here. A refusal comes back as
	// the error together with its Result.
	Propose(ctx context.Context, id fsm.RequestID, c fsm.Command) (fsm.Result, error)

	// State is the newest local state.
	State() *fsm.State

	// ReadState is a state that holds everything acknowledged before the call, on
	// whichever replica.
	ReadState(ctx context.Context) (*fsm.State, error)
}

// Reality is what the leader sees of the shards on the pageservers and how fast
// it brings them to where they should be.
type Reality interface {
	// Await waits until each shard was found as a state of at least that index
	// wants it. Its errors are neon.Errors: Timeout, Internal with the reason why
	// a shard cannot get there, Unavailable when leadership ends.
	Await(ctx context.Context, index uint64, shards ...neon.ShardID) error

	// Kick makes shards be looked at now, before all that nobody waits for.
	Kick(shards ...neon.ShardID)

	// LimitWarming sets how long the next move of a shard waits for its destination to
	// be warm, in all and for each request; nil is the usual time.
	LimitWarming(id neon.ShardID, warm, request *time.Duration)

	// Cancel ends what is being done about a shard and waits for that end, with
	// Await's errors; Internal when it was cut short.
	Cancel(ctx context.Context, id neon.ShardID) error

	Status(id neon.ShardID) ShardStatus

	// SeenOn lists, in no order, the shards that were seen on a pageserver, or may be
	// there, whether they should or not.
	SeenOn(node neon.NodeID) []neon.ShardID

	// Loads are what the pageservers last said about their fullness.
	Loads() map[neon.NodeID]scheduler.Load
}

// ShardStatus is what the leader knows of one shard beyond the log.
type ShardStatus struct {
	Reconciling         bool
	Delayed             bool // waits for others to finish
	LastError           string
	PendingNotify       bool // compute has to be told where it is
	ConsecutiveFailures int
	Observed            map[neon.NodeID]*neon.LocationConfig // nil value: unknown
}

// NodeWatch is the leader's part in the availability of pageservers.
type NodeWatch interface {
	// ReAttached says that a pageserver has started and is about to be told of
	// these locations. After it returns nothing older is believed about the node;
	// a lost disk means that it holds nothing at all.
	ReAttached(node neon.NodeID, disk Disk, locations []fsm.Location)

	// ActivateNode makes an operator's order true: it detaches what should not be
	// there and commits the verdict.
	ActivateNode(ctx context.Context, node neon.NodeID) error

	// Utilization is the last heartbeat of a node.
	Utilization(node neon.NodeID) (neon.Utilization, bool)
}

// Disk says whether a pageserver came back with what it had stored.
type Disk uint8

// The states of a disk.
const (
	DiskKept Disk = iota
	DiskLost
)

// Passes runs the leader's round over everything on demand.
type Passes interface {
	// ReconcileAll returns the number of shards that are not yet where they should
	// be; 0 means that nothing is left to do.
	ReconcileAll(ctx context.Context) (int, error)
}

// Pageservers are the calls that carry clients' requests. One try each, bounded
// by ctx. Their errors are, or hold, neon.Errors as the client is to see them; an
// answer of a pageserver also has HTTPStatus and Message.
type Pageservers interface {
	// TenantDelete removes the remote data of a tenant, all its shards included.
	TenantDelete(ctx context.Context, node *fsm.Node, tenant neon.TenantID) error

	TimelineCreate(
		ctx context.Context, node *fsm.Node, shard neon.ShardID, req neon.TimelineCreateRequest,
	) (neon.TimelineInfo, error)

	// TimelineDelete returns 202 while the deletion runs and 404 when nothing is
	// left.
	TimelineDelete(
		ctx context.Context, node *fsm.Node, shard neon.ShardID, timeline neon.TimelineID,
	) (status int, err error)

	// Call makes a request about one shard; the body is that of a 2xx answer.
	Call(
		ctx context.Context, node *fsm.Node, shard neon.ShardID, call neon.ShardCall,
	) (status int, body []byte, err error)

	// Passthrough sends a request without body and headers. Any answer is a
	// success; the caller closes its body.
	Passthrough(
		ctx context.Context, node *fsm.Node, method, pathAndQuery string,
	) (*http.Response, error)
}

// Failpoints are places at which tests delay requests, hold them, or make them fail.
// Their errors are that of ctx.
type Failpoints interface {
	// Sleep returns after the time set for the place.
	Sleep(ctx context.Context, name string) error

	// Pausable returns when the process may go on.
	Pausable(ctx context.Context, name string) error

	// Armed tells whether something is set for the place.
	Armed(name string) bool

	// Return tells whether to fail at the place, and with which argument.
	Return(ctx context.Context, name string) (arg string, hit bool, err error)
}

// Deps is what the resources are made of. Every field but Failpoints and Locks is needed.
type Deps struct {
	Log         Log
	Reality     Reality
	Nodes       NodeWatch
	Passes      Passes
	Pageservers Pageservers

	Safekeepers     SafekeeperCalls
	SafekeeperWatch SafekeeperWatch
	SafekeeperHook  SafekeeperHook // nil: compute need not be told

	Failpoints Failpoints // nil: none

	ImportHook ImportHook // nil: nobody need be told how an import ended

	// Resolve tells whether a host name has an address.
	Resolve func(ctx context.Context, host string) error

	// Locks keep long requests about one tenant apart; nil: they run together.
	Locks *Locks

	Options Options
	Logger  *slog.Logger
}

// Options are the settings of the resources.
type Options struct {
	UseHTTPS       bool // pageservers are called by https, so each needs a port for it
	HandleDiskLoss bool // believe pageservers that say their disk is empty

	UseHTTPSSafekeepers bool // as UseHTTPS

	// OntoSafekeepers makes the controller choose the safekeepers of new timelines,
	// SafekeepersPerTimeline of them.
	OntoSafekeepers        bool
	SafekeepersPerTimeline int
}

const (
	// longWait is how long a request waits for shards to get where it sent them.
	longWait = 30 * time.Second

	// shortWait is for requests whose success does not depend on it.
	shortWait = 5 * time.Second

	// decisions is how often a decision is made before a client hears that
	// others were faster every time.
	decisions = 8
)

// fail passes a place at which tests make requests fail.
func (d *Deps) fail(ctx context.Context, place string) error {
	if d.Failpoints == nil {
		return nil
	}
	_, hit, err := d.Failpoints.Return(ctx, place)
	if hit {
		return neon.Errorf(neon.BadRequest, "failpoint %s", place)
	}
	return err
}

// delay passes a place at which tests delay requests.
func (d *Deps) delay(ctx context.Context, place string) error {
	if d.Failpoints == nil {
		return nil
	}
	return d.Failpoints.Sleep(ctx, place)
}
