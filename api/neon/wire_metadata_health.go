package neon

import "time"

// MetadataHealthUpdate is the body of POST /control/v1/metadata_health/update, by which
// the scrubber says what it found in remote storage.
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

// OutdatedRequest is the body of POST /control/v1/metadata_health/outdated. It asks for
// the shards that were not scrubbed for so long.
type OutdatedRequest struct {
	NotScrubbedFor Duration `json:"not_scrubbed_for"`
}

// UnmarshalJSON insists on the duration.
func (r *OutdatedRequest) UnmarshalJSON(b []byte) error {
	type plain OutdatedRequest
	return object(b, (*plain)(r), "not_scrubbed_for")
}

// OutdatedResponse is the answer of POST /control/v1/metadata_health/outdated.
type OutdatedResponse struct {
	Records List[HealthRecord] `json:"health_records"`
}

// HealthRecord is what the scrubber last found of a shard in remote storage.
type HealthRecord struct {
	Shard        ShardID   `json:"tenant_shard_id"`
	Healthy      bool      `json:"healthy"`
	LastScrubbed time.Time `json:"last_scrubbed_at"`
}
