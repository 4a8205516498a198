package testcluster

import (
	"context"

	"quorate/api/client"
	"quorate/api/neon"
)

// Tenants are the calls about whole tenants.
func (c *Client) Tenants() TenantCalls { return TenantCalls{c.Client.Tenants(), c.ledger} }

// Shards are the calls about single shards.
func (c *Client) Shards() ShardCalls { return ShardCalls{c.Client.Shards(), c.ledger} }

// Timelines are the calls about the timelines of tenants.
func (c *Client) Timelines() TimelineCalls { return TimelineCalls{c.Client.Timelines(), c.ledger} }

// TenantCalls are client.Tenants with a ledger.
type TenantCalls struct {
	client.Tenants
	ledger *Ledger
}

// Create is client.Tenants.Create.
func (t TenantCalls) Create(
	ctx context.Context, req neon.TenantCreateRequest,
) (resp neon.TenantCreateResponse, err error) {
	resp, err = t.Tenants.Create(ctx, req)
	t.ledger.ack(req.Tenant.Tenant, err, func(e *entry) {
		if e.created {
			return // it was there, and stayed as it was
		}
		e.created, e.shards = true, 1
		if p := req.ShardParameters; p != nil {
			e.shards = p.Count.Shards()
		}
		e.away = req.Placement != nil && req.Placement.Kind == neon.PlaceDetached
		if len(e.configs) == 0 {
			e.configs = []neon.TenantConfig{req.Config}
		}
	})
	return resp, err
}

// Delete is client.Tenants.Delete.
func (t TenantCalls) Delete(ctx context.Context, id neon.TenantID) error {
	t.ledger.change(id, func(e *entry) { e.deletes++ })
	err := t.Tenants.Delete(ctx, id)
	t.ledger.ack(id, err, func(e *entry) { e.deleted = true })
	return err
}

// Split is client.Tenants.Split.
func (t TenantCalls) Split(
	ctx context.Context, id neon.TenantID, req neon.ShardSplitRequest,
) (resp neon.ShardSplitResponse, err error) {
	t.ledger.change(id, func(e *entry) { e.splits = append(e.splits, int(req.Count)) })
	resp, err = t.Tenants.Split(ctx, id, req)
	t.ledger.ack(id, err, func(e *entry) { e.shards = len(resp.Shards) })
	return resp, err
}

// PutConfig is client.Tenants.PutConfig.
func (t TenantCalls) PutConfig(
	ctx context.Context, id neon.TenantID, conf neon.TenantConfig,
) error {
	t.ledger.change(id, func(e *entry) { e.configs = append(e.configs, conf); e.writers++ })
	err := t.Tenants.PutConfig(ctx, id, conf)
	t.ledger.change(id, func(e *entry) { e.writers-- })
	t.ledger.ack(id, err, func(e *entry) {
		if e.writers == 0 {
			e.configs = []neon.TenantConfig{conf}
		}
	})
	return err
}

// PatchConfig is client.Tenants.PatchConfig.
func (t TenantCalls) PatchConfig(
	ctx context.Context, id neon.TenantID, fields map[string]any,
) error {
	t.ledger.change(id, func(e *entry) { e.unsure = true })
	return t.Tenants.PatchConfig(ctx, id, fields)
}

// PutLocation is client.Tenants.PutLocation.
func (t TenantCalls) PutLocation(
	ctx context.Context, id neon.TenantID, conf neon.LocationConfig,
) (neon.LocationConfigResponse, error) {
	t.ledger.change(id,
		func(e *entry) { e.unsure, e.away = true, e.away || conf.Mode == neon.Detached })
	return t.Tenants.PutLocation(ctx, id, conf)
}

// SetPolicy is client.Tenants.SetPolicy.
func (t TenantCalls) SetPolicy(
	ctx context.Context, id neon.TenantID, req neon.PolicyRequest,
) error {
	if p := req.Placement; p != nil && p.Kind == neon.PlaceDetached {
		t.ledger.change(id, func(e *entry) { e.away = true })
	}
	return t.Tenants.SetPolicy(ctx, id, req)
}

// Import is client.Tenants.Import.
func (t TenantCalls) Import(
	ctx context.Context, id neon.TenantID,
) (neon.TenantCreateResponse, error) {
	t.ledger.change(id, func(e *entry) { e.unsure = true })
	return t.Tenants.Import(ctx, id)
}

// Drop is client.Tenants.Drop.
func (t TenantCalls) Drop(ctx context.Context, id neon.TenantID) error {
	t.ledger.change(id, func(e *entry) { e.away = true })
	return t.Tenants.Drop(ctx, id)
}

// ShardCalls are client.Shards with a ledger.
type ShardCalls struct {
	client.Shards
	ledger *Ledger
}

// AttachHook is client.Shards.AttachHook.
func (s ShardCalls) AttachHook(
	ctx context.Context, req neon.AttachHookRequest,
) (neon.Generation, error) {
	s.ledger.change(req.Shard.Tenant, func(e *entry) { e.unsure, e.away = true, true })
	return s.Shards.AttachHook(ctx, req)
}

// TimelineCalls are client.Timelines with a ledger.
type TimelineCalls struct {
	client.Timelines
	ledger *Ledger
}

// Create is client.Timelines.Create.
func (t TimelineCalls) Create(
	ctx context.Context, tenant neon.TenantID, req neon.TimelineCreateRequest,
) (resp neon.TimelineCreateResponse, err error) {
	t.ledger.change(tenant, func(e *entry) { delete(e.gone, req.Timeline) })
	resp, err = t.Timelines.Create(ctx, tenant, req)
	t.ledger.ack(tenant, err, func(e *entry) { e.timelines[req.Timeline] = true })
	return resp, err
}

// Delete is client.Timelines.Delete.
func (t TimelineCalls) Delete(
	ctx context.Context, tenant neon.TenantID, tl neon.TimelineID,
) error {
	t.ledger.change(tenant, func(e *entry) { e.timelines[tl] = false })
	err := t.Timelines.Delete(ctx, tenant, tl)
	t.ledger.ack(tenant, err, func(e *entry) { e.gone[tl] = true })
	return err
}
