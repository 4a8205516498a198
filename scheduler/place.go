package scheduler

import (
	"cmp"
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
)

// PlaceTenant places all shards of a new tenant, [i] being number i. Its home is
// the zone with the fewest locations at home per node.
//
// When there are too few nodes for the policy the error is a neon.Conflict whose
// cause is ErrNoNodes or ErrNoFit, and the shards are nevertheless returned with
// what could be placed: a caller may create the tenant and say so, and what is
// missing is repaired as soon as there are nodes.
func (s *Scheduler) PlaceTenant(
	id neon.TenantID, count neon.ShardCount, policy neon.Placement,
) ([]fsm.NewShard, error) {
	s.enter(id)
	home := s.homeZone()
	shards := make([]fsm.NewShard, count.Shards())
	var first error
	for i := range shards {
		d := draft{secondary: s.scratch[:0], az: home}
		if !s.settle(&d, policy) && first == nil {
			first = s.unplaced(neon.ShardID{Tenant: id, Number: neon.ShardNumber(i), Count: count})
		}
		s.put(&d)
		s.scratch = d.secondary
		shards[i] = fsm.NewShard{
			Attached: d.attached, Secondary: append([]neon.NodeID(nil), d.secondary...),
			PreferredAZ: home,
		}
	}
	return shards, first
}

// Assume counts the shards of a tenant as if it existed: it is about to be
// created, and others have to be placed beside it meanwhile.
func (s *Scheduler) Assume(id neon.TenantID, shards []fsm.NewShard) {
	s.enter(id)
	for _, sh := range shards {
		s.put(&draft{attached: sh.Attached, secondary: sh.Secondary, az: sh.PreferredAZ})
	}
}

// Replace decides anew, under a policy, all shards of a tenant that exists, and
// returns the intents that differ from what is. It is for the change of a policy:
// an attached location is kept wherever it is, a missing one is made of the best
// secondary, and secondaries are added or given up to be as many as wanted.
//
// tenant.Scheduling is what it will be after the change. With Pause or Stop
// nothing is decided except for what is attached under a policy that allows no
// such thing: it becomes a secondary or goes, whoever paused it. Errors are as for
// PlaceTenant, and the intents returned with one are as good as can be.
func (s *Scheduler) Replace(tenant fsm.Tenant, policy neon.Placement) ([]fsm.Intent, error) {
	var intents []fsm.Intent
	var first error
	for sh := range s.state.TenantShards(tenant.ID) {
		if frozen(&tenant) && (policy.Kind == neon.PlaceAttached ||
			policy.Kind == neon.PlaceSecondary && sh.Attached == 0) {
			continue
		}
		d := s.take(&sh)
		if !s.settle(&d, policy) && first == nil {
			first = s.unplaced(sh.ID)
		}
		s.put(&d)
		if d.differs(&sh) {
			intents = append(intents, d.intent(&sh))
		}
	}
	return intents, first
}

// Repair brings one shard to what its tenant's policy wants, wherever it is short
// of that: no attached location, too few or too many secondaries, locations on
// deleted nodes. It looks at what is, not at what happened, so it may be asked
// again and again; false means that nothing is to be done or can be done. An
// attached location on a node that is offline is left to Evacuate, a secondary
// there to ReplaceSecondaries, and a tenant under Stop to its operator; one under
// Pause as well, unless the shard is attached nowhere: nobody pauses an outage.
//
// A secondary on the preferred node is not counted: it is being warmed to take
// over.
func (s *Scheduler) Repair(sh fsm.Shard) (fsm.Intent, bool) {
	s.enter(sh.ID.Tenant)
	if len(s.open) == 0 || s.held() || frozen(&s.tenant) && !s.nowhere(&sh) {
		return fsm.Intent{}, false
	}
	d := s.take(&sh)
	s.settle(&d, s.tenant.Policy)
	s.put(&d)
	if !d.differs(&sh) {
		return fsm.Intent{}, false
	}
	return d.intent(&sh), true
}

// nowhere tells whether a shard that should be served, and may be touched, is not.
func (s *Scheduler) nowhere(sh *fsm.Shard) bool {
	return s.tenant.Policy.Kind == neon.PlaceAttached && s.tenant.Scheduling != neon.ShardStop &&
		sh.Attached == 0
}

