package fsm

import (
	"slices"

	"quorate/api/neon"
)

// OperationKind is what a long operation does to a node.
type OperationKind uint8

// The kinds of operations. None is the absence of one.
const (
	OperationNone   OperationKind = iota
	OperationDrain                // move every attached shard away, then wait for a restart
	OperationFill                 // bring attached shards back until the node has its share
	OperationDelete               // move everything away, then forget the node
)

// String is the word that clients know the kind by.
func (k OperationKind) String() string {
	if k > OperationDelete {
		return "unknown"
	}
	return [...]string{"none", "drain", "fill", "delete"}[k]
}

// during is the scheduling policy of a node while an operation runs.
func (k OperationKind) during() neon.NodeScheduling {
	switch k {
	case OperationDrain:
		return neon.SchedulingDraining
	case OperationFill:
		return neon.SchedulingFilling
	}
	return neon.SchedulingDeleting
}

// Operation is a long operation on a node. It exists from the order of an operator
// until its end. Every leader meanwhile works on it.
type Operation struct {
	Kind OperationKind `cbor:"1,keyasint"`

	// Force, with Delete, waits for nothing on the node.
	Force bool `cbor:"2,keyasint,omitempty"`

	// Prior is the scheduling policy to return to when it is cancelled.
	Prior neon.NodeScheduling `cbor:"3,keyasint"`

	// Begun is the log index at which it was begun, and names it.
	Begun uint64 `cbor:"4,keyasint"`

	// Total is how many attached shards the node had then: against what it has
	// now it is the progress.
	Total int `cbor:"5,keyasint"`

	// Interrupted is set when the process of the node was replaced. The node has its
	// own policy again. The leader ends the operation.
	Interrupted bool `cbor:"6,keyasint,omitempty"`

	// At is the Unix time in milliseconds at which it was begun; 0: not known.
	At int64 `cbor:"7,keyasint,omitempty"`

	// Progress is the Unix time in milliseconds at which a shard has come or gone, as far as
	// it was noted; 0: not since it was begun. It keeps a new leader from giving what is in
	// the way all its time again.
	Progress int64 `cbor:"8,keyasint,omitempty"`
}

// BeginNodeOperation starts a long operation and sets the scheduling policy that
// goes with it. It is refused as a Conflict unless the node has the policy Prior and
// no operation. With Exclusive it is refused while any node has an operation. Only a
// forced deletion may replace another operation.
type BeginNodeOperation struct {
	Node      neon.NodeID         `cbor:"1,keyasint"`
	Kind      OperationKind       `cbor:"2,keyasint"`
	Force     bool                `cbor:"3,keyasint,omitempty"`
	Prior     neon.NodeScheduling `cbor:"4,keyasint"`
	Exclusive bool                `cbor:"5,keyasint,omitempty"`

	// At is the Unix time in milliseconds.
	At int64 `cbor:"6,keyasint,omitempty"`
}

// Level is the second with a time, which the first version does not know.
func (c BeginNodeOperation) Level() uint64 { return levelWith(c.At != 0) }

// levelWith is the second level for what has content of it, and else the first.
func levelWith(newer bool) uint64 {
	if newer {
		return secondLevel
	}
	return firstLevel
}

func (c BeginNodeOperation) apply(t *txn) Result {
	n, r := t.liveNode(c.Node)
	if r.Err != nil {
		return r
	}
	if c.Kind == OperationNone || c.Kind > OperationDelete || c.Force && c.Kind != OperationDelete {
		return refuse(neon.BadRequest, "node %d: impossible operation %d", c.Node, c.Kind)
	}
	if n.Operation.Kind != OperationNone && !c.Force {
		return refuse(neon.Conflict, "node %d has %s in progress", c.Node, n.Operation.Kind)
	}
	if other, runs := t.Operating(); c.Exclusive && runs && other.ID != c.Node {
		return refuse(neon.Conflict, "node %d has %s in progress", other.ID, other.Operation.Kind)
	}
	if n.Scheduling != c.Prior {
		return refuse(neon.Conflict, "scheduling policy of node %d is %s, not %s", c.Node,
			n.Scheduling, c.Prior)
	}
	prior := c.Prior
	if n.Operation.Kind != OperationNone && !n.Operation.Interrupted {
		prior = n.Operation.Prior
	}
	recordOutcome(t, n, Outcome{Ending: Cancelled, EndedAt: c.At})
	n.Operation = Operation{
		Kind: c.Kind, Force: c.Force, Prior: prior, Begun: t.Index,
		Total: t.Counts(c.Node).Attached, At: c.At,
	}
	n.Scheduling = c.Kind.during()
	t.setNode(n)
	return Result{}
}

