package fsm

import (
	"slices"

	"quorate/api/neon"
)

// numbered reports whether numbers are issued for the shards of a tenant. Nobody would
// attach those of a stopped one.
func numbered(t *txn, tenant *Tenant) bool {
	return !t.KnowsBasis() || tenant.Scheduling != neon.ShardStop
}

// welcome reports whether the nodes that an intent newly attaches a shard on, or has it
// move to, take shards. An operator may insist on others.
func welcome(t *txn, sh *Shard, in *Intent) bool {
	if !t.KnowsBasis() || in.Insisted {
		return true
	}
	if in.Attached != 0 && in.Attached != sh.Attached &&
		!(sh.Insisted && in.Attached == sh.PreferredNode) {
		if n, _ := t.Node(in.Attached); !n.Schedulable() {
			return false
		}
	}
	if in.PreferredNode != 0 && in.PreferredNode != sh.PreferredNode {
		n, _ := t.Node(in.PreferredNode)
		return n.Takes()
	}
	return true
}

// prefer writes where a shard is to move to by an intent. It remembers on what an
// operator insists, for as long as nothing else is decided.
func prefer(t *txn, s *Shard, in *Intent) {
	insisted := in.Insisted || s.Insisted && in.PreferredNode == s.PreferredNode
	s.PreferredNode = in.PreferredNode
	if t.KnowsBasis() && !s.HasSecondary(s.PreferredNode) {
		s.PreferredNode = 0 // nothing could become warm
	}
	s.Insisted = insisted && s.PreferredNode != 0
	if goal := s.Goal(); in.Insisted && in.At > 0 && goal != 0 {
		s.PlacedOn, s.PlacedAt = goal, in.At
	}
}

// endMove makes a shard stay where it is, unless it has come to the cut-over. A secondary
// that was made for the move is trimmed as one too many.
func endMove(t *txn, s Shard) {
	s.PreferredNode, s.Insisted, s.Sequence = 0, false, t.Index
	t.setShard(s)
}

// endMovesTo ends all moves to a node that has come to take nothing.
func endMovesTo(t *txn, id neon.NodeID) {
	for _, s := range slices.Collect(t.SecondaryOn(id, neon.ShardID{})) {
		if s.PreferredNode == id {
			endMove(t, s)
		}
	}
}

// endMovesOf ends the moves of a tenant whose scheduling policy was changed, as far as the
// new one does not allow them. A tenant that is not optimised is moved for its nodes'
// sake, and by operators.
func endMovesOf(t *txn, tenant Tenant, was neon.ShardScheduling) {
	pinned := tenant.Pinned() && was != neon.ShardPause && was != neon.ShardStop
	for _, s := range slices.Collect(t.TenantShards(tenant.ID)) {
		if s.PreferredNode != 0 && (pinned || tenant.Scheduling == neon.ShardEssential &&
			was == neon.ShardActive && !s.Insisted && !movedByOperation(t, &s)) {
			endMove(t, s)
		}
	}
}

// movedByOperation reports whether a shard moves for an operation on a node.
func movedByOperation(t *txn, s *Shard) bool {
	from, _ := t.Node(s.Attached)
	to, _ := t.Node(s.PreferredNode)
	return from.Operation.Kind == OperationDrain || from.Operation.Kind == OperationDelete ||
		to.Operation.Kind == OperationFill
}

// endEarlierMoves ends the moves that could not have been begun at this level.
func endEarlierMoves(t *txn) {
	for _, s := range slices.Collect(t.ShardsFrom(neon.ShardID{})) {
		if s.PreferredNode == 0 {
			continue
		}
		tenant, _ := t.Tenant(s.ID.Tenant)
		n, _ := t.Node(s.PreferredNode)
		if !n.Takes() || !s.HasSecondary(s.PreferredNode) ||
			tenant.Pinned() && !movedByOperation(t, &s) {
			endMove(t, s)
		}
	}
}
