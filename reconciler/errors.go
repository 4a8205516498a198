package reconciler

import (
	"errors"

	"quorate/api/neon"
)

var errNoTerm = &neon.Error{Code: neon.NotLeader, Msg: "this replica does not lead"}

// errParked ends a turn with a task that waits for a node's free slot and was given
// away.
var errParked = errors.New("parked")

// errListing ends a pass that the listing of a node will answer, and then wake.
var errListing = errors.New("the node is being listed")

// errCold ends a pass whose destination is not warm enough yet, though nothing
// failed: the move goes on later.
var errCold = errors.New("secondary isn't ready")

// errOrigin is a failure of the node that a migration comes from.
var errOrigin = errors.New("origin")

// reconcileError is how clients know a failure.
func reconcileError(id neon.ShardID, err error) error {
	return neon.Errorf(neon.Internal, "Reconcile error on shard %s: %w", id, err)
}
