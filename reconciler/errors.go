package reconciler

import "errors"

// ErrAbsent is the answer of Locations.Location when the node has none.
var ErrAbsent = errors.New("no such location")

// errDeferred ends a pass that cannot go on now and will be woken by what it
// waits for: a listing, a node's free slot, an acknowledgement.
var errDeferred = errors.New("deferred")

// errCold ends a pass whose destination is not warm enough yet, though nothing
// failed: the move goes on later.
var errCold = errors.New("secondary isn't ready")

// errOrigin is a failure of the node that a migration comes from.
var errOrigin = errors.New("origin")
