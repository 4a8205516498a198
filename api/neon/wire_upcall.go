package neon

// ReAttachRequest is the body of POST /upcall/v1/re-attach, a pageserver's first
// word after it started.
type ReAttachRequest struct {
	Node           NodeID        `json:"node_id"`
	Register       *NodeRegister `json:"register,omitempty"`
	EmptyLocalDisk *bool         `json:"empty_local_disk"`
}

// UnmarshalJSON insists on the node.
func (r *ReAttachRequest) UnmarshalJSON(b []byte) error {
	type plain ReAttachRequest
	return object(b, (*plain)(r), "node_id")
}

// ReAttachResponse lists the locations that the pageserver is to have, by shard
// id; it drops all others.
type ReAttachResponse struct {
	Tenants List[ReAttachTenant] `json:"tenants"`
}

// ReAttachTenant is one location of a re-attach. Gen is nil for a secondary.
type ReAttachTenant struct {
	Shard      ShardID      `json:"id"`
	Gen        *Generation  `json:"gen"`
	Mode       LocationMode `json:"mode"`
	StripeSize StripeSize   `json:"stripe_size"`
}

// ValidateRequest is the body of POST /upcall/v1/validate: is the pageserver
// still the newest owner of these shards?
type ValidateRequest struct {
	Tenants List[ValidateTenant] `json:"tenants"`
}

// UnmarshalJSON insists on the list.
func (r *ValidateRequest) UnmarshalJSON(b []byte) error {
	type plain ValidateRequest
	return object(b, (*plain)(r), "tenants")
}

// ValidateTenant is one shard and the generation in which it is held.
type ValidateTenant struct {
	Shard ShardID    `json:"id"`
	Gen   Generation `json:"gen"`
}

// UnmarshalJSON insists on both fields: a generation of zero must be meant.
func (r *ValidateTenant) UnmarshalJSON(b []byte) error {
	v, err := members(b, "id", "gen")
	if err != nil {
		return err
	}
	if err := value(v[0], &r.Shard); err != nil {
		return err
	}
	n, err := wireUint(v[1], 32)
	r.Gen = Generation(n)
	return err
}

// ValidateResponse answers for the shards that the controller knows; the others
// are left out, which counts as not valid.
type ValidateResponse struct {
	Tenants List[ValidatedTenant] `json:"tenants"`
}

// ValidatedTenant is the answer for one shard.
type ValidatedTenant struct {
	Shard ShardID `json:"id"`
	Valid bool    `json:"valid"`
}
