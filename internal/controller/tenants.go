package controller

import (
	"context"
	"errors"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/split"
	"quorate/scheduler"
)

// Tenants creates, configures and places tenants.
type Tenants struct {
	Deps
	placing placing
}

// NewTenants makes a Tenants.
func NewTenants(d Deps) *Tenants {
	return &Tenants{Deps: d}
}

// Create adds a tenant and waits for its shards to be attached. It succeeds even if that
// takes longer. A tenant that exists is not changed, and its placement is returned. The
// error is Conflict when it has another number of shards, unless the request repeats one
// that was made before the tenant was split. A tenant that cannot be placed is created
// nevertheless, and placed when there is room. Then the error is Conflict too.
func (t *Tenants) Create(
	ctx context.Context, req neon.TenantCreateRequest,
) (neon.TenantCreateResponse, error) {
	cmd, err := createCommand(req)
	if err != nil {
		return neon.TenantCreateResponse{}, err
	}
	return t.create(ctx, cmd)
}

func createCommand(req neon.TenantCreateRequest) (fsm.CreateTenant, error) {
	if !req.Tenant.IsUnsharded() {
		return fsm.CreateTenant{}, neon.Errorf(neon.BadRequest,
			"Attempted to create a specific shard, this API is for creating the whole tenant")
	}
	c := fsm.CreateTenant{
		At: time.Now().UnixMilli(), ID: req.Tenant.Tenant, Stripe: neon.DefaultStripeSize,
		Policy:     neon.Attached(0),
		Scheduling: neon.ShardActive, Config: req.Config,
	}
	if p := req.ShardParameters; p != nil {
		if err := p.StripeSize.Check(); err != nil {
			return c, err
		}
		c.Count, c.Stripe = p.Count, p.StripeSize
	}
	if req.Placement != nil {
		c.Policy = *req.Placement
	}
	switch {
	case req.Generation != nil:
		c.Generation = *req.Generation
		return c, c.Generation.Check()
	case c.Policy.Kind == neon.PlaceSecondary:
		c.NoGeneration = true
	}
	return c, nil
}

func (t *Tenants) create(
	ctx context.Context, cmd fsm.CreateTenant,
) (neon.TenantCreateResponse, error) {
	if err := split.AwaitEnd(ctx, t.Log, cmd.ID); err != nil {
		return neon.TenantCreateResponse{}, err
	}
	var unplaced error
	created := false
	defer t.placing.forget(cmd.ID)
	index, err := decide.Commit(ctx, t.Log, func(s *fsm.State) (fsm.Command, error) {
		created = false
		if tenant, ok := s.Tenant(cmd.ID); ok {
			if tenant.Deleting {
				return nil, neon.Errorf(neon.Conflict, "Tenant %s is being deleted", cmd.ID)
			}
			if tenant.Count.Shards() != cmd.Count.Shards() {
				return nil, neon.Errorf(neon.Conflict,
					"Tenant %s already exists with a different shard count", cmd.ID)
			}
			return nil, nil
		}
		cmd.Shards, unplaced = t.placing.place(t.scheduler(s), s, &cmd)
		if unplaced != nil && cmd.Shards == nil {
			return nil, scheduleFailed(unplaced)
		}
		created = true
		return cmd, nil
	})
	if err != nil {
		return neon.TenantCreateResponse{}, err
	}
	tenant, ok := t.Log.State().Tenant(cmd.ID)
	if !ok || tenant.Deleting {
		return neon.TenantCreateResponse{}, neon.Errorf(neon.Conflict,
			"Tenant %s was created by this request, and has been deleted since", cmd.ID)
	}
	resp := placement(t.Log.State(), cmd.ID, created)
	if created && unplaced != nil {
		return resp, scheduleFailed(unplaced)
	}
	decide.AwaitAtMost(ctx, t.Reality, decide.LongWait, index, tenant.Shards())
	return resp, nil
}

