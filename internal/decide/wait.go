package decide

import (
	"context"
	"time"

	"quorate/api/neon"
)

const (
	// LongWait is how long a request waits for shards to get where it sent them.
	LongWait = 30 * time.Second

	// ShortWait is for requests whose success does not depend on it.
	ShortWait = 5 * time.Second
)

// Reconciler brings shards to where they should be.
type Reconciler interface {
	// Await waits until each shard was found as a state of at least that index
	// wants it. Its errors are neon.Errors: Timeout, Internal with the reason why
	// a shard cannot get there, Unavailable when leadership ends.
	Await(ctx context.Context, index uint64, shards ...neon.ShardID) error

	// Kick makes shards be looked at now, before all that no request waits for.
	Kick(shards ...neon.ShardID)

	// Silent lists the pageservers that do not answer at present, though they are not
	// judged for it.
	Silent() []neon.NodeID
}

// ShardStatus is what the leader can say of one shard beyond its record. It is empty on a
// replica that does not lead.
type ShardStatus struct {
	Reconciling   bool
	LastError     string
	Failures      int  // in a row
	PendingNotify bool // compute has to be notified

	// Observed are the locations that were seen. One without a configuration is unknown.
	Observed map[neon.NodeID]*neon.LocationConfig
}

// OperationStatus is what the leader can say of an operation on a node that runs. It is
// empty on a replica that does not lead.
type OperationStatus struct {
	Waits Hindered // cannot get on now
	Stays Hindered // are settled: they will not get where the operation wants them
}

// Hindered are some shards of an operation, with the reasons.
type Hindered struct {
	Count int
	Named []HinderedShard // some of them
}

// HinderedShard is one of them.
type HinderedShard struct {
	Shard neon.ShardID
	Why   string
}

// Await waits for shards for at most LongWait and returns how that went.
func Await(ctx context.Context, r Reconciler, index uint64, shards ...neon.ShardID) error {
	r.Kick(shards...)
	ctx, cancel := context.WithTimeout(ctx, LongWait)
	defer cancel()
	return r.Await(ctx, index, shards...)
}

// AwaitAtMost waits for shards for at most that long. It returns nothing: a
// reconciliation that is slow, or that fails, goes on without the caller.
func AwaitAtMost(
	ctx context.Context, r Reconciler, limit time.Duration, index uint64, shards []neon.ShardID,
) {
	r.Kick(shards...)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_ = r.Await(ctx, index, shards...)
}
