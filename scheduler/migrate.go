package scheduler

import (
	"fmt"

	"quorate/api/neon"
	"quorate/fsm"
)

// Override says whether an operator insists on a migration that the scheduler
// would not make.
type Override uint8

// The values of Override.
const (
	RespectScheduler  Override = iota // refuse unavailable and worse-scoring nodes
	OverrideScheduler                 // go there nevertheless
)

// Migrate moves a shard to a node at once. The old attached location stays as a
// secondary where the policy wants any, in the place of the one most worth giving
// up, so that the number of secondaries is right; it is given up otherwise. A
// tenant placed as Secondary has its only location moved. The preferred node is
// cleared: the operator decided again.
//
// Errors are neon.Errors: NotFound for a shard of no tenant; BadRequest for a
// node that does not exist and a tenant that is Detached; and, unless overridden,
// PreconditionFailed for a node that is not available, does not answer or has a worse
// score than another. A shard that has no generation left stays: PreconditionFailed
// too. Moving a shard to where it is changes nothing (see Changes).
func (s *Scheduler) Migrate(sh fsm.Shard, to neon.NodeID, override Override) (fsm.Intent, error) {
	if err := s.mayAttach(&sh, to, override); err != nil {
		return fsm.Intent{}, err
	}
	d := s.take(&sh)
	d.preferred = 0
	switch old := d.attached; {
	case s.tenant.Policy.Kind == neon.PlaceSecondary:
		d.attached, d.secondary = 0, append(d.secondary[:0], to)
	case old != to:
		d.forgetDeleted()
		d.drop(to)
		d.attached = to
		d.demote(old, s.tenant.Policy.WantedSecondaries())
	}
	s.put(&d)
	return d.intent(&sh), nil
}

// Prewarm begins a move that waits until the destination is warm: the shard gets
// a secondary there and remembers the node as its preferred one. When the
// secondary is warm enough, Migrate with OverrideScheduler completes it. Errors
// are those of Migrate; a tenant that has nothing attached is moved at once.
func (s *Scheduler) Prewarm(sh fsm.Shard, to neon.NodeID, override Override) (fsm.Intent, error) {
	if tenant, _ := s.state.Tenant(sh.ID.Tenant); tenant.Policy.Kind != neon.PlaceAttached ||
		sh.Attached == 0 || sh.Attached == to {
		return s.Migrate(sh, to, override)
	}
	if err := s.mayAttach(&sh, to, override); err != nil {
		return fsm.Intent{}, err
	}
	d := s.take(&sh)
	d.preferred = to
	if !d.holds(to) {
		d.secondary = append(d.secondary, to)
	}
	s.put(&d)
	return d.intent(&sh), nil
}

// MigrateSecondary makes a node the only secondary of a shard, in the place of
// all others. Nothing changes when the node is attached. Errors are NotFound and
// BadRequest as for Migrate.
func (s *Scheduler) MigrateSecondary(sh fsm.Shard, to neon.NodeID) (fsm.Intent, error) {
	if err := s.mayMigrate(&sh, to, OverrideScheduler); err != nil {
		return fsm.Intent{}, err
	}
	d := s.take(&sh)
	if d.attached != to {
		d.secondary = append(d.secondary[:0], to)
	}
	s.put(&d)
	return d.intent(&sh), nil
}

func (s *Scheduler) mayAttach(sh *fsm.Shard, to neon.NodeID, override Override) error {
	if err := s.mayMigrate(sh, to, override); err != nil {
		return err
	}
	if sh.Exhausted() && sh.Attached != to && s.tenant.Policy.Kind == neon.PlaceAttached {
		return neon.Errorf(neon.PreconditionFailed,
			"Shard %s cannot be attached anew: all its generations are used up", sh.ID)
	}
	return nil
}

func (s *Scheduler) mayMigrate(sh *fsm.Shard, to neon.NodeID, override Override) error {
	n, ok := s.state.Node(to)
	if !ok || n.Tombstone {
		return neon.Errorf(neon.BadRequest, "Node %d not found", to)
	}
	if !n.Available() && override != OverrideScheduler {
		return neon.Errorf(neon.PreconditionFailed, "Node %d (%s) is unavailable", to,
			n.Addr.HTTPHost)
	}
	if at := s.node(to); at.class == silent && override != OverrideScheduler && sh.Attached != to {
		return neon.Errorf(neon.PreconditionFailed,
			"Node %d (%s) is unavailable: it does not answer", to, n.Addr.HTTPHost)
	}
	s.enter(sh.ID.Tenant)
	if _, ok := s.state.Tenant(sh.ID.Tenant); !ok || s.tenant.Deleting {
		return neon.Errorf(neon.NotFound, "Tenant shard not found")
	}
	if s.tenant.Policy.Kind == neon.PlaceDetached {
		return neon.Errorf(neon.BadRequest,
			"Cannot migrate a tenant that is Detached: configure it to an attached policy first")
	}
	if better, found := s.better(sh, to); found && override != OverrideScheduler {
		return &neon.Error{
			Code: neon.PreconditionFailed, Msg: "Migration to a worse-scoring node",
			Err: fmt.Errorf("node %d is better than node %d", better, to),
		}
	}
	return nil
}

// better is a node on which a shard would be better attached than on another, in
// a way that is worth moving for. A node that is not schedulable cannot be
// compared, so that nothing is better.
func (s *Scheduler) better(sh *fsm.Shard, than neon.NodeID) (neon.NodeID, bool) {
	n := s.node(than)
	if n == nil || n.class != schedulable || sh.Attached == than {
		return 0, false
	}
	s.take(sh)
	defer s.undo(sh)
	id, ok := s.pick(attached, &draft{az: sh.PreferredAZ})
	if !ok || id == than ||
		!n.score(attached, sh.PreferredAZ).worthMoving(s.node(id).score(attached, sh.PreferredAZ)) {
		return 0, false
	}
	return id, true
}