func scheduleFailed(err error) error {
	for _, reason := range []error{scheduler.ErrNoNodes, scheduler.ErrNoFit} {
		if errors.Is(err, reason) {
			return neon.Errorf(neon.Conflict, "Failed to schedule shard(s): %w", reason)
		}
	}
	return err
}

func (t *Tenants) scheduler(s *fsm.State) *scheduler.Scheduler {
	return scheduler.New(s, t.Reality.Loads())
}

// placement lists the attached shards. Clients of a creation expect the numbers
// from before the first attach, which may be under way already.
func placement(s *fsm.State, id neon.TenantID, justCreated bool) (resp neon.TenantCreateResponse) {
	for sh := range s.TenantShards(id) {
		if sh.Attached == 0 {
			continue
		}
		g := sh.Generation
		if justCreated && sh.GenNode != 0 {
			g--
		}
		resp.Shards = append(resp.Shards,
			neon.CreatedShard{Shard: sh.ID, Node: sh.Attached, Generation: g})
	}
	return resp
}

// SetConfig replaces the configuration of a tenant. It waits shortly for the
// pageservers to take it, and succeeds even if they have not.
func (t *Tenants) SetConfig(ctx context.Context, id neon.TenantID, conf neon.TenantConfig) error {
	return t.changeConfig(ctx, id,
		func(neon.TenantConfig) (neon.TenantConfig, error) { return conf, nil })
}

// PatchConfig sets the fields of a JSON object, unsets those that are null there
// and keeps all others. It waits as SetConfig does.
func (t *Tenants) PatchConfig(ctx context.Context, id neon.TenantID, patch []byte) error {
	return t.changeConfig(ctx, id,
		func(old neon.TenantConfig) (neon.TenantConfig, error) { return old.Patch(patch) })
}

func (t *Tenants) changeConfig(
	ctx context.Context, id neon.TenantID,
	change func(neon.TenantConfig) (neon.TenantConfig, error),
) error {
	if err := split.AwaitEnd(ctx, t.Log, id); err != nil {
		return err
	}
	var shards []neon.ShardID
	index, err := decide.Commit(ctx, t.Log, func(s *fsm.State) (fsm.Command, error) {
		tenant, err := known(s, id)
		if err != nil {
			return nil, err
		}
		shards = tenant.Shards()
		conf, err := change(tenant.Config)
		if err != nil || conf == tenant.Config && !hasUnmanaged(s, tenant) {
			return nil, err
		}
		return fsm.UpdateTenant{ID: id, Sequence: tenant.Sequence, Config: &conf}, nil
	})
	if err != nil {
		return err
	}
	decide.AwaitAtMost(ctx, t.Reality, decide.ShortWait, index, shards)
	return nil
}

// known finds a tenant that may be changed.
func known(s *fsm.State, id neon.TenantID) (fsm.Tenant, error) {
	tenant, ok := s.Tenant(id)
	if (!ok || tenant.Policy.Kind == neon.PlaceDetached) && !anyNode(s) {
		return tenant, neon.Errorf(neon.BadRequest, "No AZ with nodes found to load tenant")
	}
	if !ok || tenant.Deleting {
		return tenant, neon.Errorf(neon.NotFound, "Tenant %s not found", id)
	}
	return tenant, nil
}

func anyNode(s *fsm.State) bool {
	for range s.Nodes() {
		return true
	}
	return false
}

// Config is the configuration of a tenant, from a linearizable read.
func (t *Tenants) Config(ctx context.Context, id neon.TenantID) (neon.ConfigResponse, error) {
	s, err := t.Log.ReadState(ctx)
	if err != nil {
		return neon.ConfigResponse{}, err
	}
	tenant, ok := s.Tenant(id)
	if !ok || tenant.Policy.Kind == neon.PlaceDetached {
		return neon.ConfigResponse{}, neon.Errorf(neon.NotFound, "Tenant not found")
	}
	return neon.ConfigResponse{Overrides: tenant.Config, Effective: tenant.Config}, nil
}
