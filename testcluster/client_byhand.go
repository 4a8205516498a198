package testcluster

import (
	"context"
	"net/http"

	"quorate/api/neon"
)

// AttachHook asks for a generation for somebody who attaches a shard on a
// pageserver by themselves; a nil node says that it was detached.
func (c *Client) AttachHook(
	ctx context.Context, req neon.AttachHookRequest,
) (g neon.Generation, err error) {
	var resp neon.AttachHookResponse
	c.ledger.change(req.Shard.Tenant, func(e *entry) { e.unsure, e.away = true, true })
	err = c.Call(ctx, http.MethodPost, "/debug/v1/attach-hook", req, &resp)
	if resp.Generation != nil {
		g = *resp.Generation
	}
	return g, err
}

// DropTenant makes the controllers forget a tenant.
func (c *Client) DropTenant(ctx context.Context, t neon.TenantID) error {
	c.ledger.change(t, func(e *entry) { e.away = true })
	return c.Call(ctx, http.MethodPost, "/debug/v1/tenant/"+t.String()+"/drop", nil, nil)
}

// DropNode makes the controllers forget a pageserver.
func (c *Client) DropNode(ctx context.Context, id neon.NodeID) error {
	return c.Call(ctx, http.MethodPost, "/debug/v1/node/"+id.String()+"/drop", nil, nil)
}

// ImportTenant takes over a tenant of which only the remote data is known.
func (c *Client) ImportTenant(
	ctx context.Context, t neon.TenantID,
) (resp neon.TenantCreateResponse, err error) {
	c.ledger.change(t, func(e *entry) { e.unsure = true })
	return resp, c.Call(ctx, http.MethodPost, "/debug/v1/tenant/"+t.String()+"/import", nil, &resp)
}

// PreferredAZs changes the zones that shards should be served from.
func (c *Client) PreferredAZs(
	ctx context.Context, req neon.PreferredAZsRequest,
) (resp neon.PreferredAZsResponse, err error) {
	return resp, c.Call(ctx, http.MethodPut, "/control/v1/preferred_azs", req, &resp)
}

// CancelReconcile ends what is being done about a shard.
func (c *Client) CancelReconcile(ctx context.Context, s neon.ShardID) error {
	return c.Call(ctx, http.MethodPut, "/control/v1/tenant/"+s.String()+"/cancel_reconcile", nil,
		nil)
}
