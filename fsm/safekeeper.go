package fsm

import (
	"cmp"
	"iter"
	"slices"

	"quorate/api/neon"
)

// Safekeeper is the replicated record of one safekeeper. Ports are 0 when there
// is none.
type Safekeeper struct {
	ID        neon.NodeID `cbor:"1,keyasint"`
	Region    string      `cbor:"2,keyasint"`
	Version   int64       `cbor:"3,keyasint"` // release number of its binary
	Host      string      `cbor:"4,keyasint"`
	Port      uint16      `cbor:"5,keyasint"` // for compute
	HTTPPort  uint16      `cbor:"6,keyasint"`
	HTTPSPort uint16      `cbor:"7,keyasint,omitempty"`
	AZ        neon.AZ     `cbor:"8,keyasint"`

	Scheduling neon.SafekeeperScheduling `cbor:"9,keyasint"`

	// Gone marks one that will never come back. It owes nothing, is in the set of no
	// timeline but deleted ones, and its id is not used again.
	Gone bool `cbor:"11,keyasint,omitempty"`

	// Sequence is the log index of the last change to this record.
	Sequence uint64 `cbor:"10,keyasint"`
}

// Timeline is the replicated record of a timeline whose safekeepers the controller
// chooses. Set are the members of the configuration of this Generation; while
// NewSet is not empty the configuration is joint and the timeline is on its way
// from Set to NewSet. A timeline without safekeepers is read-only. The slices are
// shared and must not be modified.
type Timeline struct {
	Tenant     neon.TenantID
	ID         neon.TimelineID
	StartLsn   neon.Lsn
	Generation neon.SafekeeperGeneration // of the configuration; the first is 1
	Set        []neon.NodeID
	NewSet     []neon.NodeID

	// ComputeAcknowledged and QuorumAcknowledged are the newest generations that compute has
	// acknowledged and that a quorum of the members has switched to.
	ComputeAcknowledged neon.SafekeeperGeneration
	QuorumAcknowledged  neon.SafekeeperGeneration

	// Deleted marks a timeline that is gone from the pageservers: the record stays
	// until no operation on a safekeeper is left for it.
	Deleted bool

	// Sequence is the log index of the last change to this record.
	Sequence uint64
}

// Ref names the timeline.
func (t *Timeline) Ref() neon.TimelineRef {
	return neon.TimelineRef{
		Tenant: t.Tenant, Timeline: t.ID,
	}
}

// Joint reports whether a migration to NewSet is under way.
func (t *Timeline) Joint() bool { return len(t.NewSet) > 0 }

// Member reports whether a safekeeper is in the configuration, on either side of it.
func (t *Timeline) Member(id neon.NodeID) bool {
	return slices.Contains(t.Set, id) || slices.Contains(t.NewSet, id)
}

// Members are all safekeepers of the configuration: Set, then those only in NewSet.
func (t *Timeline) Members() []neon.NodeID { return union(t.Set, t.NewSet) }

// MigrationDone reports whether nothing is left to be done about a migration.
func (t *Timeline) MigrationDone() bool {
	return !t.Joint() &&
		(t.Generation == 1 ||
			t.ComputeAcknowledged == t.Generation && t.QuorumAcknowledged == t.Generation)
}

func union(a, b []neon.NodeID) []neon.NodeID {
	all := slices.Clone(a)
	return append(all, without(b, a)...)
}

// without lists what is in a and not in b.
func without(a, b []neon.NodeID) (rest []neon.NodeID) {
	for _, id := range a {
		if !slices.Contains(b, id) {
			rest = append(rest, id)
		}
	}
	return rest
}

// SafekeeperOpKind says what has still to be done on a safekeeper.
type SafekeeperOpKind uint8

// The kinds of operations.
const (
	OpPull    SafekeeperOpKind = 1 + iota // copy the timeline from the other members
	OpExclude                             // drop the timeline, of which it is no member any more
	OpDelete                              // drop a timeline or a tenant that is deleted
)

var opNames = [...]string{"none", "pull", "exclude", "delete"}

func (k SafekeeperOpKind) String() string {
	if int(k) < len(opNames) {
		return opNames[k]
	}
	return "unknown"
}

// SafekeeperOp is an operation that a safekeeper owes. There is at most one for each
// timeline, and one for a tenant as a whole, whose Timeline is zero. It stays, under
// every leader, until it was carried out.
type SafekeeperOp struct {
	Safekeeper neon.NodeID               `cbor:"1,keyasint"`
	Tenant     neon.TenantID             `cbor:"2,keyasint"`
	Timeline   neon.TimelineID           `cbor:"3,keyasint"`
	Kind       SafekeeperOpKind          `cbor:"4,keyasint"`
	Generation neon.SafekeeperGeneration `cbor:"5,keyasint"`
}

