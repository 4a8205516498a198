package fsm

import (
	"slices"

	"quorate/api/neon"
)

// NewShard is the first intent of one shard of a new tenant.
type NewShard struct {
	Attached    neon.NodeID   `cbor:"1,keyasint,omitempty"`
	Secondary   []neon.NodeID `cbor:"2,keyasint,omitempty"`
	PreferredAZ neon.AZ       `cbor:"3,keyasint"`
}

// CreateTenant adds a tenant with all its shards, Shards[i] being number i. It is
// refused as a Conflict when the tenant exists with whatever shard count, so a
// late retry can never add a second set of shards.
type CreateTenant struct {
	ID         neon.TenantID        `cbor:"1,keyasint"`
	Count      neon.ShardCount      `cbor:"2,keyasint"`
	Stripe     neon.StripeSize      `cbor:"3,keyasint"`
	Policy     neon.Placement       `cbor:"4,keyasint"`
	Scheduling neon.ShardScheduling `cbor:"5,keyasint"`
	Config     neon.TenantConfig    `cbor:"6,keyasint"`

	// Generation is where numbering starts: the first attach uses the next one.
	// NoGeneration leaves it open, for a tenant onboarded as Secondary.
	Generation   neon.Generation `cbor:"7,keyasint"`
	NoGeneration bool            `cbor:"8,keyasint,omitempty"`

	Shards []NewShard `cbor:"9,keyasint"`

	// At is the Unix time of the creation in milliseconds.
	At int64 `cbor:"10,keyasint,omitempty"`
}

func (c CreateTenant) apply(t *txn) Result {
	if _, ok := t.Tenant(c.ID); ok {
		return refuse(neon.Conflict, "Tenant %s already exists", c.ID)
	}
	if r := t.Frozen(c.ID); r.Err != nil {
		return r
	}
	if len(c.Shards) != c.Count.Shards() {
		return refuse(neon.BadRequest, "tenant %s: %d shards given for count %d", c.ID,
			len(c.Shards), c.Count)
	}
	tenant := Tenant{
		ID: c.ID, Count: c.Count, Stripe: c.Stripe, Policy: c.Policy, Scheduling: c.Scheduling,
		Config: c.Config,
	}
	if r := tenant.wellFormed(); r.Err != nil {
		return r
	}
	if r := t.checkFirst(c.ID, c.Generation); r.Err != nil {
		return r
	}
	if r := refuseBy(c.Stripe.Check()); r.Err != nil && t.bounded() {
		return r
	}
	ids := tenant.Shards()
	for i, n := range c.Shards {
		if len(n.PreferredAZ.String()) > maxName {
			return refuse(neon.BadRequest, "the zone of %s has more than %d bytes", ids[i], maxName)
		}
		in := Intent{Shard: ids[i], Attached: n.Attached, Secondary: n.Secondary}
		if !t.fits(c.Policy, in) || !welcome(t, &Shard{}, &in) {
			return refuse(neon.Conflict, "placement of %s does not hold any more", ids[i])
		}
	}
	t.setTenant(tenant)
	first, remembered := t.firstGeneration(c.ID, c.Generation)
	for i, n := range c.Shards {
		t.setShard(Shard{
			ID: ids[i], Generation: first, HasGeneration: remembered || !c.NoGeneration,
			Attached: n.Attached, Secondary: slices.Clip(n.Secondary), PreferredAZ: n.PreferredAZ,
			Sequence:   t.Index,
			ScrubbedAt: c.At,
		})
	}
	return Result{}
}

// UpdateTenant changes policy, scheduling or configuration, and the intents that
// follow from it, in one entry. It is based on the tenant record with this
// Sequence and refused as a Conflict, whole, when that or any shard moved.
type UpdateTenant struct {
	ID         neon.TenantID         `cbor:"1,keyasint"`
	Sequence   uint64                `cbor:"2,keyasint"`
	Policy     *neon.Placement       `cbor:"3,keyasint,omitempty"`
	Scheduling *neon.ShardScheduling `cbor:"4,keyasint,omitempty"`
	Config     *neon.TenantConfig    `cbor:"5,keyasint,omitempty"`
	Intents    []Intent              `cbor:"6,keyasint,omitempty"`

	// Generation is taken only by shards that have none yet.
	Generation *neon.Generation `cbor:"7,keyasint,omitempty"`
}

