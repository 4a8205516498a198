package fsm

import (
	"slices"

	"quorate/api/neon"
)

// AttachUnmanaged numbers an attachment that a client is about to make on Node
// itself. With Node 0 it records that the client has detached the shard. The tenant
// becomes one without secondaries, or a detached one. An unknown tenant is created.
// The client notifies compute itself.
type AttachUnmanaged struct {
	Shard neon.ShardID `cbor:"1,keyasint"`
	Node  neon.NodeID  `cbor:"2,keyasint,omitempty"`

	// Of a tenant that is created: where its numbering starts, its configuration,
	// and the Unix time in milliseconds.
	Generation neon.Generation   `cbor:"3,keyasint,omitempty"`
	Config     neon.TenantConfig `cbor:"4,keyasint"`
	At         int64             `cbor:"5,keyasint,omitempty"`
}

func (c AttachUnmanaged) apply(t *txn) (r Result) {
	tenant, known := t.Tenant(c.Shard.Tenant)
	if !known {
		tenant = Tenant{
			ID: c.Shard.Tenant, Count: c.Shard.Count, Stripe: neon.DefaultStripeSize,
			Scheduling: neon.ShardActive, Config: c.Config,
		}
	}
	if r := t.Frozen(tenant.ID); r.Err != nil {
		return r
	}
	switch {
	case tenant.Deleting:
		return refuse(neon.Conflict, "Tenant %s is being deleted", tenant.ID)
	case !slices.Contains(tenant.Shards(), c.Shard):
		return refuse(neon.NotFound, "Tenant shard %s not found", c.Shard)
	case c.Node != 0 && !t.isLive(c.Node):
		return refuse(neon.NotFound, "Node %d not registered", c.Node)
	}
	if !known {
		if r := t.checkFirst(tenant.ID, c.Generation); r.Err != nil {
			return r
		}
	}
	first, _ := t.firstGeneration(tenant.ID, c.Generation)
	s, ok := t.Shard(c.Shard)
	if !ok {
		s.Generation = first
	}
	if c.Node != 0 && s.Exhausted() {
		return refuse(neon.Internal, "generations of %s are used up", c.Shard)
	}
	tenant.Policy = neon.Placement{}
	if c.Node != 0 {
		tenant.Policy = neon.Attached(0)
	}
	if r := tenant.wellFormed(); r.Err != nil {
		return r
	}
	t.setTenant(tenant)
	if !known {
		for _, id := range tenant.Shards() {
			t.setShard(Shard{
				ID: id, Generation: first, HasGeneration: true, Unmanaged: true, Sequence: t.Index,
				ScrubbedAt: c.At,
			})
		}
	}
	t.applyPolicy(tenant, nil)
	s, _ = t.Shard(c.Shard)
	t.setIntent(s, Intent{Attached: c.Node})
	if s, _ = t.Shard(c.Shard); c.Node != 0 {
		r.Grants = append(r.Grants, t.issue(s, c.Node))
		s, _ = t.Shard(c.Shard)
		s.ComputeAcknowledged, s.AcknowledgedNode = true, c.Node
	}
	s.Unmanaged = true
	t.setShard(s)
	return r
}

// PreferredAZ is the zone that one shard should be served from; empty for none.
type PreferredAZ struct {
	Shard neon.ShardID `cbor:"1,keyasint"`
	AZ    neon.AZ      `cbor:"2,keyasint"`
}

// SetPreferredAZs changes preferences and moves nothing. Unknown shards, and those
// for which the name of the zone is too long, are listed in Result.Refused.
type SetPreferredAZs struct {
	Items []PreferredAZ `cbor:"1,keyasint"`
}

func (c SetPreferredAZs) apply(t *txn) (r Result) {
	for _, it := range c.Items {
		s, ok := t.Shard(it.Shard)
		if !ok || len(it.AZ.String()) > maxName {
			r.Refused = append(r.Refused, it.Shard)
			continue
		}
		if s.PreferredAZ != it.AZ {
			s.PreferredAZ = it.AZ
			t.setShard(s)
		}
	}
	return r
}

// SetMetadataHealth records what a scan of remote storage found, at a Unix time in
// milliseconds. Unknown shards are ignored.
type SetMetadataHealth struct {
	Healthy   []neon.ShardID `cbor:"1,keyasint,omitempty"`
	Unhealthy []neon.ShardID `cbor:"2,keyasint,omitempty"`
	At        int64          `cbor:"3,keyasint"`
}

func (c SetMetadataHealth) apply(t *txn) Result {
	judge := func(ids []neon.ShardID, unhealthy bool) {
		for _, id := range ids {
			if s, ok := t.Shard(id); ok {
				s.Unhealthy, s.ScrubbedAt = unhealthy, c.At
				t.shards.Set(s) // no subscriber has to know
			}
		}
	}
	judge(c.Healthy, false)
	judge(c.Unhealthy, true)
	return Result{}
}
