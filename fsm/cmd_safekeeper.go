package fsm

import (
	"math"
	"slices"

	"quorate/api/neon"
)

// maxMembers bounds the safekeepers of one timeline.
const maxMembers = 255

// lastGeneration is the generation of operations that nothing later can overtake.
const lastGeneration = neon.SafekeeperGeneration(math.MaxInt32)

// UpsertSafekeeper adds a safekeeper, which starts as Activating, or updates all
// but the scheduling policy of a known one. It is refused as a Conflict for one that is
// Gone.
type UpsertSafekeeper struct {
	ID        neon.NodeID `cbor:"1,keyasint"`
	Region    string      `cbor:"2,keyasint"`
	Version   int64       `cbor:"3,keyasint"`
	Host      string      `cbor:"4,keyasint"`
	Port      uint16      `cbor:"5,keyasint"`
	HTTPPort  uint16      `cbor:"6,keyasint"`
	HTTPSPort uint16      `cbor:"7,keyasint,omitempty"`
	AZ        neon.AZ     `cbor:"8,keyasint"`
}

func (c UpsertSafekeeper) apply(t *txn) Result {
	if c.ID == 0 {
		return refuse(neon.BadRequest, "safekeeper id 0 is reserved")
	}
	if r := refuseBy(c.ID.Check()); r.Err != nil && t.bounded() {
		return r
	}
	if len(c.Host) > maxName || len(c.Region) > maxName || len(c.AZ.String()) > maxName {
		return refuse(neon.BadRequest, "a name of safekeeper %d has more than %d bytes", c.ID,
			maxName)
	}
	old, known := t.Safekeeper(c.ID)
	next := Safekeeper{
		ID: c.ID, Region: c.Region, Version: c.Version, Host: c.Host, Port: c.Port,
		HTTPPort:  c.HTTPPort,
		HTTPSPort: c.HTTPSPort, AZ: c.AZ, Scheduling: neon.SafekeeperActivating,
	}
	if old.Gone {
		return gone(c.ID)
	}
	if known {
		next.Scheduling, next.Sequence = old.Scheduling, old.Sequence
	}
	if !known || next != old {
		t.setSafekeeper(next)
	}
	return Result{}
}

// SetSafekeeperScheduling records how a safekeeper is to be used. With From it
// holds only while the policy is that one, and is passed over otherwise; without,
// it is an operator's order.
type SetSafekeeperScheduling struct {
	Safekeeper neon.NodeID               `cbor:"1,keyasint"`
	From       neon.SafekeeperScheduling `cbor:"2,keyasint,omitempty"`
	To         neon.SafekeeperScheduling `cbor:"3,keyasint"`
}

func (c SetSafekeeperScheduling) apply(t *txn) Result {
	if !c.To.Valid() {
		return refuse(neon.BadRequest, "unknown scheduling policy %q", c.To)
	}
	k, ok := t.Safekeeper(c.Safekeeper)
	if !ok {
		return refuse(neon.NotFound, "safekeeper %d is not registered", c.Safekeeper)
	}
	if k.Gone && k.Scheduling != c.To {
		return gone(k.ID)
	}
	if k.Scheduling != c.To && (c.From == "" || c.From == k.Scheduling) {
		k.Scheduling = c.To
		t.setSafekeeper(k)
	}
	return Result{}
}

// gone refuses what would bring a safekeeper back that was declared gone. What it was told to
// drop is forgotten, so what it has must never be taken for a copy again.
func gone(id neon.NodeID) Result {
	return refuse(neon.Conflict, "safekeeper %d is gone for good: register it under another id", id)
}

// SettleSafekeeper declares a safekeeper gone. What it owes is settled, and deleted
// timelines that only waited for it are forgotten. It is refused unless the safekeeper is
// decommissioned, and while a timeline is on it. Repeating it is accepted.
type SettleSafekeeper struct {
	Safekeeper neon.NodeID `cbor:"1,keyasint"`
}

// Level is the second: the first version knows no safekeeper that is gone.
func (SettleSafekeeper) Level() uint64 { return secondLevel }

