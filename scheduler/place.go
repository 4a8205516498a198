package scheduler

import (
	"quorate/api/neon"
	"quorate/fsm"
)

// PlaceTenant places all shards of a new tenant, [i] being number i. Its home is
// the zone with the fewest locations at home for its capacity.
//
// When there are too few nodes for the policy the error is a neon.Conflict whose
// cause is ErrNoNodes or ErrNoFit, and the shards are nevertheless returned with
// what could be placed: a caller may create the tenant and say so, and what is
// missing is repaired as soon as there are nodes. Nodes that do not answer take what no
// other node can take.
func (s *Scheduler) PlaceTenant(
	id neon.TenantID, count neon.ShardCount, policy neon.Placement,
) ([]fsm.NewShard, error) {
	s.enter(id)
	home := s.homeZone()
	shards := make([]fsm.NewShard, count.Shards())
	var first error
	for i := range shards {
		d := draft{fleet: s.fleet, secondary: s.scratch[:0], az: home, asked: true}
		if !d.satisfy(policy) && first == nil {
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
// secondary, and secondaries are added or given up to be as many as wanted. A tenant that
// is put to Secondary keeps one to spare, which Repair gives up.
//
// tenant.Scheduling is what it will be after the change. With Pause or Stop
// nothing is decided except for what is attached under a policy that allows no
// such thing: it becomes a secondary or goes, even if the tenant is paused. Errors are as for
// PlaceTenant, and the intents returned with one are as good as can be.
func (s *Scheduler) Replace(tenant fsm.Tenant, policy neon.Placement) ([]fsm.Intent, error) {
	var intents []fsm.Intent
	var first error
	for sh := range s.state.TenantShards(tenant.ID) {
		if tenant.Pinned() && (policy.Kind == neon.PlaceAttached ||
			policy.Kind == neon.PlaceSecondary && sh.Attached == 0) {
			continue
		}
		d := s.take(&sh)
		d.asked = true
		if policy.Kind == neon.PlaceAttached && s.tenant.Policy.Kind == neon.PlaceSecondary {
			d.wake()
		}
		if !d.satisfy(policy) && first == nil {
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
// Pause as well, unless the shard is attached nowhere: a pause is not meant to prolong an outage.
//
// A secondary on the preferred node is not counted: it is being warmed to take
// over.
func (s *Scheduler) Repair(sh fsm.Shard) (fsm.Intent, bool) {
	s.enter(sh.ID.Tenant)
	if len(s.open) == 0 || s.held() || s.tenant.Pinned() && !s.nowhere(&sh) {
		return fsm.Intent{}, false
	}
	d := s.take(&sh)
	d.satisfy(s.tenant.Policy)
	if s.tenant.Policy.Kind == neon.PlaceSecondary {
		d.keepOne()
	}
	s.put(&d)
	if !d.differs(&sh) {
		return fsm.Intent{}, false
	}
	return d.intent(&sh), true
}