// Ref names the timeline that the operation is about.
func (o *SafekeeperOp) Ref() neon.TimelineRef {
	return neon.TimelineRef{Tenant: o.Tenant, Timeline: o.Timeline}
}

// WholeTenant reports whether the operation is about all timelines of the tenant.
func (o *SafekeeperOp) WholeTenant() bool { return o.Timeline == neon.TimelineID{} }

// opKey is what names an operation that is owed.
type opKey struct {
	safekeeper neon.NodeID
	timeline   neon.TimelineRef
}

func keyOf(o *SafekeeperOp) opKey {
	return opKey{o.Safekeeper, neon.TimelineRef{Tenant: o.Tenant, Timeline: o.Timeline}}
}

func lessOp(a, b opKey) bool {
	if a.safekeeper != b.safekeeper {
		return a.safekeeper < b.safekeeper
	}
	return lessRef(a.timeline, b.timeline)
}

// safekeeperTable holds the safekeepers, the timelines on them and the operations
// that they owe.
type safekeeperTable struct {
	safekeepers   []Safekeeper // by id; replaced, never modified
	safekeeperSum uint64       // of their hashes
	owed          []int        // how many ops each owes; derived; replaced, never modified
	timelines     table[neon.TimelineRef, Timeline]
	ops           table[opKey, SafekeeperOp]
}

func newSafekeeperTable() safekeeperTable {
	return safekeeperTable{
		timelines: newTable(tagTimeline, (*Timeline).Ref, lessRef, appendTimeline),
		ops:       newTable(tagOp, keyOf, lessOp, appendOp),
	}
}

func (s *safekeeperTable) copy() safekeeperTable {
	c := *s
	c.timelines, c.ops = s.timelines.copy(), s.ops.copy()
	return c
}

// Safekeeper finds a safekeeper.
func (s *safekeeperTable) Safekeeper(id neon.NodeID) (Safekeeper, bool) {
	i, ok := s.safekeeperIndex(id)
	if !ok {
		return Safekeeper{}, false
	}
	return s.safekeepers[i], true
}

func (s *safekeeperTable) safekeeperIndex(id neon.NodeID) (int, bool) {
	return slices.BinarySearchFunc(s.safekeepers, id,
		func(k Safekeeper, id neon.NodeID) int { return cmp.Compare(k.ID, id) })
}

// Safekeepers yields all safekeepers by id.
func (s *safekeeperTable) Safekeepers() iter.Seq[*Safekeeper] {
	return func(yield func(*Safekeeper) bool) {
		for i := range s.safekeepers {
			if !yield(&s.safekeepers[i]) {
				return
			}
		}
	}
}

// Timeline finds a timeline that has safekeepers of ours.
func (s *safekeeperTable) Timeline(tenant neon.TenantID, id neon.TimelineID) (Timeline, bool) {
	return s.timelines.Get(neon.TimelineRef{Tenant: tenant, Timeline: id})
}

// Timelines yields all timelines by tenant and id.
func (s *safekeeperTable) Timelines() iter.Seq[Timeline] {
	return func(yield func(Timeline) bool) { s.timelines.Scan(yield) }
}

// TenantTimelines yields the timelines of one tenant by id.
func (s *safekeeperTable) TenantTimelines(tenant neon.TenantID) iter.Seq[Timeline] {
	return func(yield func(Timeline) bool) {
		s.timelines.Ascend(neon.TimelineRef{Tenant: tenant},
			func(t Timeline) bool { return t.Tenant == tenant && yield(t) })
	}
}

// SafekeeperOp finds what a safekeeper owes for a timeline, or, with the zero
// timeline, for a tenant as a whole.
func (s *safekeeperTable) SafekeeperOp(
	id neon.NodeID, tenant neon.TenantID, timeline neon.TimelineID,
) (SafekeeperOp, bool) {
	return s.ops.Get(opKey{id, neon.TimelineRef{Tenant: tenant, Timeline: timeline}})
}

// SafekeeperOps yields what a safekeeper owes, beginning after the given one.
func (s *safekeeperTable) SafekeeperOps(id neon.NodeID, after SafekeeperOp) iter.Seq[SafekeeperOp] {
	return func(yield func(SafekeeperOp) bool) {
		after.Safekeeper = id
		from := keyOf(&after)
		s.ops.Ascend(from, func(o SafekeeperOp) bool {
			if o.Safekeeper != id {
				return false
			}
			return keyOf(&o) == from && after.Tenant != (neon.TenantID{}) || yield(o)
		})
	}
}

