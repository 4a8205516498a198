package controller

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/failpoint"
	"quorate/scheduler"
)

// Reality is what the leader sees of the shards on the pageservers, and its work on
// bringing them to where they should be.
type Reality interface {
	decide.Reconciler

	// LimitWarming sets how long the next move of a shard waits for its destination to
	// be warm, in all and for each request; nil is the usual time.
	LimitWarming(id neon.ShardID, warm, request *time.Duration)

	// Cancel ends what is being done about a shard and waits for that end, with
	// Await's errors; Internal when it was cut short.
	Cancel(ctx context.Context, id neon.ShardID) error

	Status(id neon.ShardID) decide.ShardStatus

	// Work is the Status of a shard as it is in some state, without what was observed.
	Work(sh fsm.Shard) decide.ShardStatus

	// Operation is what hinders the operation on a node.
	Operation(node neon.NodeID) decide.OperationStatus

	// SeenOn lists, in no order, the shards that were seen on a pageserver, or may be
	// there, whether they should or not.
	SeenOn(node neon.NodeID) []neon.ShardID

	// Loads are what the pageservers last said about their fullness.
	Loads() map[neon.NodeID]scheduler.Load
}

// NodeWatch is the leader's part in the availability of pageservers.
type NodeWatch interface {
	// ReAttached says that a pageserver has started and is about to get its locations.
	// After it returns, nothing that was observed on the node before counts.
	ReAttached(node neon.NodeID)

	// ReAttachedEmpty is ReAttached for a pageserver that holds nothing at all, since
	// its disk was lost.
	ReAttachedEmpty(node neon.NodeID)

	// ActivateNode carries out an operator's order: it detaches what should not be
	// on the node, and commits the verdict.
	ActivateNode(ctx context.Context, node neon.NodeID) error

	// Utilization is the last heartbeat of a node.
	Utilization(node neon.NodeID) (neon.Utilization, bool)
}

// Passes runs the leader's round over everything on demand.
type Passes interface {
	// ReconcileAll returns the number of shards that are not yet where they should
	// be. 0 means that nothing is left to do.
	ReconcileAll(ctx context.Context) (int, error)
}

// Pageservers are the calls that carry clients' requests. One try each, bounded
// by ctx. Their errors are, or hold, neon.Errors as the client is to see them; an
// answer of a pageserver also has HTTPStatus and Message.
type Pageservers interface {
	TimelineCreate(
		ctx context.Context, node *fsm.Node, shard neon.ShardID, req neon.TimelineCreateRequest,
	) (neon.TimelineInfo, error)

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

// Deps is what the resources are made of. Every field but Failpoints and Locks is needed.
type Deps struct {
	Log         decide.Log
	Reality     Reality
	Nodes       NodeWatch
	Passes      Passes
	Pageservers Pageservers

	Failpoints failpoint.Points // nil: none

	// Resolve returns an error when a host name has no address.
	Resolve func(ctx context.Context, host string) error

	// Locks make some requests about one tenant wait for each other. Nil: none do.
	Locks *Locks

	Options Options
	Logger  *slog.Logger
}

// Options are the settings of the resources.
type Options struct {
	UseHTTPS       bool // pageservers are called by https, so each needs a port for it
	HandleDiskLoss bool // act on re-attaches that report an empty disk

	UseHTTPSSafekeepers bool // as UseHTTPS

	// OntoSafekeepers makes the controller choose the safekeepers of new timelines.
	OntoSafekeepers bool
}

// delay passes a failpoint at which tests delay requests.
func (d *Deps) delay(ctx context.Context, place string) error {
	return failpoint.OrNone(d.Failpoints).Sleep(ctx, place)
}
