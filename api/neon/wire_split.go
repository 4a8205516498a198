package neon

// ShardSplitRequest is the body of PUT /control/v1/tenant/:tenant_id/shard_split, and of
// the same request to a pageserver.
type ShardSplitRequest struct {
	Count      uint8       `json:"new_shard_count"`
	StripeSize *StripeSize `json:"new_stripe_size"` // nil keeps it
}

// UnmarshalJSON insists on the count.
func (r *ShardSplitRequest) UnmarshalJSON(b []byte) error {
	type plain ShardSplitRequest
	*r = ShardSplitRequest{}
	return object(b, (*plain)(r), "new_shard_count")
}

// ShardSplitResponse is the answer of PUT …/shard_split. It lists the new shards.
type ShardSplitResponse struct {
	Shards List[ShardID] `json:"new_shards"`
}

// TenantSorting is the order of a pageserver's answer to POST /v1/top_tenants. The
// largest comes first.
type TenantSorting string

// The orders. Pageservers spell these in lower case, unlike their other enumerations.
const (
	ByResidentSize           TenantSorting = "resident_size"
	ByMaxLogicalSize         TenantSorting = "max_logical_size"
	ByMaxLogicalSizePerShard TenantSorting = "max_logical_size_per_shard"
)

// UnmarshalText reads one of the three orders.
func (s *TenantSorting) UnmarshalText(b []byte) error {
	return variant(s, b, ByResidentSize, ByMaxLogicalSize, ByMaxLogicalSizePerShard)
}

// TopTenantsRequest is the body of a pageserver's POST /v1/top_tenants.
type TopTenantsRequest struct {
	Order    TenantSorting `json:"order_by"`
	Limit    int           `json:"limit"`
	ShardsLT *ShardCount   `json:"where_shards_lt"` // only tenants with fewer shards
	GT       *uint64       `json:"where_gt"`        // only those with more bytes
}

// TopTenant is one attached shard in the answer, with its sizes in bytes.
type TopTenant struct {
	Shard        ShardID `json:"id"`
	ResidentSize uint64  `json:"resident_size"`
	PhysicalSize uint64  `json:"physical_size"`
	// MaxLogicalSize is that of the largest timeline, over all its shards.
	MaxLogicalSize         uint64 `json:"max_logical_size"`
	MaxLogicalSizePerShard uint64 `json:"max_logical_size_per_shard"`
}

// TopTenantsResponse is the answer of a pageserver's POST /v1/top_tenants.
type TopTenantsResponse struct {
	Shards List[TopTenant] `json:"shards"`
}

// TimelinesAndOffloaded is the answer of a pageserver's
// GET /v1/tenant/:tenant_shard_id/timeline_and_offloaded, as far as it is read.
type TimelinesAndOffloaded struct {
	Timelines List[NamedTimeline] `json:"timelines"`
	Offloaded List[NamedTimeline] `json:"offloaded"`
}

// NamedTimeline is one timeline of a TimelinesAndOffloaded, as far as it is read.
type NamedTimeline struct {
	ID       TimelineID  `json:"timeline_id"`
	Ancestor *TimelineID `json:"ancestor_timeline_id,omitempty"` // nil: it is no branch
}