func (c SettleSafekeeper) apply(t *txn) Result {
	k, ok := t.Safekeeper(c.Safekeeper)
	switch {
	case !ok:
		return refuse(neon.NotFound, "safekeeper %d is not registered", c.Safekeeper)
	case k.Gone:
		return Result{}
	case k.Scheduling != neon.SafekeeperDecomissioned:
		return refuse(neon.PreconditionFailed, "safekeeper %d is %s and not decomissioned", k.ID,
			k.Scheduling)
	}
	on, first := 0, neon.TimelineRef{}
	for tl := range t.Timelines() {
		if tl.Member(k.ID) && !tl.Deleted {
			if on++; on == 1 {
				first = tl.Ref()
			}
		}
	}
	if on > 0 {
		return refuse(neon.PreconditionFailed,
			"%d timelines are on safekeeper %d, such as %s: migrate them first", on, k.ID, first)
	}
	k.Gone = true
	t.setSafekeeper(k)
	for _, op := range slices.Collect(t.SafekeeperOps(k.ID, SafekeeperOp{})) {
		t.dropOp(op)
		t.forgetIfDone(op.Tenant, op.Timeline)
	}
	return Result{}
}

func (t *txn) setSafekeeper(k Safekeeper) {
	// The slice is small and changes are rare: it is copied each time.
	k.Sequence = t.Index
	i, found := t.safekeeperIndex(k.ID)
	t.safekeepers = slices.Clone(t.safekeepers)
	t.safekeeperSum += hashCBOR(tagSafekeeper, k)
	if found {
		t.safekeeperSum -= hashCBOR(tagSafekeeper, t.safekeepers[i])
		t.safekeepers[i] = k
	} else {
		t.safekeepers = slices.Insert(t.safekeepers, i, k)
		t.owed = slices.Insert(slices.Clone(t.owed), i, 0)
	}
	t.touched.Safekeepers = append(t.touched.Safekeepers, k.ID)
}

func (t *txn) setTimeline(tl Timeline) {
	tl.Sequence = t.Index
	tl.Set, tl.NewSet = slices.Clip(tl.Set), slices.Clip(tl.NewSet)
	t.timelines.Set(tl)
}

// owe records what a safekeeper has to do, unless it is gone.
func (t *txn) owe(op SafekeeperOp) {
	if k, _ := t.Safekeeper(op.Safekeeper); k.Gone {
		return
	}
	t.putOp(op)
	t.touched.Safekeepers = append(t.touched.Safekeepers, op.Safekeeper)
}

// CreateTimeline records the safekeepers of a new timeline, before any of them
// hears of it. A timeline that exists keeps what it has. So a client that repeats a
// creation finds the set that was chosen first.
type CreateTimeline struct {
	Tenant   neon.TenantID   `cbor:"1,keyasint"`
	Timeline neon.TimelineID `cbor:"2,keyasint"`
	StartLsn neon.Lsn        `cbor:"3,keyasint"`
	Set      []neon.NodeID   `cbor:"4,keyasint,omitempty"`

	// Imported makes it hold only while the timeline is being imported: its
	// deletion must not be overtaken.
	Imported bool `cbor:"5,keyasint,omitempty"`
}

func (c CreateTimeline) apply(t *txn) Result {
	if tenant, ok := t.Tenant(c.Tenant); !ok || tenant.Deleting {
		return refuse(neon.NotFound, "Tenant %s not found", c.Tenant)
	}
	ref := neon.TimelineRef{Tenant: c.Tenant, Timeline: c.Timeline}
	if i, ok := t.Import(ref); c.Imported && (!ok || i.Finished) {
		return refuse(neon.NotFound, "Import for %s not found", ref)
	}
	if _, going := t.TimelineDelete(ref); going {
		return refuse(neon.Conflict, "timeline %s is being deleted", ref)
	}
	if tl, ok := t.Timeline(c.Tenant, c.Timeline); ok {
		if tl.Deleted {
			return refuse(neon.Conflict, "timeline %s/%s is being deleted", c.Tenant, c.Timeline)
		}
		return Result{}
	}
	if r := t.checkSet(c.Tenant, c.Set); r.Err != nil {
		return r
	}
	t.setTimeline(Timeline{
		Tenant: c.Tenant, ID: c.Timeline, StartLsn: c.StartLsn, Generation: 1, Set: c.Set,
	})
	return Result{}
}

