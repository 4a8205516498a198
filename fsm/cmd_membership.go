package fsm

import (
	"slices"

	"quorate/api/neon"
)

// ImportTimeline records a timeline that its safekeepers have already, or corrects the
// record of one. A record keeps its generation unless the set changes: one generation
// never stands for two configurations.
type ImportTimeline struct {
	Tenant   neon.TenantID   `cbor:"1,keyasint"`
	Timeline neon.TimelineID `cbor:"2,keyasint"`
	StartLsn neon.Lsn        `cbor:"3,keyasint"`
	Set      []neon.NodeID   `cbor:"4,keyasint,omitempty"`
}

func (c ImportTimeline) apply(t *txn) Result {
	if tenant, ok := t.Tenant(c.Tenant); ok && tenant.Deleting {
		return refuse(neon.Conflict, "tenant %s is being deleted", c.Tenant)
	}
	if r := t.checkSet(c.Tenant, c.Set); r.Err != nil {
		return r
	}
	tl, ok := t.Timeline(c.Tenant, c.Timeline)
	switch {
	case !ok:
		tl = Timeline{
			Tenant: c.Tenant, ID: c.Timeline, Generation: 1, ComputeAcknowledged: 1,
			QuorumAcknowledged: 1,
		}
	case tl.Deleted:
		return refuse(neon.Conflict, "timeline %s/%s is being deleted", c.Tenant, c.Timeline)
	case tl.Joint() || !slices.Equal(tl.Set, c.Set):
		if tl.Generation >= lastGeneration-1 {
			return refuse(neon.Internal, "generations of timeline %s are used up", c.Timeline)
		}
		tl.Generation++
		t.forgetOps(tl)
	}
	tl.StartLsn, tl.Set, tl.NewSet = c.StartLsn, c.Set, nil
	t.setTimeline(tl)
	return Result{}
}

// BeginMembership starts the migration of a timeline to another set: its
// configuration becomes joint, under the next generation. It is based on the
// configuration of Generation and refused as a Conflict when that is over.
type BeginMembership struct {
	Tenant     neon.TenantID             `cbor:"1,keyasint"`
	Timeline   neon.TimelineID           `cbor:"2,keyasint"`
	Generation neon.SafekeeperGeneration `cbor:"3,keyasint"`
	NewSet     []neon.NodeID             `cbor:"4,keyasint"`
}

func (c BeginMembership) apply(t *txn) Result {
	tl, r := t.liveTimeline(c.Tenant, c.Timeline)
	if r.Err != nil {
		return r
	}
	switch {
	case tl.Generation != c.Generation || tl.Joint():
		return refuse(neon.Conflict,
			"the configuration of timeline %s was changed by somebody else", c.Timeline)
	case tl.Generation >= lastGeneration-2:
		return refuse(neon.Internal, "generations of timeline %s are used up", c.Timeline)
	case len(c.NewSet) == 0:
		return refuse(neon.BadRequest, "new safekeeper set is empty")
	case len(tl.Set) == 0:
		return refuse(neon.BadRequest, "timeline %s is read-only and has no safekeepers",
			c.Timeline)
	}
	if r := t.checkSet(c.Tenant, c.NewSet); r.Err != nil {
		return r
	}
	tl.Generation, tl.NewSet = tl.Generation+1, c.NewSet
	t.setTimeline(tl)
	// A new member that has still to delete an old copy gets a new copy anyway.
	for _, id := range without(c.NewSet, tl.Set) {
		t.dropOp(SafekeeperOp{Safekeeper: id, Tenant: c.Tenant, Timeline: c.Timeline})
	}
	return Result{}
}

// MembershipVerdict says how a migration ends.
type MembershipVerdict uint8

// The ends of a migration.
const (
	MembershipAbort  MembershipVerdict = iota // the old set stays
	MembershipCommit                          // the new set stays
)

// EndMembership ends a migration. The set that stays becomes the configuration of the
// next generation. The others owe their exclusion. It is refused as a Conflict unless
// the joint configuration of Generation still holds, so that a commit and an abort
// cannot both succeed.
type EndMembership struct {
	Tenant     neon.TenantID             `cbor:"1,keyasint"`
	Timeline   neon.TimelineID           `cbor:"2,keyasint"`
	Generation neon.SafekeeperGeneration `cbor:"3,keyasint"`
	Verdict    MembershipVerdict         `cbor:"4,keyasint,omitempty"`
}

func (c EndMembership) apply(t *txn) Result {
	tl, r := t.liveTimeline(c.Tenant, c.Timeline)
	if r.Err != nil {
		return r
	}
	if !tl.Joint() || tl.Generation != c.Generation {
		return refuse(neon.Conflict, "the migration of timeline %s has ended already", c.Timeline)
	}
	if c.Verdict > MembershipCommit {
		return refuse(neon.BadRequest, "a migration does not end as %d", c.Verdict)
	}
	stay, leave := tl.Set, without(tl.NewSet, tl.Set)
	if c.Verdict == MembershipCommit {
		stay, leave = tl.NewSet, without(tl.Set, tl.NewSet)
	}
	tl.Generation, tl.Set, tl.NewSet = tl.Generation+1, stay, nil
	t.setTimeline(tl)
	for _, id := range leave {
		t.owe(SafekeeperOp{
			Safekeeper: id, Tenant: c.Tenant, Timeline: c.Timeline, Kind: OpExclude,
			Generation: tl.Generation,
		})
	}
	return Result{}
}

// AckMembership records who knows the configuration of a generation: compute, or
// a quorum of the safekeepers. What is known already is never forgotten.
type AckMembership struct {
	Tenant   neon.TenantID             `cbor:"1,keyasint"`
	Timeline neon.TimelineID           `cbor:"2,keyasint"`
	Compute  neon.SafekeeperGeneration `cbor:"3,keyasint,omitempty"` // 0: nothing new
	Set      neon.SafekeeperGeneration `cbor:"4,keyasint,omitempty"`
}

func (c AckMembership) apply(t *txn) Result {
	tl, r := t.liveTimeline(c.Tenant, c.Timeline)
	if r.Err != nil {
		return r
	}
	next := tl
	next.ComputeAcknowledged = max(tl.ComputeAcknowledged, min(c.Compute, tl.Generation))
	next.QuorumAcknowledged = max(tl.QuorumAcknowledged, min(c.Set, tl.Generation))
	if next.ComputeAcknowledged != tl.ComputeAcknowledged ||
		next.QuorumAcknowledged != tl.QuorumAcknowledged {
		t.setTimeline(next)
	}
	return Result{}
}
