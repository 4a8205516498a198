package controller

import (
	"context"
	"errors"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/split"
)

// SetPolicy changes how a tenant is placed and whether it may be scheduled. It
// returns once that is committed. The shards follow. The error is Conflict when they
// cannot all be placed, although the policy was changed.
func (t *Tenants) SetPolicy(ctx context.Context, id neon.TenantID, req neon.PolicyRequest) error {
	release, err := t.Locks.acquire(ctx, id, exclusive("UpdatePolicy"))
	if err != nil {
		return err
	}
	defer release()
	if err := t.delay(ctx, "tenant-update-policy-exclusive-lock"); err != nil {
		return err
	}
	if err := split.AwaitEnd(ctx, t.Log, id); err != nil {
		return err
	}
	var shards []neon.ShardID
	var unplaced error
	_, err = decide.Commit(ctx, t.Log, func(s *fsm.State) (fsm.Command, error) {
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
		if unchanged(tenant, c) && !hasUnmanaged(s, tenant) {
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
// what could not be placed. The intents are the best that there are.
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

// SetLocation creates a tenant, or changes the policy and the configuration of one, from
// the location that it should have on a pageserver. Only a tenant without a generation
// takes that of the location. It waits shortly for the pageservers, and succeeds even if
// they have not followed.
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
	if err := split.AwaitEnd(ctx, t.Log, id.Tenant); err != nil {
		return neon.LocationConfigResponse{}, err
	}
	var unplaced error
	index, err := decide.Commit(ctx, t.Log, func(s *fsm.State) (fsm.Command, error) {
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
		if sh, ok := s.Shard(tenant.Shards()[0]); ok && !sh.HasGeneration &&
			conf.Generation != nil {
			c.Generation = conf.Generation
			if err := c.Generation.Check(); err != nil {
				return nil, err
			}
		}
		unplaced = t.replace(s, tenant, &c)
		if unchanged(tenant, c) && !hasUnmanaged(s, tenant) {
			return nil, nil
		}
		return c, nil
	})
	if err != nil {
		return neon.LocationConfigResponse{}, err
	}
	return t.located(ctx, id.Tenant, index, unplaced)
}

// onboard creates the tenant of a location.
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

// locationPolicy is the policy that comes nearest to a location's mode. An attached
// location gets a secondary if there is a second pageserver for it.
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
	decide.AwaitAtMost(ctx, t.Reality, decide.ShortWait, index, tenant.Shards())
	return resp, nil
}

// AttachHook numbers an attachment that a client makes on a pageserver itself, or
// records a detach. Unknown shards are created. Nothing is sent to any pageserver. All
// refusals are Internal, but that of a generation that is too large.
//
// A later try of an attachment gets a number of its own. To leave out the one of an earlier
// try is always safe.
func (t *Tenants) AttachHook(
	ctx context.Context, req neon.AttachHookRequest,
) (resp neon.AttachHookResponse, err error) {
	c := fsm.AttachUnmanaged{Shard: req.Shard, At: time.Now().UnixMilli()}
	if req.Node != nil {
		c.Node = *req.Node
		if c.Node == 0 {
			return resp, neon.Errorf(neon.Internal, "Node 0 not registered")
		}
	}
	if req.GenerationOverride != nil {
		c.Generation = *req.GenerationOverride
		if err := c.Generation.Check(); err != nil {
			return resp, err
		}
	}
	if req.Config != nil {
		c.Config = *req.Config
	}
	if err := split.AwaitEnd(ctx, t.Log, req.Shard.Tenant); err != nil {
		return resp, asInternal(err)
	}
	var step fsm.RequestID
	if c.Node == 0 {
		step = decide.NextStep(ctx)
	}
	r, err := t.Log.Propose(ctx, step, c)
	if err != nil {
		return resp, asInternal(err)
	}
	for _, g := range r.Grants {
		resp.Generation = &g.Generation
	}
	t.Logger.Info("Attachment by a client", "shard", req.Shard.String(), "node", c.Node.String(),
		"generation", resp.Generation)
	return resp, nil
}

// asInternal makes a refusal an Internal error: clients of such a route know no others.
func asInternal(err error) error {
	var e *neon.Error
	if errors.As(err, &e) {
		switch e.Code {
		case neon.BadRequest, neon.NotFound, neon.Conflict, neon.PreconditionFailed:
			return &neon.Error{Code: neon.Internal, Msg: e.Msg, Err: err}
		}
	}
	return err
}

// Drop forgets a tenant and calls no pageserver. An unknown tenant is no error.
func (t *Tenants) Drop(ctx context.Context, id neon.TenantID) error {
	_, err := decide.Commit(ctx, t.Log, func(s *fsm.State) (fsm.Command, error) {
		if _, ok := s.Tenant(id); !ok {
			return nil, nil
		}
		return fsm.DropTenant{ID: id}, nil
	})
	return err
}

// hasUnmanaged reports whether a tenant has an unmanaged shard. A request to configure such
// a tenant makes its shards managed again, even if it changes nothing else.
func hasUnmanaged(s *fsm.State, tenant fsm.Tenant) bool {
	for sh := range s.TenantShards(tenant.ID) {
		if sh.Unmanaged {
			return true
		}
	}
	return false
}
