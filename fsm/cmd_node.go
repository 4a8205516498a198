package fsm

import (
	"slices"

	"quorate/api/neon"
)

// SetCluster gives the cluster its id: the first command ever committed. It is
// refused when the state already has another id.
type SetCluster struct {
	ID string `cbor:"1,keyasint"`
}

func (c SetCluster) apply(t *txn) Result {
	if t.ClusterID != "" && t.ClusterID != c.ID {
		return refuse(neon.Conflict, "cluster is %s, not %s", t.ClusterID, c.ID)
	}
	t.ClusterID = c.ID
	return Result{}
}

// SetLeader records the replica that took up its duties in a term. It is refused
// when a later term has one already. Splits that were begun in an earlier term and
// not committed are aborted.
type SetLeader struct {
	Leader Leader `cbor:"1,keyasint"`
}

func (c SetLeader) apply(t *txn) Result {
	if c.Leader.Term < t.Leader.Term {
		return refuse(neon.Conflict, "term %d is over, the leader of term %d is %s", c.Leader.Term,
			t.Leader.Term, t.Leader.ServerID)
	}
	if c.Leader.Term > t.Leader.Term {
		t.abortEarlierSplits()
	}
	t.Leader = c.Leader
	return Result{}
}

// RegisterNode adds a pageserver, which starts Offline, or repeats what is known.
// HTTPS and gRPC addresses may change; a different HTTP or Postgres address or
// zone, and the id of a deleted node, are refused as a Conflict.
type RegisterNode struct {
	ID   neon.NodeID `cbor:"1,keyasint"`
	Addr NodeAddr    `cbor:"2,keyasint"`
	AZ   neon.AZ     `cbor:"3,keyasint"`
}

func (c RegisterNode) apply(t *txn) Result {
	if r := refuseBy(c.ID.Check()); r.Err != nil && (c.ID == 0 || t.bounded()) {
		return r
	}
	if len(c.AZ.String()) > maxName || len(c.Addr.HTTPHost) > maxName ||
		len(c.Addr.PGHost) > maxName || len(c.Addr.GRPCHost) > maxName {
		return refuse(neon.BadRequest, "a name of node %d has more than %d bytes", c.ID, maxName)
	}
	n, known := t.Node(c.ID)
	if !known {
		t.setNode(Node{
			ID: c.ID, Addr: c.Addr, AZ: c.AZ, Scheduling: neon.SchedulingActive,
			Availability: neon.NodeOffline,
		})
		return Result{}
	}
	if n.Tombstone {
		return refuse(neon.Conflict, "Node %d is already exists", c.ID)
	}
	same := n.Addr.HTTPHost == c.Addr.HTTPHost && n.Addr.HTTPPort == c.Addr.HTTPPort &&
		n.Addr.PGHost == c.Addr.PGHost && n.Addr.PGPort == c.Addr.PGPort && n.AZ == c.AZ
	if !same {
		return refuse(neon.Conflict, "Node is already registered with different address")
	}
	if n.Addr != c.Addr {
		n.Addr = c.Addr
		t.setNode(n)
	}
	return Result{}
}

// SetNodeScheduling sets the scheduling policy of a node. It is refused while a long
// operation runs, whose policy it would replace.
type SetNodeScheduling struct {
	Node       neon.NodeID         `cbor:"1,keyasint"`
	Scheduling neon.NodeScheduling `cbor:"2,keyasint"`
}

func (c SetNodeScheduling) apply(t *txn) Result {
	n, r := t.liveNode(c.Node)
	if r.Err != nil {
		return r
	}
	if !c.Scheduling.Valid() {
		return refuse(neon.BadRequest, "unknown scheduling policy %q", c.Scheduling)
	}
	if op := n.Operation; op.Kind != OperationNone {
		return refuse(neon.PreconditionFailed,
			"Ongoing background operation forbids configuring: %s %d", op.Kind, c.Node)
	}
	if n.Scheduling != c.Scheduling {
		n.Scheduling = c.Scheduling
		t.setNode(n)
	}
	return Result{}
}

// Verdict is a decision on one node's availability. It holds only while the node
// is in the same Incarnation and still judged as From; an empty From is an
// operator's order and always holds.
type Verdict struct {
	Node        neon.NodeID           `cbor:"1,keyasint"`
	From        neon.NodeAvailability `cbor:"2,keyasint,omitempty"`
	To          neon.NodeAvailability `cbor:"3,keyasint"`
	Incarnation uint64                `cbor:"4,keyasint,omitempty"`
}

