package scheduler

import (
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
)

// improvement looks for one step to a better place for a shard.
type improvement struct {
	*round
	shard *fsm.Shard
}

// step finds the first step that is worth moving for.
func (m *improvement) step() (fsm.Intent, bool) {
	sh := m.shard
	m.enter(sh.ID.Tenant)
	if !m.settled(sh) {
		return fsm.Intent{}, false
	}
	switch m.tenant.Policy.Kind {
	case neon.PlaceAttached:
		if sh.Attached == 0 || !m.improvable() {
			return fsm.Intent{}, false
		}
		if to := m.betterAttached(); to != 0 && !m.secondaryFirst(to) {
			return m.prefer(to), true
		}
		return m.betterSecondary(secondary)
	case neon.PlaceSecondary:
		return m.betterSecondary(attached)
	}
	return fsm.Intent{}, false
}

// settled reports whether a shard of the tenant under decision has all it needs, and may
// be moved for its own good.
func (r *round) settled(sh *fsm.Shard) bool {
	return !r.held() && !sh.Unmanaged && r.tenant.Scheduling == neon.ShardActive &&
		sh.PreferredNode == 0 && len(sh.Secondary) == r.tenant.Policy.WantedSecondaries()
}

// improvable is a cheap test that most shards fail: a shard that is alone on its
// nodes as its tenant goes, attached at home and warm elsewhere, is well placed.
func (m *improvement) improvable() bool {
	sh := m.shard
	flawed := func(id neon.NodeID, r role) bool {
		n := m.node(id)
		return n != nil && (n.affinity > 1 || n.score(r, sh.PreferredAZ).Zone == 2)
	}
	return flawed(sh.Attached, attached) ||
		slices.ContainsFunc(sh.Secondary,
			func(id neon.NodeID) bool { return flawed(id, secondary) })
}

// betterAttached finds a node that is worth moving the attached location to: a
// secondary first, since it is there; 0 for none.
func (m *improvement) betterAttached() neon.NodeID {
	sh := m.shard
	from := m.node(sh.Attached)
	if from == nil || from.class != schedulable || sh.Exhausted() {
		return 0
	}
	m.take(sh)
	defer m.undo(sh)
	now := from.score(attached, sh.PreferredAZ)
	best := Score{}
	for _, id := range sh.Secondary {
		n := m.node(id)
		if n == nil || n.class != schedulable || n.load.Unsteady {
			continue
		}
		sc := n.score(attached, sh.PreferredAZ)
		if now.worthSwapping(sc) && (best.Node == 0 || sc.Compare(best) < 0) {
			best = sc
		}
	}
	if best.Node != 0 && m.isHome(best.Node) {
		return best.Node
	}
	id, ok := m.pickOf(m.firm, attached,
		&draft{attached: sh.Attached, secondary: sh.Secondary, az: sh.PreferredAZ})
	if !ok || !m.isHome(id) {
		return 0
	}
	if sc := m.node(id).score(attached, sh.PreferredAZ); !sc.Overloaded && now.worthMoving(sc) {
		return id
	}
	return 0
}

// secondaryFirst reports whether a secondary of the tenant is to leave the node of the shard
// before the shard does. It costs compute nothing, and when it has left, the shard may be
// well placed where it is: it would come back. A shard that is not at home does not wait.
func (m *improvement) secondaryFirst(to neon.NodeID) bool {
	sh := *m.shard
	if m.node(sh.Attached).score(attached, sh.PreferredAZ).Zone !=
		m.node(to).score(attached, sh.PreferredAZ).Zone {
		return false
	}
	for other := range m.state.TenantShards(sh.ID.Tenant) {
		if !other.HasSecondary(sh.Attached) || !m.settled(&other) {
			continue
		}
		if (&improvement{round: m.round, shard: &other}).leavesSecondary(sh.Attached) {
			return true
		}
	}
	return false
}

// isHome reports whether a node is where a shard may be moved for its own good: a
// shard with a home goes nowhere else, since it would have to move again.
func (m *improvement) isHome(id neon.NodeID) bool {
	sh := m.shard
	return sh.PreferredAZ.IsZero() || m.node(id).az == sh.PreferredAZ
}

// worthSwapping reports whether the attached location and a secondary should change
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
func (m *improvement) prefer(to neon.NodeID) fsm.Intent {
	sh := m.shard
	d := m.take(sh)
	d.preferred = to
	if !d.holds(to) {
		d.secondary = append(d.secondary, to)
	}
	m.put(&d)
	return d.intent(sh)
}

// betterSecondary replaces the first secondary for which there is a better node,
// by the measure of a role.
func (m *improvement) betterSecondary(r role) (fsm.Intent, bool) {
	sh := m.shard
	d := m.take(sh)
	for i, old := range sh.Secondary {
		if id := m.betterThan(old, r); id != 0 {
			d.secondary[i] = id
			m.put(&d)
			return d.intent(sh), true
		}
	}
	m.undo(sh)
	return fsm.Intent{}, false
}

// betterThan finds a node that is worth moving a secondary to; 0 for none. The shard has
// been taken.
func (m *improvement) betterThan(old neon.NodeID, r role) neon.NodeID {
	sh := m.shard
	n := m.node(old)
	if n == nil || n.class != schedulable {
		return 0
	}
	id, ok := m.pickOf(m.firm, r,
		&draft{attached: sh.Attached, secondary: sh.Secondary, az: sh.PreferredAZ})
	if !ok {
		return 0
	}
	better := m.node(id).score(r, sh.PreferredAZ)
	if better.Overloaded || !n.score(r, sh.PreferredAZ).worthMoving(better) {
		return 0
	}
	return id
}

// leavesSecondary reports whether the secondary on a node has a better place.
func (m *improvement) leavesSecondary(from neon.NodeID) bool {
	m.take(m.shard)
	defer m.undo(m.shard)
	return m.betterThan(from, secondary) != 0
}