// frozen tells whether an operator forbade to schedule a tenant.
func frozen(t *fsm.Tenant) bool {
	return t.Scheduling == neon.ShardPause || t.Scheduling == neon.ShardStop
}

// settle makes a draft what a policy wants, as far as there are nodes; false
// when there are too few.
func (s *Scheduler) settle(d *draft, policy neon.Placement) bool {
	s.forgetDeleted(d)
	switch policy.Kind {
	case neon.PlaceAttached:
		return s.settleAttached(d, policy.WantedSecondaries())
	case neon.PlaceSecondary:
		return s.settleSecondary(d)
	}
	d.attached, d.secondary, d.preferred = 0, d.secondary[:0], 0
	return true
}

func (s *Scheduler) forgetDeleted(d *draft) {
	gone := func(id neon.NodeID) bool { return s.node(id) == nil }
	if gone(d.attached) {
		d.attached = 0
	}
	if gone(d.preferred) {
		d.preferred = 0
	}
	d.secondary = slices.DeleteFunc(d.secondary, gone)
}

func (s *Scheduler) settleAttached(d *draft, wanted int) bool {
	if d.attached == 0 && !s.attach(d) {
		return false
	}
	if d.preferred == d.attached {
		d.preferred = 0
	}
	for d.counted() < wanted {
		n, ok := s.pick(secondary, d)
		if !ok {
			return false
		}
		d.secondary = append(d.secondary, n)
	}
	s.trim(d, wanted)
	return true
}

// attach gives a draft an attached location: the best of its secondaries that is
// schedulable, else a fresh node. Secondaries away from home come first, being
// the ones that were kept for this; one at home is most likely being warmed.
func (s *Scheduler) attach(d *draft) bool {
	var best Score
	for _, id := range d.secondary {
		n := s.node(id)
		if n == nil || n.class != schedulable {
			continue
		}
		sc := Score{Zone: n.score(secondary, d.az).Zone, Node: id}
		if best.Node == 0 || sc.Compare(best) < 0 {
			best = sc
		}
	}
	if best.Node != 0 {
		d.drop(best.Node)
		d.attached = best.Node
		return true
	}
	n, ok := s.pick(attached, d)
	d.attached = n
	return ok
}

// counted is how many secondaries there are without the one on the preferred
// node.
func (d *draft) counted() int {
	n := len(d.secondary)
	if d.preferred != 0 && slices.Contains(d.secondary, d.preferred) {
		n--
	}
	return n
}

// trim gives up secondaries until as many as wanted are counted: those that
// cannot be reached first, then those on nodes that take nothing new, then the
// worst-scored.
func (s *Scheduler) trim(d *draft, wanted int) {
	for d.counted() > wanted {
		worst, at := Score{}, class(0)
		for _, id := range d.secondary {
			n := s.node(id)
			if id == d.preferred {
				continue
			}
			sc := n.score(secondary, d.az)
			if worst.Node == 0 || cmp.Or(cmp.Compare(n.class, at), sc.Compare(worst)) > 0 {
				worst, at = sc, n.class
			}
		}
		d.drop(worst.Node)
	}
}

// settleSecondary leaves one warm location and nothing attached. The one kept is
// reachable if any is, in the home zone if any is, and else the one that was
// attached; a fresh one is chosen like an attached location, so that activating
// the tenant attaches it at home.
func (s *Scheduler) settleSecondary(d *draft) bool {
	demoted := d.attached
	if demoted != 0 {
		d.secondary = append(d.secondary, demoted)
	}
	d.attached, d.preferred = 0, 0
	if len(d.secondary) == 0 {
		n, ok := s.pick(attached, d)
		if ok {
			d.secondary = append(d.secondary, n)
		}
		return ok
	}
	keep := slices.MinFunc(d.secondary, func(a, b neon.NodeID) int {
		x, y := s.node(a), s.node(b)
		return cmp.Or(
			cmp.Compare(bit(x.class == unreachable), bit(y.class == unreachable)),
			cmp.Compare(x.score(attached, d.az).Zone, y.score(attached, d.az).Zone),
			cmp.Compare(bit(a != demoted), bit(b != demoted)),
			cmp.Compare(a, b))
	})
	d.secondary = append(d.secondary[:0], keep)
	return true
}

func bit(v bool) int {
	if v {
		return 1
	}
	return 0
}