func (c UpdateTenant) apply(t *txn) Result {
	tenant, ok := t.Tenant(c.ID)
	if !ok || tenant.Deleting {
		return refuse(neon.NotFound, "Tenant %s not found", c.ID)
	}
	if r := t.Frozen(c.ID); r.Err != nil {
		return r
	}
	if tenant.Sequence != c.Sequence {
		return refuse(neon.Conflict, "tenant %s was changed by somebody else", c.ID)
	}
	was := tenant.Scheduling
	if c.Policy != nil {
		tenant.Policy = *c.Policy
	}
	if c.Scheduling != nil {
		tenant.Scheduling = *c.Scheduling
	}
	if c.Config != nil {
		tenant.Config = *c.Config
	}
	if r := tenant.wellFormed(); r.Err != nil {
		return r
	}
	if c.Generation != nil && t.bounded() {
		if r := refuseBy(c.Generation.Check()); r.Err != nil {
			return r
		}
	}
	for _, in := range c.Intents {
		s, ok := t.Shard(in.Shard)
		if !ok || in.Shard.Tenant != c.ID || s.Sequence != in.Sequence ||
			!t.fits(tenant.Policy, in) || !holds(t, in.Basis, &s) || !welcome(t, &s, &in) {
			return refuse(neon.Conflict, "placement of %s does not hold any more", in.Shard)
		}
	}
	t.setTenant(tenant)
	t.applyPolicy(tenant, c.Generation)
	if c.Policy != nil || c.Config != nil {
		t.manageTenant(tenant)
	}
	for _, in := range c.Intents {
		s, _ := t.Shard(in.Shard)
		t.setIntent(s, in)
	}
	if t.KnowsBasis() {
		endMovesOf(t, tenant, was)
	}
	return Result{}
}

// Level is the second with what the first version does not know.
func (c UpdateTenant) Level() uint64 { return levelOf(c.Intents) }

// applyPolicy brings the shards of a tenant in line with its policy: a policy that is
// not Attached has no owner of the newest generation, and one that is Detached
// has no intent. A first generation is taken by shards without one.
func (t *txn) applyPolicy(tenant Tenant, first *neon.Generation) {
	for _, id := range tenant.Shards() {
		s, _ := t.Shard(id)
		next := s
		if !s.HasGeneration && (first != nil || tenant.Policy.Kind == neon.PlaceAttached) {
			next.HasGeneration = true
			if first != nil {
				next.Generation = max(next.Generation, *first)
			}
		}
		if tenant.Policy.Kind != neon.PlaceAttached {
			next.GenNode, next.ComputeAcknowledged, next.AcknowledgedNode = 0, false, 0
			next.PriorNode = 0
			next.Attached, next.PreferredNode, next.Insisted = 0, 0, false
		}
		if tenant.Policy.Kind == neon.PlaceDetached {
			next.Secondary = nil
		}
		if next.Attached != s.Attached || len(next.Secondary) != len(s.Secondary) {
			next.Sequence = t.Index
		}
		t.setShard(next)
	}
}

// manageTenant makes the unmanaged shards of a tenant managed ones.
func (t *txn) manageTenant(tenant Tenant) {
	for _, id := range tenant.Shards() {
		if s, _ := t.Shard(id); s.Unmanaged {
			t.manage(&s)
			t.setShard(s)
		}
	}
}

// BeginDeleteTenant starts the deletion of a tenant: from here on it has no
// intent and takes no other change, whatever its scheduling policy said.
// Repeating it is accepted.
type BeginDeleteTenant struct {
	ID neon.TenantID `cbor:"1,keyasint"`
}

func (c BeginDeleteTenant) apply(t *txn) Result {
	tenant, ok := t.Tenant(c.ID)
	if !ok {
		return refuse(neon.NotFound, "Tenant %s not found", c.ID)
	}
	if r := t.Frozen(c.ID); r.Err != nil {
		return r
	}
	if tenant.Deleting {
		return Result{} // under the Sequence it has
	}
	tenant.Deleting = true
	tenant.Policy, tenant.Scheduling = neon.Placement{}, neon.ShardActive
	t.setTenant(tenant)
	t.applyPolicy(tenant, nil)
	t.manageTenant(tenant)
	t.forgetTenantWork(c.ID)
	return Result{}
}

