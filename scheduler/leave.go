package scheduler

import (
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
)

// Leave begins the move of a shard off the node it is attached on, which takes
// nothing new any more: the shard gets a preferred node, as by Prewarm, which is
// the best secondary that is schedulable, or else a fresh node. False means that
// there is no such node, that the shard is not attached or has no generation left, or
// that it is on its way to a node that can take it. Whether its tenant may be moved is
// not asked.
func (s *Scheduler) Leave(sh fsm.Shard) (fsm.Intent, bool) {
	s.enter(sh.ID.Tenant)
	if s.held() || s.tenant.Policy.Kind != neon.PlaceAttached || sh.Attached == 0 ||
		s.UnderWay(sh) || sh.Exhausted() {
		return fsm.Intent{}, false
	}
	d := s.take(&sh)
	d.forgetDeleted()
	to := draft{fleet: s.fleet, secondary: slices.Clone(d.secondary), az: d.az}
	to.secondary = slices.DeleteFunc(to.secondary,
		func(id neon.NodeID) bool { return id == sh.Attached })
	if !to.attach() || to.attached == sh.Attached {
		s.undo(&sh)
		return fsm.Intent{}, false
	}
	d.preferred = to.attached
	if !d.holds(d.preferred) {
		d.secondary = append(d.secondary, d.preferred)
	}
	s.put(&d)
	return d.takeAway(&sh, sh.Attached), true
}

// UnderWay reports whether a shard is being warmed on a node that can take it.
func (s *Scheduler) UnderWay(sh fsm.Shard) bool {
	p := sh.PreferredNode
	n := s.node(p)
	return p != 0 && p != sh.Attached && n != nil && n.class == schedulable && sh.HasSecondary(p)
}

// LeaveSecondary takes a secondary away from a node, in favour of another node if
// one can take it. False means that the shard has none there.
func (s *Scheduler) LeaveSecondary(sh fsm.Shard, node neon.NodeID) (fsm.Intent, bool) {
	s.enter(sh.ID.Tenant)
	if s.held() || !sh.HasSecondary(node) {
		return fsm.Intent{}, false
	}
	if in, ok := s.rehome(&sh, node); ok {
		return in, true
	}
	d := s.take(&sh)
	d.drop(node)
	s.put(&d)
	return d.takeAway(&sh, node), true
}

// FailOver attaches a shard elsewhere at once, with a generation in the same
// entry, as Evacuate does. False means that no node can take it, or that its
// tenant is not to be touched.
func (s *Scheduler) FailOver(sh fsm.Shard) (fsm.Intent, bool) {
	if len(s.open) == 0 || sh.Attached == 0 {
		return fsm.Intent{}, false
	}
	return s.failOver(&sh)
}

// Arrive completes a move, as far as it would still be begun: the preferred node is the
// attached one from now on. False means that the node does not answer or takes nothing, or
// that the tenant is pinned; an operator may have insisted on the latter two.
//
// The node it was attached on counts as a secondary like the others, and those that
// are worth least are given up until there are as many as wanted. A tenant that is
// not optimised keeps it before all others: its operator may want to go back.
func (s *Scheduler) Arrive(sh fsm.Shard) (fsm.Intent, bool) {
	s.enter(sh.ID.Tenant)
	p := sh.PreferredNode
	if s.held() || s.tenant.Policy.Kind != neon.PlaceAttached || p == 0 || !sh.HasSecondary(p) ||
		!s.mayArrive(&sh) {
		return fsm.Intent{}, false
	}
	d := s.take(&sh)
	old := d.attached
	d.drop(p)
	d.attached, d.preferred = p, 0
	d.forgetDeleted()
	switch n := s.node(old); {
	case n == nil:
	case s.tenant.Scheduling != neon.ShardActive && n.class == schedulable:
		d.demote(old, s.tenant.Policy.WantedSecondaries())
	default:
		d.secondary = append(d.secondary, old)
	}
	d.trim(s.tenant.Policy.WantedSecondaries())
	s.put(&d)
	return d.intent(&sh), true
}

// mayArrive reports whether the preferred node of a shard may take it now. Below the level
// nothing says on what an operator insists.
func (s *Scheduler) mayArrive(sh *fsm.Shard) bool {
	switch n := s.node(sh.PreferredNode); {
	case n == nil, n.class >= silent:
		return false
	case sh.Insisted, !s.state.KnowsBasis():
		return true
	case n.class != schedulable:
		return false
	}
	// Only who deletes a node moves pinned tenants.
	from, _ := s.state.Node(sh.Attached)
	return !s.tenant.Pinned() || from.Operation.Kind == fsm.OperationDelete
}

// GiveUp ends a move that did not come about: the shard stays where it is, and a
// secondary that was made for the move goes.
func (s *Scheduler) GiveUp(sh fsm.Shard) (fsm.Intent, bool) {
	if sh.PreferredNode == 0 {
		return fsm.Intent{}, false
	}
	d := s.take(&sh)
	made := d.preferred
	d.preferred = 0
	if len(d.secondary) > s.tenant.Policy.WantedSecondaries() {
		d.drop(made)
	}
	s.put(&d)
	return d.intent(&sh), true
}

// MayLose reports whether everything that a node has could be placed elsewhere. The
// error is a neon.Conflict for the first shard that could not. Tenants under Pause
// or Stop are not asked for.
func (s *Scheduler) MayLose(node neon.NodeID) error {
	is := func(i int) bool { return s.nodes[i].id == node }
	s.open, s.mute = slices.DeleteFunc(s.open, is), slices.DeleteFunc(s.mute, is)
	if n := s.node(node); n != nil && n.class != unreachable {
		n.class = available
	}
	for sh := range s.state.NodeShards(node) {
		s.enter(sh.ID.Tenant)
		if s.tenant.Deleting || s.tenant.Pinned() || !sh.Intends(node) {
			continue
		}
		d := s.take(&sh)
		d.asked = true
		if d.attached == node {
			d.attached = 0
		}
		d.drop(node)
		if d.preferred == node {
			d.preferred = 0
		}
		placed := d.satisfy(s.tenant.Policy)
		s.put(&d)
		if !placed {
			return s.unplaced(sh.ID)
		}
	}
	return nil
}