// NoteProgress says when the operation that was begun at an index has got on. What is about
// another operation, or is known, is ignored.
type NoteProgress struct {
	Node  neon.NodeID `cbor:"1,keyasint"`
	Begun uint64      `cbor:"2,keyasint"`

	// At is the Unix time in milliseconds.
	At int64 `cbor:"3,keyasint"`
}

// Level is the second: the first version knows nothing of progress.
func (NoteProgress) Level() uint64 { return secondLevel }

func (c NoteProgress) apply(t *txn) Result {
	n, ok := t.Node(c.Node)
	if op := n.Operation; !ok || op.Kind == OperationNone || op.Begun != c.Begun ||
		c.At <= op.Progress {
		return Result{}
	}
	n.Operation.Progress = c.At
	t.noteNode(n)
	return Result{}
}

// Ending is how an operation ends.
type Ending uint8

// The endings of an operation.
const (
	Finished  Ending = iota // it did what it could
	Cancelled               // an operator changed their mind
	Abandoned               // it was interrupted
	GaveUp                  // a deletion that leaves something behind
)

// String is the word that clients know the ending by.
func (e Ending) String() string {
	if e > GaveUp {
		return "unknown"
	}
	return [...]string{"completed", "cancelled", "interrupted", "gave_up"}[e]
}

// EndNodeOperation ends the operation that was begun at an index. A finished drain
// leaves the node waiting for its restart. A finished fill leaves it Active. An
// operation that is cancelled, or a deletion that gave up, returns the node to the policy
// it had, and its moves that have not come to the cut-over are cancelled. An interrupted
// operation does not change the policy, however it ends. Only DeleteNode finishes a
// deletion. The command is refused as a Conflict when that operation is over.
type EndNodeOperation struct {
	Node   neon.NodeID `cbor:"1,keyasint"`
	Begun  uint64      `cbor:"2,keyasint"`
	Ending Ending      `cbor:"3,keyasint"`

	// At is the Unix time in milliseconds, and Left what stays where it is, for the
	// record of the outcome.
	At   int64 `cbor:"4,keyasint,omitempty"`
	Left Left  `cbor:"5,keyasint,omitzero"`
}

// Level is the second with what the first version has no record for.
func (c EndNodeOperation) Level() uint64 {
	return levelWith(c.At != 0 || c.Left.Count > 0 || c.Left.Named != nil || c.Ending == GaveUp)
}

func (c EndNodeOperation) apply(t *txn) Result {
	n, r := t.liveNode(c.Node)
	if r.Err != nil {
		return r
	}
	op := n.Operation
	switch {
	case op.Kind == OperationNone || op.Begun != c.Begun:
		return refuse(neon.Conflict, "node %d has no operation that was begun at %d", c.Node,
			c.Begun)
	case c.Ending > GaveUp, c.Ending == Abandoned && !op.Interrupted:
		return refuse(neon.BadRequest, "%s of node %d cannot end as %d", op.Kind, c.Node, c.Ending)
	case op.Interrupted:
	case c.Ending == Cancelled, c.Ending == GaveUp && op.Kind == OperationDelete:
		n.Scheduling = op.Prior
		cancelMoves(t, c.Node, op.Kind)
	case c.Ending == Finished && op.Kind == OperationDrain:
		n.Scheduling = neon.SchedulingPauseForRestart
	case c.Ending == Finished && op.Kind == OperationFill:
		n.Scheduling = neon.SchedulingActive
	default:
		return refuse(neon.BadRequest, "%s of node %d cannot end as %d", op.Kind, c.Node, c.Ending)
	}
	recordOutcome(t, n, Outcome{Ending: c.Ending, EndedAt: c.At, Left: c.Left})
	n.Operation = Operation{}
	t.setNode(n)
	return Result{}
}

