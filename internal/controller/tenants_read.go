package controller

import (
	"context"

	"quorate/api/neon"
	"quorate/fsm"
)

// Page selects a part of the list of tenants.
type Page struct {
	After neon.TenantID // exclusive; zero: from the first
	Limit int           // at most so many, at least one; 0: all
}

// List describes tenants in the order of their ids. It runs on the leader: only the leader
// knows which of them it is reconciling.
func (t *Tenants) List(ctx context.Context, p Page) ([]neon.TenantDescribe, error) {
	s, err := t.Log.ReadState(ctx)
	if err != nil {
		return nil, err
	}
	all := []neon.TenantDescribe{}
	for tenant := range s.TenantsFrom(p.After) {
		if tenant.ID == p.After && p.After != (neon.TenantID{}) {
			continue
		}
		if d, ok := t.describe(s, tenant); ok {
			all = append(all, d)
		}
		if p.Limit > 0 && len(all) >= p.Limit || ctx.Err() != nil {
			break
		}
	}
	return all, context.Cause(ctx)
}

// Describe describes one tenant. The error is NotFound for a Detached tenant too, once
// nothing is left of it on any pageserver.
func (t *Tenants) Describe(ctx context.Context, id neon.TenantID) (neon.TenantDescribe, error) {
	s, err := t.Log.ReadState(ctx)
	if err != nil {
		return neon.TenantDescribe{}, err
	}
	if tenant, ok := s.Tenant(id); ok {
		if d, ok := t.describe(s, tenant); ok {
			return d, nil
		}
	}
	return neon.TenantDescribe{}, neon.Errorf(neon.NotFound, "Tenant %s not found", id)
}

func (t *Tenants) describe(s *fsm.State, tenant fsm.Tenant) (neon.TenantDescribe, bool) {
	d := neon.TenantDescribe{
		Tenant: tenant.ID, StripeSize: tenant.Stripe, Policy: tenant.Policy, Config: tenant.Config,
	}
	d.Shards = make([]neon.ShardDescribe, 0, tenant.Count.Shards())
	importing := s.Importing(tenant.ID)
	splitting := s.Splitting(tenant.ID)
	gone := tenant.Policy.Kind == neon.PlaceDetached
	for sh := range s.TenantShards(tenant.ID) {
		status := t.Reality.Status(sh.ID)
		gone = gone && len(status.Observed) == 0 && !status.Reconciling
		d.Shards = append(d.Shards, neon.ShardDescribe{
			Shard: sh.ID, Attached: nodeOrNull(sh.Attached), Secondary: sh.Secondary,
			LastError: status.LastError, Reconciling: status.Reconciling,
			PendingComputeNotification: status.PendingNotify,
			Importing:                  importing,
			Splitting:                  splitting,
			Scheduling:                 tenant.Scheduling, PreferredAZ: sh.PreferredAZ,
		})
	}
	return d, !gone
}

func nodeOrNull(n neon.NodeID) *neon.NodeID {
	if n == 0 {
		return nil
	}
	return &n
}

// Locate says where the shards of a tenant are attached, from a linearizable read. Any
// replica can answer it.
func (t *Tenants) Locate(
	ctx context.Context, id neon.TenantID,
) (resp neon.LocateResponse, err error) {
	s, err := t.Log.ReadState(ctx)
	if err != nil {
		return resp, err
	}
	tenant, ok := s.Tenant(id)
	if !ok || tenant.Policy.Kind == neon.PlaceDetached {
		return resp, neon.Errorf(neon.NotFound, "No shards for this tenant ID found")
	}
	resp.Parameters = neon.ShardParameters{Count: tenant.Count, StripeSize: tenant.Stripe}
	resp.Shards = make([]neon.LocateShard, 0, tenant.Count.Shards())
	for sh := range s.TenantShards(id) {
		n, ok := s.Node(sh.Attached)
		if !ok {
			return resp, neon.Errorf(neon.BadRequest, "Cannot locate a tenant that is not attached")
		}
		resp.Shards = append(resp.Shards, neon.LocateShard{
			Shard: sh.ID, Node: n.ID,
			PgAddr: n.Addr.PGHost, PgPort: n.Addr.PGPort,
			GRPCAddr: textOrNull(n.Addr.GRPCHost), GRPCPort: portOrNull(n.Addr.GRPCPort),
			HTTPAddr: n.Addr.HTTPHost, HTTPPort: n.Addr.HTTPPort,
			HTTPSPort: portOrNull(n.Addr.HTTPSPort),
		})
	}
	return resp, nil
}

func textOrNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func portOrNull(p uint16) *uint16 {
	if p == 0 {
		return nil
	}
	return &p
}
