package fsm

import (
	"slices"

	"quorate/api/neon"
)

// BeginSplit records that a tenant is to be split, before any pageserver hears of
// it. From here on the tenant is frozen. It is based on the tenant record with
// this Sequence and on all its shards as they are attached, and refused as a
// Conflict when any of that moved.
//
// Result.Grants are the generations of the children: those of their parents, on
// the same nodes.
type BeginSplit struct {
	Tenant   neon.TenantID   `cbor:"1,keyasint"`
	Sequence uint64          `cbor:"2,keyasint"`
	Count    neon.ShardCount `cbor:"3,keyasint"`
	Stripe   neon.StripeSize `cbor:"4,keyasint"`
	Parents  []SplitParent   `cbor:"5,keyasint"` // all shards, by number
}

func (c BeginSplit) apply(t *txn) (r Result) {
	last, had := t.Split(c.Tenant)
	if r := c.check(t, had && last.Active()); r.Err != nil {
		return r
	}
	sp := Split{
		Tenant: c.Tenant, Began: t.Index, Count: c.Count, Stripe: c.Stripe,
		Parents: slices.Clip(c.Parents), Leftovers: last.Leftovers,
	}
	for _, p := range sp.Parents {
		t.locationUnknown(p.Shard, p.Node)
		for _, child := range sp.Children(p.Shard) {
			r.Grants = append(r.Grants, Grant{Shard: child, Generation: p.Generation, Node: p.Node})
			t.locationUnknown(child, p.Node)
		}
	}
	t.setSplit(sp)
	return r
}

func (c BeginSplit) check(t *txn, splitting bool) Result {
	tenant, ok := t.Tenant(c.Tenant)
	switch {
	case !ok || tenant.Deleting:
		return refuse(neon.NotFound, "Tenant %s not found", c.Tenant)
	case splitting:
		return refuse(neon.Conflict, "Tenant is already splitting")
	case t.Importing(c.Tenant):
		return refuse(neon.Conflict, "Cannot shard split during timeline import")
	case tenant.Sequence != c.Sequence:
		return refuse(neon.Conflict, "tenant %s was changed by somebody else", c.Tenant)
	case tenant.Policy.Kind != neon.PlaceAttached:
		return refuse(neon.BadRequest, "Cannot split a tenant that is not attached")
	case tenant.Scheduling == neon.ShardStop:
		return refuse(neon.PreconditionFailed, "Cannot split a tenant whose scheduling is stopped")
	case !neon.CanSplit(tenant.Count, c.Count):
		return refuse(neon.BadRequest, "Cannot split %d shards into %d", tenant.Count.Shards(),
			c.Count)
	case c.Stripe == 0, c.Stripe > neon.MaxStripeSize && t.bounded(),
		tenant.Count.Shards() > 1 && c.Stripe != tenant.Stripe:
		return refuse(neon.BadRequest, "Cannot change the stripe size of tenant %s from %d to %d",
			c.Tenant, tenant.Stripe, c.Stripe)
	case len(c.Parents) != tenant.Count.Shards():
		return refuse(neon.Conflict, "tenant %s has %d shards, not %d", c.Tenant,
			tenant.Count.Shards(), len(c.Parents))
	}
	for i, id := range tenant.Shards() {
		s, _ := t.Shard(id)
		p := c.Parents[i]
		if p.Shard != id || p.Node == 0 || s.Attached != p.Node || s.GenNode != p.Node ||
			s.Generation != p.Generation || !t.isLive(p.Node) {
			return refuse(neon.Conflict, "Shard %s unexpectedly rescheduled during split", id)
		}
		if s.Exhausted() {
			return refuse(neon.Internal, "generations of %s are used up", id)
		}
	}
	return Result{}
}

// CommitSplit makes the children the tenant. The proposer has seen that on every
// parent's node all its children are attached in its generation, and the parent is
// not. It is refused as a Conflict unless the try that Began then is still asking
// and no parent's generation has moved since.
type CommitSplit struct {
	Tenant neon.TenantID `cbor:"1,keyasint"`
	Began  uint64        `cbor:"2,keyasint"`

	// Secondary are the warm locations of the children, by number; without it a
	// child has those of its parent. Nodes that do not fit are left out.
	Secondary [][]neon.NodeID `cbor:"3,keyasint,omitempty"`

	// At is the Unix time in milliseconds, from which on the children count as healthy.
	At int64 `cbor:"4,keyasint,omitempty"`
}

func (c CommitSplit) apply(t *txn) Result {
	sp, r := t.splitIn(c.Tenant, c.Began, SplitAsking)
	if r.Err != nil {
		return r
	}
	for _, p := range sp.Parents {
		if s, _ := t.Shard(p.Shard); s.Generation != p.Generation || s.GenNode != p.Node ||
			s.Attached != p.Node {
			return refuse(neon.Conflict, "shard %s was attached anew while it was split", p.Shard)
		}
	}
	for _, p := range sp.Parents {
		parent, _ := t.Shard(p.Shard)
		parent.nodes(func(n neon.NodeID) {
			sp.Leftovers = append(slices.Clip(sp.Leftovers), Leftover{Shard: p.Shard, Node: n})
		})
		t.deleteShard(p.Shard)
		t.touched.Dropped = append(t.touched.Dropped, p.Shard)
		for _, id := range sp.Children(p.Shard) {
			child := parent
			child.ID, child.PreferredNode, child.Sequence = id, 0, t.Index
			child.Insisted, child.PlacedOn, child.PlacedAt = false, 0, 0
			child.ComputeAcknowledged, child.AcknowledgedNode = false, p.Node
			child.PriorNode = 0
			child.Unmanaged = false
			child.Unhealthy, child.ScrubbedAt = false, c.At
			if int(id.Number) < len(c.Secondary) {
				child.Secondary = c.Secondary[id.Number]
			}
			child.Secondary = t.validSecondaries(child.Secondary, child.Attached)
			t.setShard(child)
			t.locationUnknown(id, p.Node)
		}
	}
	tenant, _ := t.Tenant(c.Tenant)
	tenant.Count, tenant.Stripe = sp.Count, sp.Stripe
	t.setTenant(tenant)
	sp.Phase, sp.Parents = SplitDone, nil
	t.setSplit(sp)
	return Result{}
}