// cancelMoves clears the preference of the shards that an operation is warming a
// destination for. A secondary that was made for it is trimmed as one too many.
func cancelMoves(t *txn, node neon.NodeID, kind OperationKind) {
	moving := t.AttachedOn(node, neon.ShardID{})
	if kind == OperationFill {
		moving = t.SecondaryOn(node, neon.ShardID{})
	}
	for _, s := range slices.Collect(moving) {
		if s.PreferredNode != 0 && (kind != OperationFill || s.PreferredNode == node) {
			endMove(t, s)
		}
	}
}

// DeleteNode makes a node a tombstone. Begun, unless it is 0, names the deletion that
// this command ends. It is refused as a Conflict when that deletion is over. Intents
// that still name the node lose it, whatever the policy of their tenant is. The leader
// then finds a new place for what was attached there. A split of such a shard is
// aborted. A node that may be removing the remote data of a tenant goes on with that when
// it is deleted, and would remove the data of the next tenant of that id. So the command
// is refused as a Conflict then, unless it ends a forced deletion: its process is dead.
type DeleteNode struct {
	Node  neon.NodeID `cbor:"1,keyasint"`
	Begun uint64      `cbor:"2,keyasint,omitempty"`

	// At is the Unix time in milliseconds, and Left what loses its place with the node,
	// for the record of the outcome.
	At   int64 `cbor:"3,keyasint,omitempty"`
	Left Left  `cbor:"4,keyasint,omitzero"`
}

// Level is the second with what the first version has no record for.
func (c DeleteNode) Level() uint64 {
	return levelWith(c.At != 0 || c.Left.Count > 0 || c.Left.Named != nil)
}

func (c DeleteNode) apply(t *txn) Result {
	n, r := t.liveNode(c.Node)
	if r.Err != nil {
		return r
	}
	if op := n.Operation; c.Begun != 0 &&
		(op.Kind != OperationDelete || op.Begun != c.Begun || op.Interrupted) {
		return refuse(neon.Conflict, "node %d has no deletion that was begun at %d", c.Node,
			c.Begun)
	}
	if !n.Operation.Force {
		for tenant := range t.RemovedBy(c.Node) {
			return refuse(neon.Conflict,
				"pageserver %d removes the remote data of tenant %s, and only a forced deletion of the node does not wait for that",
				c.Node, tenant.ID)
		}
	}
	ending := Finished
	if n.Operation.Kind != OperationDelete {
		ending = Cancelled // another operation, and the node is dropped
	}
	recordOutcome(t, n, Outcome{Ending: ending, EndedAt: c.At, Left: c.Left})
	n.Tombstone, n.Availability, n.Operation = true, neon.NodeOffline, Operation{}
	n.Silent = 0
	t.setNode(n)
	for _, s := range slices.Collect(t.NodeShards(c.Node)) {
		if !s.Intends(c.Node) {
			continue
		}
		if s.Attached == c.Node {
			s.Attached = 0
			t.abortSplitOf(s.ID, "pageserver "+c.Node.String()+" was deleted")
		}
		s.Secondary = slices.DeleteFunc(slices.Clone(s.Secondary),
			func(id neon.NodeID) bool { return id == c.Node })
		if s.PreferredNode == c.Node {
			s.PreferredNode, s.Insisted = 0, false
		}
		t.manage(&s)
		s.Sequence = t.Index
		t.setShard(s)
	}
	return Result{}
}

// ForgetTombstone forgets a deleted node, whose id may register again. It is
// refused as a Conflict for a node that is in use. An unknown node is forgotten
// already. Shards whose newest generation was issued to the node keep the number and
// lose the owner: no other node can ever have that number.
type ForgetTombstone struct {
	Node neon.NodeID `cbor:"1,keyasint"`
}

func (c ForgetTombstone) apply(t *txn) Result {
	n, known := t.Node(c.Node)
	if !known {
		return Result{}
	}
	if !n.Tombstone {
		return refuse(neon.Conflict, "Node %d is in use, consider using tombstone API first",
			c.Node)
	}
	for _, s := range slices.Collect(t.NodeShards(c.Node)) {
		s.GenNode, s.ComputeAcknowledged = 0, false
		t.setShard(s)
	}
	t.removeNode(c.Node)
	return Result{}
}
