package controller

import (
	"context"

	"quorate/api/neon"
	"quorate/fsm"
)

// SetPolicy changes how a tenant is placed and whether it may be scheduled. It
// returns once that is committed; the shards follow. When they cannot all be
// placed that is a Conflict, although the policy was changed.
func (t *Tenants) SetPolicy(ctx context.Context, id neon.TenantID, req neon.PolicyRequest) error {
	release, err := t.Locks.acquire(ctx, id, exclusive("UpdatePolicy"))
	if err != nil {
		return err
	}
	defer release()
	if err := t.delay(ctx, "tenant-update-policy-exclusive-lock"); err != nil {
		return err
	}
	if err := thaw(ctx, t.Log, id); err != nil {
		return err
	}
	var shards []neon.ShardID
	var unplaced error
	_, err = commit(ctx, t.Log, func(s *fsm.State) (fsm.Command, error) {
		tenant, err := known(s, id)
		if err != nil {
			return nil, err
		}
		shards = tenant.Shards()
		c := fsm.UpdateTenant{
			ID: id, Sequence: tenant.Sequence, Policy: req.Placement, Scheduling: req.Scheduling,
		}
		if c.Scheduling == nil && c.Policy != nil && c.Policy.Kind != neon.PlaceAttached {
			c.Scheduling = new(neon.ShardActive)
		}
		unplaced = t.replace(s, tenant, &c)
		if unchanged(tenant, c) && !byHand(s, tenant) {
			return nil, nil
		}
		return c, nil
	})
	if err != nil {
		return err
	}
	t.Reality.Kick(shards...)
	return unplaced
}

// replace fills in the intents that follow from the policies of c. Its error says
// what could not be placed; the intents are as good as can be.
func (t *Tenants) replace(s *fsm.State, tenant fsm.Tenant, c *fsm.UpdateTenant) (err error) {
	policy := tenant.Policy
	if c.Policy != nil {
		policy = *c.Policy
	}
	if c.Scheduling != nil {
		tenant.Scheduling = *c.Scheduling
	}
	c.Intents, err = t.scheduler(s).Replace(tenant, policy)
	return err
}

func unchanged(tenant fsm.Tenant, c fsm.UpdateTenant) bool {
	return len(c.Intents) == 0 && c.Generation == nil &&
		(c.Policy == nil || *c.Policy == tenant.Policy) &&
		(c.Scheduling == nil || *c.Scheduling == tenant.Scheduling) &&
		(c.Config == nil || *c.Config == tenant.Config)
}

// SetLocation creates a tenant or changes the policy and the configuration of one,
// in the words of a pageserver's location. A generation is taken only by a tenant
// that has none. It waits shortly, with success whether the pageservers have
// followed.
func (t *Tenants) SetLocation(
	ctx context.Context, id neon.ShardID, conf neon.LocationConfig,
) (neon.LocationConfigResponse, error) {
	if !id.IsUnsharded() {
		return neon.LocationConfigResponse{}, neon.Errorf(neon.BadRequest,
			"This API is for importing single-sharded or unsharded tenants")
	}
	s, err := t.Log.ReadState(ctx)
	if err != nil {
		return neon.LocationConfigResponse{}, err
	}
	if _, ok := s.Tenant(id.Tenant); !ok {
		return t.onboard(ctx, id, conf)
	}
	if err := thaw(ctx, t.Log, id.Tenant); err != nil {
		return neon.LocationConfigResponse{}, err
	}
	var unplaced error
	index, err := commit(ctx, t.Log, func(s *fsm.State) (fsm.Command, error) {
		tenant, err := known(s, id.Tenant)
		if err != nil {
			return nil, err
		}
		policy := locationPolicy(s, conf.Mode)
		c := fsm.UpdateTenant{
			ID: id.Tenant, Sequence: tenant.Sequence, Policy: &policy, Config: &conf.TenantConf,
		}
		if policy.Kind != neon.PlaceAttached {
			c.Scheduling = new(neon.ShardActive)
		}
		if sh, ok := s.Shard(tenant.Shards()[0]); ok && !sh.HasGeneration {
			c.Generation = conf.Generation
		}
		unplaced = t.replace(s, tenant, &c)
		if unchanged(tenant, c) && !byHand(s, tenant) {
			return nil, nil
		}
		return c, nil
	})
	if err != nil {
		return neon.LocationConfigResponse{}, err
	}
	return t.located(ctx, id.Tenant, index, unplaced)
}

// onboard creates the tenant that a location speaks of.
func (t *Tenants) onboard(
	ctx context.Context, id neon.ShardID, conf neon.LocationConfig,
) (neon.LocationConfigResponse, error) {
	policy := locationPolicy(t.Log.State(), conf.Mode)
	req := neon.TenantCreateRequest{
		Tenant: id, Generation: conf.Generation, Placement: &policy, Config: conf.TenantConf,
	}
	if conf.StripeSize != 0 {
		req.ShardParameters = &neon.ShardParameters{StripeSize: conf.StripeSize}
	}
	created, err := t.Create(ctx, req)
	if err != nil {
		return neon.LocationConfigResponse{}, err
	}
	var resp neon.LocationConfigResponse
	for _, sh := range created.Shards {
		resp.Shards = append(resp.Shards, neon.ShardLocation{Shard: sh.Shard, Node: sh.Node})
	}
	return resp, nil
}

// locationPolicy is the policy that comes nearest to a location's mode: an
// attached one gets a secondary where there is a second pageserver for it.
func locationPolicy(s *fsm.State, mode neon.LocationMode) neon.Placement {
	switch {
	case mode == neon.Detached:
		return neon.Placement{}
	case mode == neon.Secondary:
		return neon.Placement{Kind: neon.PlaceSecondary}
	}
	nodes := 0
	for range s.Nodes() {
		nodes++
	}
	if nodes > 1 {
		return neon.Attached(1)
	}
	return neon.Attached(0)
}

func (t *Tenants) located(
	ctx context.Context, id neon.TenantID, index uint64, unplaced error,
) (resp neon.LocationConfigResponse, err error) {
	s := t.Log.State()
	tenant, ok := s.Tenant(id)
	if !ok {
		return resp, neon.Errorf(neon.NotFound, "Tenant %s not found", id)
	}
	for sh := range s.TenantShards(id) {
		if sh.Attached != 0 {
			resp.Shards = append(resp.Shards, neon.ShardLocation{Shard: sh.ID, Node: sh.Attached})
		}
	}
	if tenant.Count.Shards() > 1 {
		resp.StripeSize = &tenant.Stripe
	}
	if unplaced != nil {
		t.Reality.Kick(tenant.Shards()...)
		return resp, unplaced
	}
	settle(ctx, t.Reality, shortWait, index, tenant.Shards())
	return resp, nil
}