// AbortSplit gives up a split that is asking. The tenant stays frozen until the
// children are removed.
type AbortSplit struct {
	Tenant neon.TenantID `cbor:"1,keyasint"`
	Began  uint64        `cbor:"2,keyasint"`
	Code   neon.Code     `cbor:"3,keyasint"` // what those who asked for the split are told
	Reason string        `cbor:"4,keyasint"`
}

// maxReason bounds the text of a reason in bytes.
const maxReason = 4096

func (c AbortSplit) apply(t *txn) Result {
	sp, r := t.splitIn(c.Tenant, c.Began, SplitAsking)
	if r.Err != nil {
		return r
	}
	t.abortSplit(sp, c.Code, c.Reason)
	return Result{}
}

// FinishAbortedSplit ends a split that was aborted. The proposer has seen that no child is
// left on a pageserver that can be reached. Every parent gets a new generation,
// unless it got one meanwhile, so that nothing a child has written will ever be
// read; one whose node was deleted will get it with its next place.
type FinishAbortedSplit struct {
	Tenant neon.TenantID `cbor:"1,keyasint"`
	Began  uint64        `cbor:"2,keyasint"`
}

func (c FinishAbortedSplit) apply(t *txn) (r Result) {
	sp, r := t.splitIn(c.Tenant, c.Began, SplitAborting)
	if r.Err != nil {
		return r
	}
	for _, p := range sp.Parents {
		s, _ := t.Shard(p.Shard)
		if s.Generation == p.Generation && s.Attached == p.Node && !s.Exhausted() {
			r.Grants = append(r.Grants, t.issue(s, p.Node))
		}
	}
	t.touched.Grants = append(t.touched.Grants, r.Grants...)
	tenant, _ := t.Tenant(c.Tenant)
	t.setTenant(tenant) // wakes those who wait for the end of the split
	t.keepLeftovers(sp)
	if t.NamesEachChange() {
		t.forgetRequest(sp.Began)
	}
	return r
}

// keepLeftovers reduces a split that ended to what is still to be removed. With
// nothing left it forgets the split.
func (t *txn) keepLeftovers(sp Split) {
	if len(sp.Leftovers) == 0 {
		t.deleteSplit(sp.Tenant)
		return
	}
	sp.Phase, sp.Parents, sp.Code, sp.Reason = SplitDone, nil, "", ""
	t.setSplit(sp)
}

// ForgetLeftovers records that locations of shards that are no more were removed.
type ForgetLeftovers struct {
	Tenant    neon.TenantID `cbor:"1,keyasint"`
	Leftovers []Leftover    `cbor:"2,keyasint"`
}

func (c ForgetLeftovers) apply(t *txn) Result {
	sp, ok := t.Split(c.Tenant)
	if !ok {
		return Result{}
	}
	sp.Leftovers = slices.DeleteFunc(slices.Clone(sp.Leftovers),
		func(l Leftover) bool { return slices.Contains(c.Leftovers, l) })
	if sp.Active() {
		t.setSplit(sp)
	} else {
		t.keepLeftovers(sp)
	}
	return Result{}
}

func (t *txn) setSplit(s Split) {
	t.splits.Set(s)
	t.touched.Tenants = append(t.touched.Tenants, s.Tenant)
}

func (t *txn) deleteSplit(id neon.TenantID) {
	t.splits.Delete(id)
	t.touched.Tenants = append(t.touched.Tenants, id)
}

// abortSplitOf aborts the split of a shard that lost its pageserver or got another
// generation. Its children began in one that is not the newest any more.
func (t *txn) abortSplitOf(shard neon.ShardID, why string) {
	if sp, ok := t.Split(shard.Tenant); ok && sp.Phase == SplitAsking {
		t.abortSplit(sp, neon.Conflict, "Failed to split "+shard.String()+": "+why)
	}
}

func (t *txn) abortSplit(sp Split, code neon.Code, reason string) {
	sp.Phase, sp.Code, sp.Reason = SplitAborting, code, reason[:min(len(reason), maxReason)]
	t.setSplit(sp)
}

// abortEarlierSplits aborts the splits that an earlier leader was working on. A
// successor cannot know which of its calls are still on their way, so none of them
// may lead to a commit.
func (t *txn) abortEarlierSplits() {
	for _, sp := range slices.Collect(t.Splits()) {
		if sp.Phase == SplitAsking {
			t.abortSplit(sp, neon.Conflict, "Unexpected child shard count: the split of tenant "+
				sp.Tenant.String()+" was aborted by a new leader")
		}
	}
}