// NoteRemover records which pageserver is asked to remove the remote data of a tenant
// that is being deleted, before it is asked. It goes on when its caller is gone, so no
// other may be asked before it has ended: else the one that is slower would remove the
// data of the next tenant of that id. It is refused as a Conflict while the process that
// is recorded may be at it, unless that is the one that has Ended; when the deletion, as
// its Sequence names it, is over; and in another term of leadership.
type NoteRemover struct {
	ID       neon.TenantID `cbor:"1,keyasint"`
	Sequence uint64        `cbor:"2,keyasint"`
	Node     neon.NodeID   `cbor:"3,keyasint"`

	// Ended is a pageserver that has told the proposer that its removal has ended; 0: none.
	Ended neon.NodeID `cbor:"4,keyasint,omitempty"`

	// Term is that of the leader who was told so. The next one may have asked again.
	Term uint64 `cbor:"5,keyasint,omitempty"`
}

// Level is the second: the first version knows no remover.
func (NoteRemover) Level() uint64 { return secondLevel }

func (c NoteRemover) apply(t *txn) Result {
	tenant, ok := t.Tenant(c.ID)
	if !ok || !tenant.Deleting || tenant.Sequence != c.Sequence {
		return refuse(neon.Conflict, "that deletion of tenant %s is over", c.ID)
	}
	if c.Term != t.Leader.Term {
		return refuse(neon.Conflict, "another term of leadership has begun")
	}
	if n, removing := t.Removing(&tenant); removing && n.ID != c.Ended {
		return refuse(neon.Conflict, "pageserver %d removes the remote data of tenant %s", n.ID,
			c.ID)
	}
	n, r := t.liveNode(c.Node)
	if r.Err == nil {
		tenant.Remover = Remover{Node: n.ID, Incarnation: n.Incarnation}
		t.noteTenant(tenant)
	}
	return r
}

// FinishDeleteTenant forgets a tenant whose deletion was begun. The proposer has
// seen that no location is left and that the remote data is gone. Sequence, unless
// it is 0, is that of the tenant record since then: the command is refused as a
// Conflict when it is about an earlier tenant of that id.
type FinishDeleteTenant struct {
	ID       neon.TenantID `cbor:"1,keyasint"`
	Sequence uint64        `cbor:"2,keyasint,omitempty"`
}

func (c FinishDeleteTenant) apply(t *txn) Result {
	tenant, ok := t.Tenant(c.ID)
	if !ok {
		return Result{}
	}
	if !tenant.Deleting {
		return refuse(neon.PreconditionFailed, "deletion of tenant %s was not begun", c.ID)
	}
	if c.Sequence != 0 && c.Sequence != tenant.Sequence {
		return refuse(neon.Conflict, "that deletion of tenant %s is over", c.ID)
	}
	t.forgetTenant(tenant)
	t.deleteTenantTimelines(c.ID)
	return Result{}
}

// forgetTenant forgets a tenant but for its numbers.
func (t *txn) forgetTenant(tenant Tenant) {
	t.forgetTenantWork(tenant.ID)
	t.deleteTenant(tenant)
	t.splits.Delete(tenant.ID)
	g := tenantTombstone{tenant: tenant.ID}
	for _, id := range tenant.Shards() {
		s, _ := t.Shard(id)
		g.generation = max(g.generation, s.Generation)
		t.deleteShard(id)
	}
	t.deletedTenants.add(g)
}

// DropTenant forgets a tenant at once, whatever pageservers have of it: for
// support. What is recorded of its timelines stays, in case it is imported again.
// To drop an unknown tenant is accepted. It is refused as a Conflict while a pageserver
// may be removing the remote data: it would remove that of the next tenant of that id.
type DropTenant struct {
	ID neon.TenantID `cbor:"1,keyasint"`
}

func (c DropTenant) apply(t *txn) Result {
	tenant, ok := t.Tenant(c.ID)
	if !ok {
		return Result{}
	}
	if n, removing := t.Removing(&tenant); removing {
		return refuse(neon.Conflict, "pageserver %d removes the remote data of tenant %s", n.ID,
			c.ID)
	}
	for _, d := range t.deletesOf(c.ID) {
		if t.NamesEachChange() {
			t.forgetRequest(d.Sequence)
		}
	}
	t.forgetTenant(tenant)
	t.touched.Dropped = append(t.touched.Dropped, tenant.Shards()...)
	return Result{}
}
