package scheduler

import (
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
)

// Optimise proposes one step to a better place for a shard that has all it needs:
// to be attached in its home zone, or on a node with fewer locations of its
// tenant, or to have a secondary on such a node or outside the home zone.
//
// A better attached location is proposed as a preferred node, which is warmed
// first (see Prewarm and Arrive); a secondary is replaced at once. False means that
// nothing is better in a way that is worth moving for, that the tenant is not
// Active, that the shard is attached by hand, that a move is under way, or that a
// node is in a state in which it cannot be compared. Utilisation chooses among
// better nodes and is never a reason: it changes by the move itself.
//
// Every accepted step lowers a measure that is bounded below: the locations in a
// wrong zone, then the pairs of locations of one tenant on one node, then those
// that the attached ones are paired with. So whatever is optimised comes to rest.
func (s *Scheduler) Optimise(sh fsm.Shard) (fsm.Intent, bool) {
	s.enter(sh.ID.Tenant)
	t := &s.tenant
	wanted := t.Policy.WantedSecondaries()
	if s.held() || sh.Unmanaged || t.Scheduling != neon.ShardActive || sh.PreferredNode != 0 ||
		len(sh.Secondary) != wanted {
		return fsm.Intent{}, false
	}
	switch t.Policy.Kind {
	case neon.PlaceAttached:
		if sh.Attached == 0 || !s.improvable(&sh) {
			return fsm.Intent{}, false
		}
		if to := s.betterAttached(&sh); to != 0 {
			return s.prefer(&sh, to), true
		}
		return s.betterSecondary(&sh, secondary)
	case neon.PlaceSecondary:
		return s.betterSecondary(&sh, attached)
	}
	return fsm.Intent{}, false
}

// improvable is a cheap test that most shards fail: a shard that is alone on its
// nodes as its tenant goes, attached at home and warm elsewhere, is well placed.
func (s *Scheduler) improvable(sh *fsm.Shard) bool {
	flawed := func(id neon.NodeID, r role) bool {
		n := s.node(id)
		return n != nil && (n.affinity > 1 || n.score(r, sh.PreferredAZ).Zone == 2)
	}
	return flawed(sh.Attached, attached) ||
		slices.ContainsFunc(sh.Secondary,
			func(id neon.NodeID) bool { return flawed(id, secondary) })
}

// betterAttached finds a node that is worth moving the attached location to: a
// secondary first, since it is there; 0 for none.
func (s *Scheduler) betterAttached(sh *fsm.Shard) neon.NodeID {
	from := s.node(sh.Attached)
	if from == nil || from.class != schedulable {
		return 0
	}
	s.take(sh)
	defer s.undo(sh)
	now := from.score(attached, sh.PreferredAZ)
	best := Score{}
	for _, id := range sh.Secondary {
		n := s.node(id)
		if n == nil || n.class != schedulable {
			continue
		}
		sc := n.score(attached, sh.PreferredAZ)
		if now.worthSwapping(sc) && (best.Node == 0 || sc.Compare(best) < 0) {
			best = sc
		}
	}
	if best.Node != 0 && s.isHome(sh, best.Node) {
		return best.Node
	}
	id, ok := s.pick(attached,
		&draft{attached: sh.Attached, secondary: sh.Secondary, az: sh.PreferredAZ})
	if !ok || !s.isHome(sh, id) {
		return 0
	}
	if sc := s.node(id).score(attached, sh.PreferredAZ); !sc.Overloaded && now.worthMoving(sc) {
		return id
	}
	return 0
}

// isHome tells whether a node is where a shard may be moved for its own good: a
// shard with a home goes nowhere else, since it would have to move again.
func (s *Scheduler) isHome(sh *fsm.Shard, id neon.NodeID) bool {
	return sh.PreferredAZ.IsZero() || s.node(id).az == sh.PreferredAZ
}

// worthSwapping tells whether the attached location and a secondary should change
// places. That moves no location of the tenant, so a node with one less of them is
// no reason: placing shard after shard leaves such differences everywhere.
func (a Score) worthSwapping(b Score) bool {
	if b.Overloaded {
		return false
	}
	if a.Zone != b.Zone {
		return b.Zone < a.Zone
	}
	return b.Affinity+1 < a.Affinity
}

// prefer makes a node the preferred one of a shard, with a secondary there.
func (s *Scheduler) prefer(sh *fsm.Shard, to neon.NodeID) fsm.Intent {
	d := s.take(sh)
	d.preferred = to
	if !d.holds(to) {
		d.secondary = append(d.secondary, to)
	}
	s.put(&d)
	return d.intent(sh)
}

// betterSecondary replaces the first secondary for which there is a better node,
// by the measure of a role.
func (s *Scheduler) betterSecondary(sh *fsm.Shard, r role) (fsm.Intent, bool) {
	d := s.take(sh)
	held := draft{attached: sh.Attached, secondary: sh.Secondary, az: sh.PreferredAZ}
	id, ok := s.pick(r, &held)
	if ok {
		better := s.node(id).score(r, sh.PreferredAZ)
		for i, old := range sh.Secondary {
			n := s.node(old)
			if n == nil || n.class != schedulable || better.Overloaded ||
				!n.score(r, sh.PreferredAZ).worthMoving(better) {
				continue
			}
			d.secondary[i] = id
			s.put(&d)
			return d.intent(sh), true
		}
	}
	s.undo(sh)
	return fsm.Intent{}, false
}
