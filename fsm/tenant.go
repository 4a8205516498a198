package fsm

import "quorate/api/neon"

// Tenant is the replicated record of one tenant. Its shards are exactly the
// numbers 0..Count.Shards()-1 with this Count.
type Tenant struct {
	ID         neon.TenantID
	Count      neon.ShardCount
	Stripe     neon.StripeSize
	Policy     neon.Placement
	Scheduling neon.ShardScheduling
	Config     neon.TenantConfig

	// Deleting is set by BeginDeleteTenant. The tenant has no intent any more. Only
	// FinishDeleteTenant can follow, and every leader works towards it.
	Deleting bool

	// Remover is the pageserver that removes the remote data of a tenant that is being
	// deleted. Its Node is 0 before one is asked.
	Remover Remover

	// TimelineDeleted is the log index at which the deletion of a timeline was recorded
	// last; 0: none was, or it is not known.
	TimelineDeleted uint64

	// Sequence is the log index of the last change to this record, but for Remover and
	// TimelineDeleted.
	Sequence uint64
}

// Remover is a pageserver that was asked to remove the remote data of a tenant, in the
// process that the Incarnation of its node names. It goes on when whoever asked is gone.
// Each process makes one removal after another.
type Remover struct {
	Node        neon.NodeID
	Incarnation uint64
}

// Pinned reports whether an operator has forbidden to move the shards of a tenant.
func (t *Tenant) Pinned() bool {
	return t.Scheduling == neon.ShardPause || t.Scheduling == neon.ShardStop
}

// These are the limits of a snapshot. A record that exceeds them is refused before it
// gets into the state.
const (
	maxName        = 255     // bytes of a host or a zone
	maxConfig      = 1 << 20 // bytes of a tenant's configuration
	maxSecondaries = 1024    // of one shard
)

// wellFormed refuses policies and sizes that no record may have.
func (t *Tenant) wellFormed() Result {
	switch {
	case t.Policy.Kind > neon.PlaceAttached, t.Policy.Secondaries > maxSecondaries:
		return refuse(neon.BadRequest, "tenant %s: impossible placement policy %d:%d", t.ID,
			t.Policy.Kind, t.Policy.Secondaries)
	case !t.Scheduling.Valid():
		return refuse(neon.BadRequest, "tenant %s: unknown scheduling policy %q", t.ID,
			t.Scheduling)
	case len(t.Config.JSON()) > maxConfig:
		return refuse(neon.BadRequest, "tenant %s: configuration has more than %d bytes", t.ID,
			maxConfig)
	}
	return Result{}
}

// placed is how many of its shards should be somewhere.
func (t *Tenant) placed() int {
	if t.Policy.Kind == neon.PlaceDetached {
		return 0
	}
	return t.Count.Shards()
}

// Shards lists the ids of the tenant's shards by number.
func (t *Tenant) Shards() []neon.ShardID { return neon.ShardIDs(t.ID, t.Count) }
