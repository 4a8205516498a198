package neon

// AttachHookRequest is the body of POST /debug/v1/attach-hook. A test that attaches a
// shard on a pageserver by itself asks with it for the generation.
type AttachHookRequest struct {
	Shard ShardID `json:"tenant_shard_id"`
	Node  *NodeID `json:"node_id"` // nil: the shard was detached

	// The last two are for a shard that the controller does not know: the generation
	// from which it counts, and its configuration.
	GenerationOverride *Generation   `json:"generation_override"`
	Config             *TenantConfig `json:"config"`
}

// UnmarshalJSON insists on the shard.
func (r *AttachHookRequest) UnmarshalJSON(b []byte) error {
	type plain AttachHookRequest
	return object(b, (*plain)(r), "tenant_shard_id")
}

// InspectRequest is the body of POST /debug/v1/inspect, which asks where a shard is
// attached.
type InspectRequest struct {
	Shard ShardID `json:"tenant_shard_id"`
}

// UnmarshalJSON insists on the shard.
func (r *InspectRequest) UnmarshalJSON(b []byte) error {
	type plain InspectRequest
	return object(b, (*plain)(r), "tenant_shard_id")
}

// FailpointConfig is one element of the body of PUT /debug/v1/failpoints, which is a
// list. It says what happens at a failpoint.
type FailpointConfig struct {
	Name    string `json:"name"`
	Actions string `json:"actions"`
}

// UnmarshalJSON insists on both fields.
func (c *FailpointConfig) UnmarshalJSON(b []byte) error {
	type plain FailpointConfig
	return object(b, (*plain)(c), "name", "actions")
}

// AttachHookResponse is the answer of POST /debug/v1/attach-hook. The generation is nil
// for a shard that was detached.
type AttachHookResponse struct {
	Generation *Generation `json:"gen"`
}

// ShardDump is one shard in the answer of GET /debug/v1/tenant. It has all that the
// controller knows of the shard.
type ShardDump struct {
	Shard                      ShardID           `json:"tenant_shard_id"`
	Identity                   ShardIdentity     `json:"shard"`
	Sequence                   uint64            `json:"sequence"`
	Generation                 *Generation       `json:"generation"`
	Policy                     Placement         `json:"policy"`
	Intent                     IntentDump        `json:"intent"`
	Observed                   ObservedLocations `json:"observed"`
	Config                     TenantConfig      `json:"config"`
	Splitting                  SplitState        `json:"splitting"`
	Importing                  ImportState       `json:"importing"`
	DelayedReconcile           bool              `json:"delayed_reconcile"`
	LastError                  string            `json:"last_error"`
	ConsecutiveReconciles      uint64            `json:"consecutive_reconciles_count"`
	PendingComputeNotification bool              `json:"pending_compute_notification"`
	PreferredNode              *NodeID           `json:"preferred_node"`
	Scheduling                 ShardScheduling   `json:"scheduling_policy"`
}

// ShardIdentity says which part of its tenant a shard is.
type ShardIdentity struct {
	Number     ShardNumber `json:"number"`
	Count      ShardCount  `json:"count"`
	StripeSize StripeSize  `json:"stripe_size"`
	Layout     ShardLayout `json:"layout"`
}

// ShardLayout is the scheme by which keys are spread over shards.
type ShardLayout uint8

// ShardLayoutV1 is the only scheme there is.
const ShardLayoutV1 ShardLayout = 1

// IntentDump says where a shard should be.
type IntentDump struct {
	Attached    *NodeID      `json:"attached"`
	Secondary   List[NodeID] `json:"secondary"`
	PreferredAZ AZ           `json:"preferred_az_id"`
}

// SplitState says whether a shard is being split.
type SplitState string

// The states of a split.
const (
	SplitIdle      SplitState = "Idle"
	SplitSplitting SplitState = "Splitting"
)

// ImportState says whether a timeline is being imported into the tenant.
type ImportState string

// The states of an import.
const (
	ImportIdle      ImportState = "Idle"
	ImportImporting ImportState = "Importing"
)

// ObservedLocations has the locations of a shard as the controller last saw them, by
// pageserver.
type ObservedLocations struct {
	Locations Table[NodeID, ObservedLocation] `json:"locations"`
}

// ObservedLocation is a location as last seen. Config is nil when it is unknown, because
// a call is under way or failed.
type ObservedLocation struct {
	Config *LocationConfig `json:"conf"`
}

// GlobalObserved is the answer of PUT /control/v1/step_down: the locations of every shard
// as the instance that stepped down last saw them.
type GlobalObserved map[ShardID]ObservedLocations

// SchedulerDump is the answer of GET /debug/v1/scheduler.
type SchedulerDump struct {
	Nodes Table[NodeID, SchedulerNode] `json:"nodes"`
}

// SchedulerNode is one pageserver as the scheduler counts it.
type SchedulerNode struct {
	Shards         uint64      `json:"shard_count"` // locations of either kind
	AttachedShards uint64      `json:"attached_shard_count"`
	HomeShards     uint64      `json:"home_shard_count"` // that prefer the node's zone
	AZ             string      `json:"az"`
	MaySchedule    MaySchedule `json:"may_schedule"`
}