// Membership is the configuration of a timeline as safekeepers are told it. Every
// member of a timeline is registered.
func (s *safekeeperTable) Membership(t *Timeline) neon.Membership {
	m := neon.Membership{Generation: t.Generation, Members: s.members(t.Set)}
	if t.Joint() {
		m.NewMembers = new(s.members(t.NewSet))
	}
	return m
}

func (s *safekeeperTable) members(set []neon.NodeID) neon.List[neon.SafekeeperMember] {
	list := neon.List[neon.SafekeeperMember]{}
	for _, id := range set {
		k, _ := s.Safekeeper(id)
		list = append(list, neon.SafekeeperMember{ID: id, Host: k.Host, PgPort: k.Port})
	}
	return list
}

// Owed is how many operations a safekeeper owes.
func (s *safekeeperTable) Owed(id neon.NodeID) int {
	if i, ok := s.safekeeperIndex(id); ok {
		return s.owed[i]
	}
	return 0
}

// putOp inserts or replaces an operation.
func (s *safekeeperTable) putOp(op SafekeeperOp) {
	if _, had := s.ops.Set(op); !had {
		s.countOp(op.Safekeeper, +1)
	}
}

// dropOp forgets an operation and reports whether it was there.
func (s *safekeeperTable) dropOp(op SafekeeperOp) (had bool) {
	if _, had = s.ops.Delete(keyOf(&op)); had {
		s.countOp(op.Safekeeper, -1)
	}
	return had
}

func (s *safekeeperTable) countOp(id neon.NodeID, by int) {
	if i, ok := s.safekeeperIndex(id); ok {
		s.owed = slices.Clone(s.owed)
		s.owed[i] += by
	}
}

// countOps counts all operations anew.
func (s *safekeeperTable) countOps() {
	s.owed = make([]int, len(s.safekeepers))
	s.ops.Scan(func(op SafekeeperOp) bool {
		if i, ok := s.safekeeperIndex(op.Safekeeper); ok {
			s.owed[i]++
		}
		return true
	})
}

// SafekeeperOpCount is how many operations all safekeepers owe.
func (s *safekeeperTable) SafekeeperOpCount() int { return s.ops.Len() }

// checkSet refuses a set of safekeepers that a timeline of the tenant cannot have:
// one with a stranger or a repetition, and one with a safekeeper that has still to
// delete the tenant or, as far as its id was used before, the timeline.
func (s *safekeeperTable) checkSet(tenant neon.TenantID, set []neon.NodeID) Result {
	if len(set) > maxMembers {
		return refuse(neon.BadRequest, "%d safekeepers for one timeline are too many", len(set))
	}
	for i, id := range set {
		if slices.Contains(set[:i], id) {
			return refuse(neon.BadRequest, "duplicate safekeeper id in the set %v", set)
		}
		switch k, ok := s.Safekeeper(id); {
		case !ok:
			return refuse(neon.Conflict, "safekeeper %d is not registered", id)
		case k.Gone:
			return refuse(neon.Conflict, "safekeeper %d is gone", id)
		}
		if _, owes := s.SafekeeperOp(id, tenant, neon.TimelineID{}); owes {
			return refuse(neon.Conflict, "safekeeper %d has still to delete an earlier tenant %s",
				id, tenant)
		}
	}
	return Result{}
}

func (s *safekeeperTable) liveTimeline(
	tenant neon.TenantID, id neon.TimelineID,
) (Timeline, Result) {
	tl, ok := s.Timeline(tenant, id)
	if !ok || tl.Deleted {
		return tl, refuse(neon.NotFound, "timeline %s/%s not found", tenant, id)
	}
	return tl, Result{}
}

// forgetIfDone forgets a deleted timeline if nothing is owed for it.
func (s *safekeeperTable) forgetIfDone(tenant neon.TenantID, id neon.TimelineID) {
	if tl, ok := s.Timeline(tenant, id); !ok || !tl.Deleted {
		return
	}
	for i := range s.safekeepers {
		if _, owed := s.SafekeeperOp(s.safekeepers[i].ID, tenant, id); owed {
			return
		}
	}
	s.timelines.Delete(neon.TimelineRef{Tenant: tenant, Timeline: id})
}

// forgetOps cancels what is owed for a timeline whose configuration an operator
// has replaced.
func (s *safekeeperTable) forgetOps(tl Timeline) {
	for i := range s.safekeepers {
		s.dropOp(SafekeeperOp{
			Safekeeper: s.safekeepers[i].ID, Tenant: tl.Tenant, Timeline: tl.ID,
		})
	}
}
