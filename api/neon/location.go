package neon

import "time"

// LocationMode is the part that a pageserver has in one shard.
type LocationMode string

// The modes.
const (
	AttachedSingle LocationMode = "AttachedSingle" // serves the shard alone
	AttachedMulti  LocationMode = "AttachedMulti"  // the destination, while a shard moves
	AttachedStale  LocationMode = "AttachedStale"  // the origin, while a shard moves
	Secondary      LocationMode = "Secondary"      // keeps the layers, serves nothing
	Detached       LocationMode = "Detached"       // has nothing of the shard
)

// Attached reports whether the mode serves reads (Single, Multi or Stale).
func (m LocationMode) Attached() bool {
	return m == AttachedSingle || m == AttachedMulti || m == AttachedStale
}

// Valid reports whether the mode is one of the five.
func (m LocationMode) Valid() bool { return m.Attached() || m == Secondary || m == Detached }

// SecondaryConf is the configuration of a secondary location. A warm one downloads
// the layers that the heatmap names.
type SecondaryConf struct {
	Warm bool `json:"warm"`
}

// LocationOptions are the query of a request that sets a LocationConfig.
type LocationOptions struct {
	// Flush is for a location that becomes AttachedStale in its generation: it is to
	// upload what it has, for at most that long. It is sent in whole milliseconds. 0: it
	// need not.
	Flush time.Duration

	// Lazy lets the pageserver delay the activation until it is not busy, or until
	// the shard is accessed.
	Lazy bool
}

// LocationConfig is the configuration of one location, as it is PUT to a pageserver and
// listed by it. Generation is nil exactly when the mode is not attached.
type LocationConfig struct {
	Mode          LocationMode   `json:"mode"`
	Generation    *Generation    `json:"generation"`
	SecondaryConf *SecondaryConf `json:"secondary_conf"`
	ShardNumber   ShardNumber    `json:"shard_number"`
	ShardCount    ShardCount     `json:"shard_count"`
	StripeSize    StripeSize     `json:"shard_stripe_size"`
	TenantConf    TenantConfig   `json:"tenant_conf"`
}

// NodeAvailability is what the controller has found out about a pageserver.
type NodeAvailability string

// The verdicts.
const (
	NodeActive    NodeAvailability = "Active"    // answers heartbeats
	NodeWarmingUp NodeAvailability = "WarmingUp" // has started, and is not ready yet
	NodeOffline   NodeAvailability = "Offline"   // has not answered for too long
)

// NodeScheduling says whether shards may be scheduled onto a pageserver, and what is
// done about those that are there.
type NodeScheduling string

// The policies of a pageserver.
const (
	SchedulingActive          NodeScheduling = "Active"          // takes shards
	SchedulingFilling         NodeScheduling = "Filling"         // a fill is under way
	SchedulingPause           NodeScheduling = "Pause"           // takes no shards
	SchedulingPauseForRestart NodeScheduling = "PauseForRestart" // is drained
	SchedulingDraining        NodeScheduling = "Draining"        // a drain is under way
	SchedulingDeleting        NodeScheduling = "Deleting"        // a deletion is under way
)

// Valid reports whether the policy is one of the six.
func (s NodeScheduling) Valid() bool {
	switch s {
	case SchedulingActive, SchedulingFilling, SchedulingPause, SchedulingPauseForRestart,
		SchedulingDraining, SchedulingDeleting:
		return true
	}
	return false
}

// ShardScheduling says what the controller may do about the shards of a tenant.
type ShardScheduling string

// The policies of a tenant's shards.
const (
	ShardActive    ShardScheduling = "Active"    // everything
	ShardEssential ShardScheduling = "Essential" // no optimisation moves
	ShardPause     ShardScheduling = "Pause"     // no scheduling; reconciling goes on
	ShardStop      ShardScheduling = "Stop"      // no call to any pageserver
)

// Valid reports whether the policy is one of the four.
func (s ShardScheduling) Valid() bool {
	switch s {
	case ShardActive, ShardEssential, ShardPause, ShardStop:
		return true
	}
	return false
}
