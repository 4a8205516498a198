package fsm

import (
	"cmp"
	"math"
	"slices"

	"quorate/api/neon"
)

// Shard is the replicated record of one tenant shard.
type Shard struct {
	ID neon.ShardID

	// Generation is the newest number issued. HasGeneration is false only for a
	// shard that was onboarded as Secondary without a number.
	Generation    neon.Generation
	HasGeneration bool

	// ComputeAcknowledged is set once compute has acknowledged GenNode as the node to
	// read from. Issuing a generation to another node clears it, so that a notification
	// that was lost or had an unknown outcome is sent again.
	ComputeAcknowledged bool

	// Insisted is set while an operator has asked for the move to PreferredNode: it may
	// arrive there whatever the policies of the node and of the tenant are. Whatever is
	// decided later ends it.
	Insisted bool

	// Unmanaged is set while a client attaches and detaches this shard on pageservers
	// itself. The shard is numbered and validated as any other. Otherwise the leader
	// leaves it alone, until a command decides about its place or its configuration.
	Unmanaged bool

	// Unhealthy is the last judgement on what the shard has in remote storage, and
	// ScrubbedAt its Unix time in milliseconds. A new shard is healthy.
	Unhealthy  bool
	ScrubbedAt int64

	// AcknowledgedNode is the last node that compute acknowledged; 0 for none. While the
	// shard moves, notifications about other shards of the tenant still name this node.
	AcknowledgedNode neon.NodeID

	// GenNode is the node Generation was issued to; 0 until the first attach and
	// while the tenant is not placed as Attached.
	GenNode neon.NodeID

	// PriorNode is the node that had the newest number before GenNode: what is attached
	// beside GenNode is attached there. 0: there is none, or the number is of the first
	// level, which did not note it.
	PriorNode neon.NodeID

	// Attached and Secondary are the intent: where the shard should be served
	// from and where it should be kept warm. Attached is never in Secondary and
	// Secondary has no duplicates. The slice is shared and must not be modified.
	Attached  neon.NodeID
	Secondary []neon.NodeID

	// PreferredNode is where the shard is to move to once it is warm there; 0 for none. From
	// the second level on it has a secondary there.
	PreferredNode neon.NodeID
	PreferredAZ   neon.AZ

	// PlacedOn is where an operator has wanted the shard last, and PlacedAt the Unix time in
	// milliseconds; 0: nowhere yet, or at the first level. It may be elsewhere since.
	PlacedOn neon.NodeID
	PlacedAt int64

	// Sequence is the log index of the last change to the intent; SetIntents
	// refuses a decision that was based on another one.
	Sequence uint64
}

// HasSecondary reports whether n is an intended secondary.
func (s *Shard) HasSecondary(n neon.NodeID) bool { return slices.Contains(s.Secondary, n) }

// Intends reports whether the shard should have any location on n.
func (s *Shard) Intends(n neon.NodeID) bool {
	return n != 0 && s.Attached == n || s.HasSecondary(n)
}

// Goal is the node that the shard is attached on, or is to be once its move has ended.
func (s *Shard) Goal() neon.NodeID { return cmp.Or(s.PreferredNode, s.Attached) }

// OwesNotification reports whether compute still has to be told where the shard's
// newest generation is.
func (s *Shard) OwesNotification() bool { return s.GenNode != 0 && !s.ComputeAcknowledged }

// Exhausted reports whether no number is left for the shard: it can never be attached
// again. Commands ask before they change anything, so that a refusal changes nothing.
func (s *Shard) Exhausted() bool { return s.Generation == math.MaxUint32 }

// roles are the reasons a shard stands in the index of a node.
type roles uint8

const (
	roleAttached   roles = 1 << iota // intent: attached here
	roleSecondary                    // intent: secondary here
	roleGeneration                   // the newest generation was issued here
)

func (s *Shard) rolesOn(n neon.NodeID) (r roles) {
	if s.Attached == n {
		r |= roleAttached
	}
	if s.HasSecondary(n) {
		r |= roleSecondary
	}
	if s.GenNode == n {
		r |= roleGeneration
	}
	return r
}

// nodes calls f once for every node the shard refers to.
func (s *Shard) nodes(f func(neon.NodeID)) {
	if s.Attached != 0 {
		f(s.Attached)
	}
	for _, n := range s.Secondary {
		f(n)
	}
	if s.GenNode != 0 && !s.Intends(s.GenNode) {
		f(s.GenNode)
	}
}
