package scheduler

import (
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
)

// Evacuate moves shards away from a node that is offline or deleted: at most max
// (at least 1) intents, beginning with the first shard id >= from. When more is
// true the scan goes on at next.
//
// The best schedulable secondary takes over, a fresh node where there is none.
// Each intent issues the generation in the same entry, since the old location
// cannot be asked for anything. The old node becomes a secondary as long as the
// policy has room for one: its disk is warm when it comes back, and if it does
// not, ReplaceSecondaries takes care.
//
// Tenants under Pause are moved too, since staying down is not what a pause is
// for; tenants under Stop are not, nor are shards that have no generation left. With
// no schedulable node, and for a node that is neither offline nor deleted, there are
// no intents.
func (s *Scheduler) Evacuate(
	node neon.NodeID, from neon.ShardID, max int,
) (intents []fsm.Intent, next neon.ShardID, more bool) {
	if len(s.open) == 0 || !s.lost(node) {
		return nil, neon.ShardID{}, false
	}
	for sh := range s.state.AttachedOn(node, from) {
		if len(intents) >= max {
			return intents, sh.ID, true
		}
		if in, ok := s.failOver(&sh); ok {
			intents = append(intents, in)
		}
	}
	return intents, neon.ShardID{}, false
}

func (s *Scheduler) failOver(sh *fsm.Shard) (fsm.Intent, bool) {
	s.enter(sh.ID.Tenant)
	t := &s.tenant
	if s.held() || t.Scheduling == neon.ShardStop || t.Policy.Kind != neon.PlaceAttached ||
		sh.Exhausted() {
		return fsm.Intent{}, false
	}
	d := s.take(sh)
	dead := d.attached
	d.attached = 0
	d.forgetDeleted()
	if !d.attach() {
		s.undo(sh)
		return fsm.Intent{}, false
	}
	// A tenant that is not optimised was to leave the node that is lost, or was asked for.
	left := t.Scheduling != neon.ShardActive && !sh.Insisted
	if d.preferred == d.attached || d.preferred == dead || left {
		d.preferred = 0
	}
	if n, ok := s.state.Node(dead); ok && !n.Tombstone && n.Scheduling != neon.SchedulingDeleting &&
		d.counted() < t.Policy.WantedSecondaries() {
		d.secondary = append(d.secondary, dead)
	}
	s.put(&d)
	in := d.takeAway(sh, dead)
	in.Issue = true
	return in, true
}

// ReplaceSecondaries gives new homes to the secondaries on a node that is offline
// or deleted, in batches like Evacuate. It is for a node that has been offline
// for long: the copies are made anew, which a node that comes back soon would
// have saved. A secondary that no other node can take stays where it is, as do
// those of tenants under Pause or Stop.
func (s *Scheduler) ReplaceSecondaries(
	node neon.NodeID, from neon.ShardID, max int,
) (intents []fsm.Intent, next neon.ShardID, more bool) {
	if len(s.open) == 0 || !s.lost(node) {
		return nil, neon.ShardID{}, false
	}
	for sh := range s.state.SecondaryOn(node, from) {
		if len(intents) >= max {
			return intents, sh.ID, true
		}
		if in, ok := s.rehome(&sh, node); ok {
			intents = append(intents, in)
		}
	}
	return intents, neon.ShardID{}, false
}

func (s *Scheduler) rehome(sh *fsm.Shard, dead neon.NodeID) (fsm.Intent, bool) {
	s.enter(sh.ID.Tenant)
	t := &s.tenant
	if s.held() || t.Pinned() || t.Policy.Kind == neon.PlaceDetached {
		return fsm.Intent{}, false
	}
	d := s.take(sh)
	if d.preferred == dead {
		d.preferred = 0
	}
	if d.counted() > t.Policy.WantedSecondaries() {
		d.drop(dead)
		s.put(&d)
		return d.takeAway(sh, dead), true
	}
	r := secondary
	if t.Policy.Kind == neon.PlaceSecondary {
		r = attached
	}
	n, ok := s.pick(r, &d)
	if !ok {
		s.undo(sh)
		return fsm.Intent{}, false
	}
	d.secondary[slices.Index(d.secondary, dead)] = n
	s.put(&d)
	return d.takeAway(sh, dead), true
}
