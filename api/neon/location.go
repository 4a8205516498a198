package neon

// LocationMode is what a pageserver is asked to be for one shard.
type LocationMode string

// The modes. Stale and Multi exist only while a shard moves.
const (
	AttachedSingle LocationMode = "AttachedSingle"
	AttachedMulti  LocationMode = "AttachedMulti"
	AttachedStale  LocationMode = "AttachedStale"
	Secondary      LocationMode = "Secondary"
	Detached       LocationMode = "Detached"
)

// Attached reports whether the mode serves reads (Single, Multi or Stale).
func (m LocationMode) Attached() bool {
	return m == AttachedSingle || m == AttachedMulti || m == AttachedStale
}

// Valid reports whether the mode is one of the five.
func (m LocationMode) Valid() bool { return m.Attached() || m == Secondary || m == Detached }

// SecondaryConf is the configuration of a secondary location.
type SecondaryConf struct {
	Warm bool `json:"warm"`
}

// LocationConfig is the wire form of one location, as PUT to and listed by a
// pageserver. Generation is nil exactly when the mode is not attached.
type LocationConfig struct {
	Mode          LocationMode   `json:"mode"`
	Generation    *Generation    `json:"generation"`
	SecondaryConf *SecondaryConf `json:"secondary_conf"`
	ShardNumber   ShardNumber    `json:"shard_number"`
	ShardCount    ShardCount     `json:"shard_count"`
	StripeSize    StripeSize     `json:"shard_stripe_size"`
	TenantConf    TenantConfig   `json:"tenant_conf"`
}

// NodeAvailability is the controller's verdict on a pageserver.
type NodeAvailability string

// The verdicts.
const (
	NodeActive    NodeAvailability = "Active"
	NodeWarmingUp NodeAvailability = "WarmingUp"
	NodeOffline   NodeAvailability = "Offline"
)

// NodeScheduling is the operator's wish for a pageserver.
type NodeScheduling string

// The policies of a pageserver.
const (
	SchedulingActive          NodeScheduling = "Active"
	SchedulingFilling         NodeScheduling = "Filling"
	SchedulingPause           NodeScheduling = "Pause"
	SchedulingPauseForRestart NodeScheduling = "PauseForRestart"
	SchedulingDraining        NodeScheduling = "Draining"
	SchedulingDeleting        NodeScheduling = "Deleting"
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

// ShardScheduling is the operator's wish for the shards of a tenant.
type ShardScheduling string

// The policies of a tenant's shards.
const (
	ShardActive    ShardScheduling = "Active"
	ShardEssential ShardScheduling = "Essential" // no optimisation moves
	ShardPause     ShardScheduling = "Pause"     // no scheduling, reconciling goes on
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
