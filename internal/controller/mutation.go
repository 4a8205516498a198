package controller

import (
	"context"

	"quorate/api/neon"
	"quorate/fsm"
)

// mutate runs something on the pageservers that own the shards of a tenant, and
// believes its outcome only if they still own them afterwards, in the same
// generation: what a superseded location has acknowledged, its successor may never
// see. The owners are by shard number and at least one.
func (t *Timelines) mutate(ctx context.Context, id neon.TenantID, run func([]owner) error) error {
	if err := thaw(ctx, t.Log, id); err != nil {
		return err
	}
	return t.guard(ctx, func(s *fsm.State) ([]owner, error) { return owners(s, id) }, run)
}

func (t *Timelines) guard(
	ctx context.Context, find func(*fsm.State) ([]owner, error), run func([]owner) error,
) error {
	s, err := t.Log.ReadState(ctx)
	if err != nil {
		return err
	}
	before, err := find(s)
	if err != nil {
		return err
	}
	Acted(ctx)
	outcome := run(before)
	if s, err = t.Log.ReadState(ctx); err != nil {
		return err
	}
	for _, o := range before {
		sh, ok := s.Shard(o.shard)
		// During a split nobody knows whether the children have what the parent has.
		if !ok || s.Splitting(o.shard.Tenant) || sh.Generation != o.generation ||
			sh.GenNode != o.node.ID {
			return neon.Errorf(neon.Unavailable, "Tenant attachment changed, please retry")
		}
	}
	return outcome
}

// owners finds the owners of all shards of a tenant.
func owners(s *fsm.State, id neon.TenantID) ([]owner, error) {
	tenant, ok := s.Tenant(id)
	if !ok {
		return nil, neon.Errorf(neon.NotFound, "Tenant not found")
	}
	if s.Splitting(id) {
		return nil, neon.Errorf(neon.Unavailable, "Tenant %s is being split, please retry", id)
	}
	all := make([]owner, 0, tenant.Count.Shards())
	for sh := range s.TenantShards(id) {
		o, err := ownerOf(s, tenant, sh)
		if err != nil {
			return nil, err
		}
		all = append(all, o)
	}
	return all, nil
}

func ownerOf(s *fsm.State, tenant fsm.Tenant, sh fsm.Shard) (owner, error) {
	if sh.GenNode == 0 || !sh.HasGeneration {
		switch tenant.Policy.Kind {
		case neon.PlaceDetached:
			return owner{}, neon.Errorf(neon.Conflict, "Shard %s tenant has policy Detached", sh.ID)
		case neon.PlaceSecondary:
			return owner{}, neon.Errorf(neon.Conflict, "Shard %s tenant has policy Secondary",
				sh.ID)
		}
		return owner{}, neon.Errorf(neon.Unavailable,
			"One or more shards in tenant is not yet attached")
	}
	node, ok := s.Node(sh.GenNode)
	if !ok || node.Tombstone {
		return owner{}, neon.Errorf(neon.Conflict, "Raced with removal of node %d", sh.GenNode)
	}
	return owner{shard: sh.ID, generation: sh.Generation, node: node}, nil
}
