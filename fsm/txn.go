package fsm

import (
	"slices"

	"quorate/api/neon"
)

// txn builds the next State from the last. It has private copies of the tables, so
// that one batch of log entries pays for copying once. Commands change the State
// through it, and it records what they touched.
type txn struct {
	State
	touched Touched
}

// Touched says what a batch changed, for subscribers that keep something derived.
type Touched struct {
	Shards  []neon.ShardID // may repeat
	Tenants []neon.TenantID
	Nodes   []neon.NodeID

	// Safekeepers have a new record or owe something else than before.
	Safekeepers []neon.NodeID

	// Timelines is set when an import or the deletion of a timeline changed.
	Timelines bool

	// Grants are the generations issued for an attach that the leader will ask
	// for. Those of a re-attach are not here: the pageserver has them already.
	Grants []Grant

	// Dropped are shards that do not exist any more, whatever pageservers have of them: of
	// tenants that were forgotten, and the parents of splits.
	Dropped []neon.ShardID

	// UnknownLocations are places where a split or a client makes locations come and
	// go. What the leader has observed there before does not hold any more.
	UnknownLocations []Leftover
}

func begin(s *State) *txn { return &txn{State: s.copy()} }

// snapshot is an immutable copy of what the txn has built. The txn may go on.
func (t *txn) snapshot() *State {
	s := t.State.copy()
	t.nodeTable.owned = false
	return &s
}

// Apply is the pure transition: one command, applied to s at a log index.
func Apply(s *State, index uint64, id RequestID, c Command) (*State, Result) {
	t := begin(s)
	r := t.run(index, id, c)
	return t.snapshot(), r
}

func (t *txn) run(index uint64, id RequestID, c Command) Result {
	t.Index = index
	if index, seen := t.doneBefore(id, c); seen {
		return Result{Index: index, Duplicate: true}
	}
	var r Result
	if err := Admit(&t.State, c); err != nil {
		r.Err = err.(*neon.Error)
	} else {
		r = c.apply(t)
	}
	r.Index = index
	if r.Err == nil && id != (RequestID{}) && !(t.NamesEachChange() && t.allRefused(c, r)) {
		t.done.add(request{id: id, kind: c.kind(), index: index})
	}
	return r
}

// allRefused reports whether a command that was taken has changed nothing: the condition of
// none of its items held, or it was there.
func (t *txn) allRefused(c Command, r Result) bool {
	switch c := c.(type) {
	case BeginDeleteTimeline: // of one that is being deleted
		d, ok := t.TimelineDelete(neon.TimelineRef{Tenant: c.Tenant, Timeline: c.Timeline})
		return r.Err == nil && (!ok || d.Sequence != t.Index)
	case BeginTravel: // of one that is under way
		travel, ok := t.Travel(c.Tenant)
		return r.Err == nil && (!ok || travel.Began != t.Index)
	case SetIntents:
		return len(r.Refused) > 0 && len(r.Refused) == len(c.Intents)
	}
	return false
}

// forgetRequest forgets the request that has done something at an index: it was taken back,
// and who has asked for it may ask again.
func (t *txn) forgetRequest(index uint64) {
	var gone []aged[request]
	t.done.byAge.Reverse(func(a aged[request]) bool {
		if a.value.index == index {
			gone = append(gone, a)
		}
		return a.value.index > index
	})
	for _, a := range gone {
		t.done.remove(a)
	}
}

// setNode inserts or replaces a node. What was to move to it stays where it is once it
// takes nothing any more.
func (t *txn) setNode(n Node) {
	last, _ := t.Node(n.ID)
	n.Sequence = t.Index
	t.noteNode(n)
	if t.KnowsBasis() && last.Takes() && !n.Takes() {
		endMovesTo(t, n.ID)
	}
}

// noteNode writes what nothing is decided on: the Sequence stays as it is.
func (t *txn) noteNode(n Node) {
	t.nodeTable.put(n)
	t.touched.Nodes = append(t.touched.Nodes, n.ID)
}

// removeNode forgets a node that no shard refers to.
func (t *txn) removeNode(id neon.NodeID) {
	t.nodeTable.remove(id)
	t.touched.Nodes = append(t.touched.Nodes, id)
}

func (t *txn) setTenant(n Tenant) {
	n.Sequence = t.Index
	t.noteTenant(n)
}

// noteTenant writes what no decision is based on: the Sequence stays as it is.
func (t *txn) noteTenant(n Tenant) {
	last, _ := t.tenants.Set(n)
	t.indexRemover(&last, &n)
	t.totals.Placed += n.placed() - last.placed()
	t.touched.Tenants = append(t.touched.Tenants, n.ID)
}

// deleteTenant forgets the record of a tenant. The caller deletes its shards.
func (t *txn) deleteTenant(n Tenant) {
	last, _ := t.tenants.Delete(n.ID)
	t.indexRemover(&last, &Tenant{})
	t.totals.Placed -= last.placed()
	t.touched.Tenants = append(t.touched.Tenants, n.ID)
}

// setShard inserts or replaces a shard and keeps the node index and the counts.
func (t *txn) setShard(next Shard) {
	last := t.putShard(next)
	t.tally(&last, -1)
	t.tally(&next, +1)
	t.touched.Shards = append(t.touched.Shards, next.ID)
}

func (t *txn) deleteShard(id neon.ShardID) {
	if last, had := t.removeShard(id); had {
		t.tally(&last, -1)
		t.touched.Shards = append(t.touched.Shards, id)
	}
}

// issue gives the next generation of a shard that is not exhausted to a node. It
// is the only place where a generation is numbered.
func (t *txn) issue(s Shard, node neon.NodeID) Grant {
	s.Generation++
	s.HasGeneration = true
	if s.GenNode != node {
		if t.bounded() {
			s.PriorNode = s.GenNode
		}
		s.GenNode, s.ComputeAcknowledged = node, false
	}
	t.setShard(s)
	return Grant{Shard: s.ID, Generation: s.Generation, Node: node}
}

// setIntent writes a decision on the place of a shard.
func (t *txn) setIntent(s Shard, in Intent) {
	s.Attached, s.Secondary = in.Attached, slices.Clip(in.Secondary)
	prefer(t, &s, &in)
	t.manage(&s)
	s.Sequence = t.Index
	t.setShard(s)
}

// manage makes an unmanaged shard a managed one. The caller makes a decision about
// the shard and writes the record. From then on the leader notifies compute again,
// and looks at all locations of the shard again.
func (t *txn) manage(s *Shard) {
	if !s.Unmanaged {
		return
	}
	s.Unmanaged, s.ComputeAcknowledged = false, false
	for n := range t.Nodes() {
		t.locationUnknown(s.ID, n.ID)
	}
}

// locationUnknown tells the leader that what it has observed of a shard on a node
// does not hold any more.
func (t *txn) locationUnknown(shard neon.ShardID, node neon.NodeID) {
	t.touched.UnknownLocations = append(t.touched.UnknownLocations,
		Leftover{Shard: shard, Node: node})
}
