package neon

// ReAttachRequest is the body of POST /upcall/v1/re-attach, the first call of a
// pageserver after its start.
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

// ReAttachResponse is the answer of POST /upcall/v1/re-attach. It lists, by shard, the
// locations that the pageserver is to have. The pageserver drops all others.
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

// ValidateRequest is the body of POST /upcall/v1/validate. It asks whether the generations
// of the pageserver are still the newest.
type ValidateRequest struct {
	Tenants List[ValidateTenant] `json:"tenants"`
}

// UnmarshalJSON insists on the list.
func (r *ValidateRequest) UnmarshalJSON(b []byte) error {
	type plain ValidateRequest
	return object(b, (*plain)(r), "tenants")
}

// ValidateTenant is one shard and the generation in which the pageserver has it.
type ValidateTenant struct {
	Shard ShardID    `json:"id"`
	Gen   Generation `json:"gen"`
}

// UnmarshalJSON insists on both fields, so that a missing generation is not taken for
// zero.
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

// ValidateResponse is the answer of POST /upcall/v1/validate. It leaves out the shards
// that the controller does not know, which means that they are not valid.
type ValidateResponse struct {
	Tenants List[ValidatedTenant] `json:"tenants"`
}

// ValidatedTenant is the answer for one shard.
type ValidatedTenant struct {
	Shard ShardID `json:"id"`
	Valid bool    `json:"valid"`
}
