package neon

import "time"

// AttachHookRequest is the body of POST /debug/v1/attach-hook, by which a test
// that attaches a shard on a pageserver by itself asks for its generation.
type AttachHookRequest struct {
	Shard ShardID `json:"tenant_shard_id"`
	Node  *NodeID `json:"node_id"` // nil: it was detached
	// where an unknown shard counts from
	GenerationOverride *Generation   `json:"generation_override"`
	Config             *TenantConfig `json:"config"` // of an unknown shard
}

// UnmarshalJSON insists on the shard.
func (r *AttachHookRequest) UnmarshalJSON(b []byte) error {
	type plain AttachHookRequest
	return object(b, (*plain)(r), "tenant_shard_id")
}

// InspectRequest is the body of POST /debug/v1/inspect.
type InspectRequest struct {
	Shard ShardID `json:"tenant_shard_id"`
}

// UnmarshalJSON insists on the shard.
func (r *InspectRequest) UnmarshalJSON(b []byte) error {
	type plain InspectRequest
	return object(b, (*plain)(r), "tenant_shard_id")
}

// FailpointConfig is one of the list that is the body of PUT /debug/v1/failpoints:
// what is to happen at a place.
type FailpointConfig struct {
	Name    string `json:"name"`
	Actions string `json:"actions"`
}

// UnmarshalJSON insists on both fields.
func (c *FailpointConfig) UnmarshalJSON(b []byte) error {
	type plain FailpointConfig
	return object(b, (*plain)(c), "name", "actions")
}

// AttachHookResponse is the answer; nil for a shard that was detached.
type AttachHookResponse struct {
	Generation *Generation `json:"gen"`
}

// PreferredAZsRequest is the body of PUT /control/v1/preferred_azs; nil clears.
type PreferredAZsRequest map[ShardID]*AZ

// UnmarshalJSON reads an object; of a shard that stands twice, the last counts.
func (r *PreferredAZsRequest) UnmarshalJSON(b []byte) error {
	*r = PreferredAZsRequest{}
	return eachField(b, func(key string, raw []byte) error {
		id, err := ParseShardID(key)
		if err != nil {
			return err
		}
		var az *AZ
		err = value(raw, &az)
		(*r)[id] = az
		return err
	})
}

// PreferredAZsResponse lists the shards that were found.
type PreferredAZsResponse struct {
	Updated List[ShardID] `json:"updated"`
}

// MetadataHealthUpdate is the body of POST /control/v1/metadata_health/update.
type MetadataHealthUpdate struct {
	Healthy   List[ShardID] `json:"healthy_tenant_shards"`
	Unhealthy List[ShardID] `json:"unhealthy_tenant_shards"`
}

// UnmarshalJSON insists on both lists.
func (r *MetadataHealthUpdate) UnmarshalJSON(b []byte) error {
	type plain MetadataHealthUpdate
	return object(b, (*plain)(r), "healthy_tenant_shards", "unhealthy_tenant_shards")
}

// UnhealthyShards is the answer of GET /control/v1/metadata_health/unhealthy.
type UnhealthyShards struct {
	Unhealthy List[ShardID] `json:"unhealthy_tenant_shards"`
}

// OutdatedRequest is the body of POST /control/v1/metadata_health/outdated.
type OutdatedRequest struct {
	NotScrubbedFor Duration `json:"not_scrubbed_for"`
}

// UnmarshalJSON insists on the duration.
func (r *OutdatedRequest) UnmarshalJSON(b []byte) error {
	type plain OutdatedRequest
	return object(b, (*plain)(r), "not_scrubbed_for")
}

// OutdatedResponse is the answer.
type OutdatedResponse struct {
	Records List[HealthRecord] `json:"health_records"`
}

// HealthRecord is the last judgement on what a shard has in remote storage.
type HealthRecord struct {
	Shard        ShardID   `json:"tenant_shard_id"`
	Healthy      bool      `json:"healthy"`
	LastScrubbed time.Time `json:"last_scrubbed_at"`
}