// PullTimeline makes members that missed the creation of a timeline copy it from the
// others. It changes nothing when the configuration is not the one of this Generation
// any more: the change of the configuration has taken care of the members.
type PullTimeline struct {
	Tenant      neon.TenantID             `cbor:"1,keyasint"`
	Timeline    neon.TimelineID           `cbor:"2,keyasint"`
	Generation  neon.SafekeeperGeneration `cbor:"3,keyasint"`
	Safekeepers []neon.NodeID             `cbor:"4,keyasint"`
}

func (c PullTimeline) apply(t *txn) Result {
	tl, r := t.liveTimeline(c.Tenant, c.Timeline)
	if r.Err != nil || tl.Generation != c.Generation {
		return r
	}
	for _, id := range c.Safekeepers {
		if tl.Member(id) {
			t.owe(SafekeeperOp{
				Safekeeper: id, Tenant: c.Tenant, Timeline: c.Timeline, Kind: OpPull,
				Generation: c.Generation,
			})
		}
	}
	return Result{}
}

// FinishSafekeeperOps records that operations were carried out. An operation that was
// replaced by another kind or generation meanwhile is still owed. A deleted timeline
// is forgotten with its last operation.
type FinishSafekeeperOps struct {
	Ops []SafekeeperOp `cbor:"1,keyasint"`
}

func (c FinishSafekeeperOps) apply(t *txn) Result {
	for _, op := range c.Ops {
		owed, ok := t.SafekeeperOp(op.Safekeeper, op.Tenant, op.Timeline)
		if !ok || owed != op {
			continue
		}
		t.dropOp(op)
		t.touched.Safekeepers = append(t.touched.Safekeepers, op.Safekeeper)
		t.forgetIfDone(op.Tenant, op.Timeline)
	}
	return Result{}
}

// DeleteTimeline makes all safekeepers of a timeline drop it, and ends its recorded
// deletion. The proposer has seen that no pageserver has anything left of it.
// Repeating it is accepted, and so is a timeline without a record, which has no
// safekeepers of ours.
type DeleteTimeline struct {
	Tenant   neon.TenantID   `cbor:"1,keyasint"`
	Timeline neon.TimelineID `cbor:"2,keyasint"`
}

func (c DeleteTimeline) apply(t *txn) Result {
	t.forgetWork(neon.TimelineRef{Tenant: c.Tenant, Timeline: c.Timeline})
	tl, ok := t.Timeline(c.Tenant, c.Timeline)
	if !ok || tl.Deleted {
		return Result{}
	}
	tl.Deleted = true
	t.setTimeline(tl)
	for _, id := range tl.Members() {
		t.owe(SafekeeperOp{
			Safekeeper: id, Tenant: c.Tenant, Timeline: c.Timeline, Kind: OpDelete,
			Generation: lastGeneration,
		})
	}
	t.forgetIfDone(c.Tenant, c.Timeline)
	return Result{}
}

// deleteTenantTimelines makes the safekeepers of a forgotten tenant delete the tenant as
// a whole. This replaces everything that they owed for single timelines of it.
func (t *txn) deleteTenantTimelines(tenant neon.TenantID) {
	var gone []Timeline
	for tl := range t.TenantTimelines(tenant) {
		gone = append(gone, tl)
	}
	if len(gone) == 0 {
		return
	}
	for i := range t.safekeepers {
		id, has := t.safekeepers[i].ID, false
		for _, tl := range gone {
			owed := t.dropOp(SafekeeperOp{Safekeeper: id, Tenant: tenant, Timeline: tl.ID})
			has = has || owed || tl.Member(id)
		}
		if has {
			t.owe(SafekeeperOp{
				Safekeeper: id, Tenant: tenant, Kind: OpDelete, Generation: lastGeneration,
			})
		}
	}
	for _, tl := range gone {
		t.timelines.Delete(tl.Ref())
	}
}
