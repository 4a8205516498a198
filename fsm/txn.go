package fsm

import (
	"slices"

	"quorate/api/neon"
)

// txn builds the next State from the last. It owns private copies of the trees,
// so one batch of log entries pays for copying once.
type txn struct {
	State
	nodesOwned bool
	touched    Touched
}

// Touched says what a batch changed, for those who keep something derived.
type Touched struct {
	Shards  []neon.ShardID // may repeat
	Tenants []neon.TenantID
	Nodes   []neon.NodeID

	// Safekeepers have a new record or owe something else than before.
	Safekeepers []neon.NodeID

	// Timelines tells that an import or the deletion of a timeline went on.
	Timelines bool

	// Grants are the generations issued for an attach that the leader will ask
	// for. Those of a re-attach are not here: the pageserver has them already.
	Grants []Grant

	// UnknownLocations are the places where others than the leader make locations come and go, a
	// split or somebody by hand: whatever was seen there before does not hold any more.
	UnknownLocations []Leftover
}

func begin(s *State) *txn {
	t := &txn{State: *s}
	t.tenants, t.shards, t.byNode = s.tenants.Copy(), s.shards.Copy(), s.byNode.Copy()
	t.splits, t.done, t.graves = s.splits.Copy(), s.done.copy(), s.graves.copy()
	t.timelines, t.ops = s.timelines.Copy(), s.ops.Copy()
	t.imports, t.deletes = s.imports.Copy(), s.deletes.Copy()
	return t
}

// snapshot freezes what the txn has built so far; the txn may go on.
func (t *txn) snapshot() *State {
	s := t.State
	s.tenants, s.shards, s.byNode = t.tenants.Copy(), t.shards.Copy(), t.byNode.Copy()
	s.splits, s.done, s.graves = t.splits.Copy(), t.done.copy(), t.graves.copy()
	s.timelines, s.ops = t.timelines.Copy(), t.ops.Copy()
	s.imports, s.deletes = t.imports.Copy(), t.deletes.Copy()
	t.nodesOwned = false
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
	if id != (RequestID{}) {
		if q, seen := t.done.find(request{id: id, kind: c.kind()}); seen {
			return Result{Index: q.index, Duplicate: true}
		}
	}
	var r Result
	if err := Admit(&t.State, c); err != nil {
		r.Err = err.(*neon.Error)
	} else {
		r = c.apply(t)
	}
	r.Index = index
	if r.Err == nil && id != (RequestID{}) {
		t.done.add(request{id: id, kind: c.kind(), index: index})
	}
	return r
}

func refuse(code neon.Code, format string, args ...any) Result {
	return Result{Err: neon.Errorf(code, format, args...)}
}

// ownNodes makes the node slices private before the first change in a batch.
func (t *txn) ownNodes() {
	if !t.nodesOwned {
		t.nodes, t.counts, t.nodesOwned = slices.Clone(t.nodes), slices.Clone(t.counts), true
	}
}

// setNode inserts or replaces a node.
func (t *txn) setNode(n Node) {
	t.ownNodes()
	n.Sequence = t.Index
	i, found := t.nodeIndex(n.ID)
	if found {
		t.nodes[i] = n
	} else {
		t.nodes = slices.Insert(t.nodes, i, n)
		t.counts = slices.Insert(t.counts, i, NodeCounts{})
	}
	t.touched.Nodes = append(t.touched.Nodes, n.ID)
}

// removeNode forgets a node that no shard refers to.
func (t *txn) removeNode(id neon.NodeID) {
	i, found := t.nodeIndex(id)
	if !found {
		return
	}
	t.ownNodes()
	t.nodes, t.counts = slices.Delete(t.nodes, i, i+1), slices.Delete(t.counts, i, i+1)
	t.touched.Nodes = append(t.touched.Nodes, id)
}

func (t *txn) setTenant(n Tenant) {
	n.Sequence = t.Index
	t.tenants.Set(n)
	t.touched.Tenants = append(t.touched.Tenants, n.ID)
}

// setShard inserts or replaces a shard and keeps the node index and the counts.
func (t *txn) setShard(next Shard) {
	last, had := t.shards.Set(next)
	if had {
		t.unindex(&last, &next)
	}
	t.index(&last, &next)
	t.count(&last, -1)
	t.count(&next, +1)
	t.touched.Shards = append(t.touched.Shards, next.ID)
}

func (t *txn) deleteShard(id neon.ShardID) {
	last, had := t.shards.Delete(Shard{ID: id})
	if !had {
		return
	}
	t.unindex(&last, &Shard{})
	t.count(&last, -1)
	t.touched.Shards = append(t.touched.Shards, id)
}

// unindex removes the entries of the nodes that next does not refer to any more.
func (t *txn) unindex(last, next *Shard) {
	last.nodes(func(n neon.NodeID) {
		if next.rolesOn(n) == 0 {
			t.byNode.Delete(nodeShard{node: n, shard: last.ID})
		}
	})
}

// index writes the entries of the nodes whose part in the shard changed.
func (t *txn) index(last, next *Shard) {
	next.nodes(func(n neon.NodeID) {
		if r := next.rolesOn(n); r != last.rolesOn(n) {
			t.byNode.Set(nodeShard{node: n, shard: next.ID, roles: r})
		}
	})
}

func (t *txn) count(s *Shard, by int) {
	add := func(id neon.NodeID, attached int) {
		i, ok := t.nodeIndex(id)
		if !ok {
			return
		}
		t.ownNodes()
		c := &t.counts[i]
		c.Shards += by
		c.Attached += attached
		if !s.PreferredAZ.IsZero() && s.PreferredAZ == t.nodes[i].AZ {
			c.Home += by
		}
	}
	if s.Attached != 0 {
		add(s.Attached, by)
	}
	for _, n := range s.Secondary {
		add(n, 0)
	}
}
