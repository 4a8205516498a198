package fsm

import (
	"cmp"
	"iter"
	"slices"

	"quorate/api/neon"
)

// NodeAddr is where a pageserver is reached. Ports are 0 when there is none.
type NodeAddr struct {
	HTTPHost  string `cbor:"1,keyasint"`
	HTTPPort  uint16 `cbor:"2,keyasint"`
	HTTPSPort uint16 `cbor:"3,keyasint,omitempty"`
	PGHost    string `cbor:"4,keyasint"`
	PGPort    uint16 `cbor:"5,keyasint"`
	GRPCHost  string `cbor:"6,keyasint,omitempty"`
	GRPCPort  uint16 `cbor:"7,keyasint,omitempty"`
}

// Node is the replicated record of one pageserver.
type Node struct {
	ID   neon.NodeID `cbor:"1,keyasint"`
	Addr NodeAddr    `cbor:"2,keyasint"`
	AZ   neon.AZ     `cbor:"3,keyasint"`

	Scheduling neon.NodeScheduling `cbor:"4,keyasint"`

	// Availability is the last committed verdict. Heartbeats and utilisation are
	// the leader's own memory and never stand here.
	Availability neon.NodeAvailability `cbor:"5,keyasint"`

	// Silent is since when the node has not answered its heartbeats, in milliseconds since
	// 1970, as the leader said that noticed it. 0: it answers, for all that is known. It
	// keeps a new leader from giving the node all its time again.
	Silent int64 `cbor:"10,keyasint,omitempty"`

	// Tombstone marks a deleted node: its id may neither register nor re-attach.
	Tombstone bool `cbor:"6,keyasint,omitempty"`

	// Incarnation counts the re-attaches, that is the process starts we know of.
	Incarnation uint64 `cbor:"7,keyasint"`

	// Operation is the long operation under way; its Kind is OperationNone when
	// there is none.
	Operation Operation `cbor:"9,keyasint,omitzero"`

	// Sequence is the log index of the last change to this record, but for Silent.
	Sequence uint64 `cbor:"8,keyasint"`
}

// Available reports whether calls to the node may be expected to succeed.
func (n *Node) Available() bool { return n.Availability == neon.NodeActive && !n.Tombstone }

// Schedulable reports whether new locations may be placed on the node.
func (n *Node) Schedulable() bool { return n.Available() && n.Takes() }

// Takes reports whether the scheduling policy of the node lets it take new locations.
func (n *Node) Takes() bool {
	return n.Scheduling == neon.SchedulingActive || n.Scheduling == neon.SchedulingFilling
}

// NodeCounts are how many intended locations a node has, kept up to date by
// every command so that placing a shard never walks the others.
type NodeCounts struct {
	Shards   int // attached and secondary
	Attached int
	Home     int // locations of either kind whose shard prefers the node's zone
}

// nodeTable holds the pageservers. Counts are derived from the shards.
type nodeTable struct {
	nodes   []Node       // by id; replaced, never modified
	nodeSum uint64       // of their hashes
	counts  []NodeCounts // parallel to nodes

	// owned is set while no published state shares the two slices.
	owned bool
}

// Node finds a node, tombstones included.
func (t *nodeTable) Node(id neon.NodeID) (Node, bool) {
	if i, ok := t.nodeIndex(id); ok {
		return t.nodes[i], true
	}
	return Node{}, false
}

// Counts are the intended locations of a node; zero for an unknown one.
func (t *nodeTable) Counts(id neon.NodeID) NodeCounts {
	if i, ok := t.nodeIndex(id); ok {
		return t.counts[i]
	}
	return NodeCounts{}
}

func (t *nodeTable) nodeIndex(id neon.NodeID) (int, bool) {
	return slices.BinarySearchFunc(t.nodes, id,
		func(n Node, id neon.NodeID) int { return cmp.Compare(n.ID, id) })
}