// SetNodeAvailability commits the verdicts of one round of heartbeats. Verdicts that
// no longer hold, or are none, are ignored.
type SetNodeAvailability struct {
	Verdicts []Verdict `cbor:"1,keyasint"`
}

func (c SetNodeAvailability) apply(t *txn) Result {
	for _, v := range c.Verdicts {
		n, ok := t.Node(v.Node)
		if !ok || n.Tombstone || n.Availability == v.To || !knownAvailability(v.To) {
			continue
		}
		if v.From != "" && (n.Availability != v.From || n.Incarnation != v.Incarnation) {
			continue
		}
		n.Availability, n.Silent = v.To, 0
		t.setNode(n)
	}
	return Result{}
}

// Silence says since when a node has not answered its heartbeats, in milliseconds since
// 1970; 0 says that it answers again. It holds only for the same Incarnation.
type Silence struct {
	Node        neon.NodeID `cbor:"1,keyasint"`
	Incarnation uint64      `cbor:"2,keyasint"`
	Since       int64       `cbor:"3,keyasint"`
}

// NoteSilence has the next leader know which nodes do not answer, and since when. It is no
// verdict. What does not hold any more, is known, or is about an Offline node is ignored.
type NoteSilence struct {
	Nodes []Silence `cbor:"1,keyasint"`
}

// Level is the second: the first version knows nothing of silence.
func (NoteSilence) Level() uint64 { return secondLevel }

func (c NoteSilence) apply(t *txn) Result {
	for _, s := range c.Nodes {
		n, ok := t.Node(s.Node)
		if !ok || n.Tombstone || n.Incarnation != s.Incarnation || s.Since < 0 ||
			n.Availability == neon.NodeOffline || (n.Silent == 0) == (s.Since == 0) {
			continue
		}
		n.Silent = s.Since
		t.noteNode(n)
	}
	return Result{}
}

func knownAvailability(a neon.NodeAvailability) bool {
	return a == neon.NodeActive || a == neon.NodeWarmingUp || a == neon.NodeOffline
}

// ReAttach is the start of a pageserver process. Every shard whose newest generation
// was issued to the node gets the next number, in one entry. Result.ReAttached lists
// those. It also lists, as Secondary, every other shard that is intended on the node,
// so that the pageserver keeps its warm copies. A deleted node is refused.
//
// A long operation on the node is interrupted, because its process is another one. A
// deletion that was begun has to be begun again; the node is paused until then. A
// split of such a shard that is not committed is aborted.
//
// A shard that has no number left is listed in Result.LeftOut. It does not keep the
// others from being attached.
type ReAttach struct {
	Node neon.NodeID `cbor:"1,keyasint"`
}

func (c ReAttach) apply(t *txn) Result {
	n, r := t.liveNode(c.Node)
	if r.Err != nil {
		if n.Tombstone {
			return refuse(neon.Internal, "Node %d is marked as deleted, re-attach is not allowed",
				c.Node)
		}
		return r
	}
	if !t.bounded() {
		for s := range t.NodeShards(c.Node) {
			if s.GenNode == c.Node && s.Exhausted() {
				return refuse(neon.Internal, "generations of %s are used up", s.ID)
			}
		}
	}
	if n.Operation.Kind != OperationNone {
		cancelMoves(t, c.Node, n.Operation.Kind)
	}
	own := slices.Collect(t.NodeShards(c.Node))
	r.ReAttached = slices.Grow(r.ReAttached, len(own))
	switch n.Scheduling {
	case neon.SchedulingPauseForRestart, neon.SchedulingDraining, neon.SchedulingFilling:
		n.Scheduling = neon.SchedulingActive
	case neon.SchedulingDeleting:
		n.Scheduling = neon.SchedulingPause
	}
	n.Availability, n.Silent = neon.NodeWarmingUp, 0
	n.Operation.Interrupted = n.Operation.Kind != OperationNone
	n.Incarnation++
	t.setNode(n)

	for _, s := range own {
		tenant, _ := t.Tenant(s.ID.Tenant)
		loc := Location{Shard: s.ID, Mode: neon.Secondary, Stripe: tenant.Stripe}
		switch {
		case s.GenNode == c.Node && s.Exhausted():
			r.LeftOut = append(r.LeftOut, s.ID)
			if !s.HasSecondary(c.Node) {
				continue
			}
		case s.GenNode == c.Node:
			g := t.issue(s, c.Node)
			loc.Mode, loc.Generation = neon.AttachedSingle, g.Generation
			t.abortSplitOf(s.ID, "pageserver "+c.Node.String()+" has restarted")
			r.Grants = append(r.Grants, g)
		}
		r.ReAttached = append(r.ReAttached, loc)
	}
	return r
}
