package fsm

import (
	"slices"

	"quorate/api/neon"
)

// Basis is what a decision about a shard was based on, beside the shard's own record.
// Apply refuses the decision once any of it is gone: it would be carried out too late.
type Basis struct {
	// Generation is the shard's newest number, and Tenant the Sequence of its tenant.
	Generation neon.Generation `cbor:"1,keyasint"`
	Tenant     uint64          `cbor:"2,keyasint"`

	// Lost is the node that the shard is taken from without being handed over; 0 for none.
	// LostSequence is the Sequence of that node.
	Lost         neon.NodeID `cbor:"3,keyasint,omitempty"`
	LostSequence uint64      `cbor:"4,keyasint,omitempty"`

	// Unserved says that the shard served nobody: compute was not told of its newest place.
	Unserved bool `cbor:"5,keyasint,omitempty"`
}

// BasisOf is what a decision about a shard is based on in s. lost is the node that the
// shard is taken from, or 0. It is nil as long as some member may not know it.
func BasisOf(s *State, sh *Shard, lost neon.NodeID) *Basis {
	if !s.KnowsBasis() {
		return nil
	}
	tenant, _ := s.Tenant(sh.ID.Tenant)
	n, _ := s.Node(lost)
	return &Basis{
		Generation: sh.Generation, Tenant: tenant.Sequence, Lost: lost, LostSequence: n.Sequence,
	}
}

// based is the level of a command with some bases.
func based(is bool) uint64 {
	if is {
		return secondLevel
	}
	return firstLevel
}

// levelOf is the lowest level whose versions know some intents.
func levelOf(intents []Intent) uint64 {
	return based(slices.ContainsFunc(intents,
		func(in Intent) bool { return in.Basis != nil || in.Insisted }))
}

// holds reports whether nothing of what a decision was based on is gone. One that does
// not say it is of an earlier version.
func holds(t *txn, b *Basis, sh *Shard) bool {
	if b == nil {
		return true
	}
	tenant, _ := t.Tenant(sh.ID.Tenant)
	n, _ := t.Node(b.Lost)
	return b.Generation == sh.Generation && b.Tenant == tenant.Sequence &&
		b.LostSequence == n.Sequence &&
		!(b.Unserved && sh.GenNode == sh.Attached && sh.ComputeAcknowledged)
}