// Nodes yields the nodes that are not tombstones, by id.
func (t *nodeTable) Nodes() iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		for i := range t.nodes {
			if !t.nodes[i].Tombstone && !yield(&t.nodes[i]) {
				return
			}
		}
	}
}

// Tombstones yields the deleted nodes, by id.
func (t *nodeTable) Tombstones() iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		for i := range t.nodes {
			if t.nodes[i].Tombstone && !yield(&t.nodes[i]) {
				return
			}
		}
	}
}

// Operating finds the first node with an operation.
func (t *nodeTable) Operating() (Node, bool) {
	for n := range t.Nodes() {
		if n.Operation.Kind != OperationNone {
			return *n, true
		}
	}
	return Node{}, false
}

// liveNode finds a node that is not a tombstone. The Result refuses any other.
func (t *nodeTable) liveNode(id neon.NodeID) (Node, Result) {
	n, ok := t.Node(id)
	if !ok || n.Tombstone {
		return n, refuse(neon.NotFound, "Node %d not registered", id)
	}
	return n, Result{}
}

// isLive reports whether a node exists and is not a tombstone.
func (t *nodeTable) isLive(id neon.NodeID) bool {
	n, ok := t.Node(id)
	return ok && !n.Tombstone
}

// fits reports whether an intent is well formed, names live nodes and is allowed
// by a policy.
func (t *nodeTable) fits(p neon.Placement, in Intent) bool {
	switch {
	case len(in.Secondary) > maxSecondaries,
		p.Kind == neon.PlaceDetached && (in.Attached != 0 || len(in.Secondary) > 0),
		p.Kind == neon.PlaceSecondary && in.Attached != 0:
		return false
	}
	for i, n := range in.Secondary {
		if n == in.Attached || slices.Contains(in.Secondary[:i], n) || !t.isLive(n) {
			return false
		}
	}
	return in.Attached == 0 || t.isLive(in.Attached)
}

// validSecondaries keeps those nodes of a list that may be secondaries of a shard
// that is attached on a given node.
func (t *nodeTable) validSecondaries(
	list []neon.NodeID, attached neon.NodeID,
) (kept []neon.NodeID) {
	for _, n := range list {
		if n != attached && t.isLive(n) && !slices.Contains(kept, n) && len(kept) < maxSecondaries {
			kept = append(kept, n)
		}
	}
	return kept
}

// own makes the slices private before the first change in a batch.
func (t *nodeTable) own() {
	if !t.owned {
		t.nodes, t.counts, t.owned = slices.Clone(t.nodes), slices.Clone(t.counts), true
	}
}

// put inserts or replaces a node.
func (t *nodeTable) put(n Node) {
	t.own()
	i, found := t.nodeIndex(n.ID)
	t.nodeSum += hashCBOR(tagNode, n)
	if found {
		t.nodeSum -= hashCBOR(tagNode, t.nodes[i])
		t.nodes[i] = n
		return
	}
	t.nodes = slices.Insert(t.nodes, i, n)
	t.counts = slices.Insert(t.counts, i, NodeCounts{})
}

// remove forgets a node that no shard refers to.
func (t *nodeTable) remove(id neon.NodeID) {
	if i, found := t.nodeIndex(id); found {
		t.own()
		t.nodeSum -= hashCBOR(tagNode, t.nodes[i])
		t.nodes, t.counts = slices.Delete(t.nodes, i, i+1), slices.Delete(t.counts, i, i+1)
	}
}

// away reports whether a shard is attached in another zone than it prefers.
func (t *nodeTable) away(s *Shard) bool {
	i, ok := t.nodeIndex(s.Attached)
	return ok && !s.PreferredAZ.IsZero() && s.PreferredAZ != t.nodes[i].AZ
}

// count adds the intended locations of a shard to the counts of their nodes. With
// by -1 it takes them away.
func (t *nodeTable) count(s *Shard, by int) {
	add := func(id neon.NodeID, attached int) {
		i, ok := t.nodeIndex(id)
		if !ok {
			return
		}
		t.own()
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
