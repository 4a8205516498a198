package fsm

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"quorate/api/neon"
)

const (
	// keptOutcomes bounds the outcomes that are remembered, also of nodes that are gone.
	keptOutcomes = 1024

	// MaxNamed bounds the shards that are named of an operation, and MaxWhy the bytes
	// of each reason.
	MaxNamed = 16
	MaxWhy   = 512
)

// Outcome is how the last operation of its kind on a node has ended. It is kept after the
// node is gone, until too many others have come after it.
type Outcome struct {
	Node   neon.NodeID
	Kind   OperationKind
	Force  bool
	Ending Ending

	// Begun is the log index at which the operation was begun. BegunAt and EndedAt are
	// Unix times in milliseconds; 0: not known.
	Begun   uint64
	BegunAt int64
	EndedAt int64

	Total    int // attached shards on the node when it was begun
	Attached int // and when it ended
	Shards   int // locations of either kind then

	// Left are the shards that did not get where the operation wanted them.
	Left Left
}

// Left are shards that an operation left behind, with the reasons.
type Left struct {
	Count int         `cbor:"1,keyasint"`
	Named []LeftShard `cbor:"2,keyasint,omitempty"` // some of them
}

// LeftShard is one of them.
type LeftShard struct {
	Shard neon.ShardID `cbor:"1,keyasint"`
	Why   string       `cbor:"2,keyasint"`
}

// bounded is what is kept of it.
func (l Left) bounded() Left {
	l.Count = max(l.Count, len(l.Named))
	l.Named = slices.Clone(l.Named[:min(MaxNamed, len(l.Named))])
	for i := range l.Named {
		l.Named[i].Why = l.Named[i].Why[:min(MaxWhy, len(l.Named[i].Why))]
	}
	return l
}

func newOutcomes() recent[Outcome] {
	return newRecent(keptOutcomes, tagOutcome, func(a, b Outcome) bool {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Kind, b.Kind)) < 0
	}, appendOutcome)
}

// recordOutcome records the end of the operation on a node, which still has it.
func recordOutcome(t *txn, n Node, o Outcome) {
	op := n.Operation
	if op.Kind == OperationNone || !t.KeepsOutcomes() {
		return
	}
	if op.Interrupted {
		o.Ending = Abandoned
	}
	o.Node, o.Kind, o.Force = n.ID, op.Kind, op.Force
	o.Begun, o.BegunAt, o.Total = op.Begun, op.At, op.Total
	c := t.Counts(n.ID)
	o.Attached, o.Shards, o.Left = c.Attached, c.Shards, o.Left.bounded()
	t.outcomes.add(o)
}

func appendOutcome(b []byte, o Outcome) []byte {
	b = binary.AppendUvarint(b, uint64(o.Node))
	b = append(b, byte(o.Kind), byte(o.Ending), boolByte(o.Force))
	b = binary.AppendUvarint(b, o.Begun)
	b = binary.AppendVarint(binary.AppendVarint(b, o.BegunAt), o.EndedAt)
	for _, n := range []int{o.Total, o.Attached, o.Shards, o.Left.Count, len(o.Left.Named)} {
		b = binary.AppendVarint(b, int64(n))
	}
	for _, x := range o.Left.Named {
		b, _ = x.Shard.AppendBinary(b)
		b = appendBytes(b, x.Why)
	}
	return b
}

func readOutcome(d *decoder) (o Outcome) {
	o.Node = neon.NodeID(d.uvarint())
	o.Kind, o.Ending = OperationKind(d.byte()), Ending(d.byte())
	o.Force = d.byte() == 1
	o.Begun = d.uvarint()
	o.BegunAt, o.EndedAt = d.varint(), d.varint()
	o.Total, o.Attached, o.Shards = int(d.varint()), int(d.varint()), int(d.varint())
	o.Left.Count = int(d.varint())
	named := d.varint()
	if named < 0 || named > MaxNamed {
		d.fail(fmt.Errorf("an outcome names %d shards", named))
		return o
	}
	for range named {
		var id [18]byte
		var x LeftShard
		d.fill(id[:])
		d.fail(x.Shard.UnmarshalBinary(id[:]))
		x.Why = string(d.bytes(MaxWhy))
		o.Left.Named = append(o.Left.Named, x)
	}
	return o
}

// outcomes verifies what is recorded of operations that are over.
func checkOutcomes(c *checker) {
	c.s.outcomes.values(func(o Outcome) bool {
		if o.Node == 0 || o.Kind == OperationNone || o.Kind > OperationDelete ||
			o.Ending > GaveUp || o.Left.Count < len(o.Left.Named) {
			c.fail("an operation has ended as %+v", o)
		}
		return len(c.errs) < 32
	})
}
