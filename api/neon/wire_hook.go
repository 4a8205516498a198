package neon

import "slices"

// NotifyAttach is the body of PUT <control plane>/notify-attach. It says where the shards
// of a tenant are attached now. An unsharded tenant has one shard of number 0 and a nil
// StripeSize. A sharded one lists all shards by number.
type NotifyAttach struct {
	Tenant      TenantID          `json:"tenant_id"`
	PreferredAZ AZ                `json:"preferred_az"`
	StripeSize  *StripeSize       `json:"stripe_size"`
	Shards      List[NotifyShard] `json:"shards"`
}

// NotifyShard is one shard and the pageserver it is attached to.
type NotifyShard struct {
	Node   NodeID      `json:"node_id"`
	Number ShardNumber `json:"shard_number"`
}

// Equal reports whether two notifications say the same. Then the second need not be
// sent.
func (n NotifyAttach) Equal(o NotifyAttach) bool {
	same := n.StripeSize == nil && o.StripeSize == nil ||
		n.StripeSize != nil && o.StripeSize != nil && *n.StripeSize == *o.StripeSize
	return same && n.Tenant == o.Tenant && n.PreferredAZ == o.PreferredAZ &&
		slices.Equal(n.Shards, o.Shards)
}
