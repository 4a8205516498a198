package fsm

import "quorate/internal/neon"

// Tenant is the replicated record of one tenant. Its shards are exactly the
// numbers 0..Count.Shards()-1 with this Count.
type Tenant struct {
	ID         neon.TenantID
	Count      neon.ShardCount
	Stripe     neon.StripeSize
	Policy     neon.Placement
	Scheduling neon.ShardScheduling
	Config     neon.TenantConfig

	// Deleting is set by BeginDeleteTenant: the tenant has no intent any more,
	// only FinishDeleteTenant can follow, and any leader drives it there.
	Deleting bool

	// Sequence is the log index of the last change to this record.
	Sequence uint64
}

// Shards lists the ids of the tenant's shards by number.
func (t *Tenant) Shards() []neon.ShardID { return neon.ShardIDs(t.ID, t.Count) }
