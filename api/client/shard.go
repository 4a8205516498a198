package client

import (
	"context"
	"net/http"

	"quorate/api/neon"
)

// Shards are the calls about single shards.
type Shards struct{ c caller }

// Migrate begins to move the attached location of a shard. It returns when the
// controller has taken the order: Tenants.Describe says where the shard is.
func (s Shards) Migrate(ctx context.Context, id neon.ShardID, req neon.MigrateRequest) error {
	return s.c.Call(ctx, http.MethodPut, "/control/v1/tenant/"+id.String()+"/migrate", req, nil)
}

// MigrateSecondary moves a secondary location of a shard.
func (s Shards) MigrateSecondary(
	ctx context.Context, id neon.ShardID, req neon.MigrateRequest,
) error {
	path := "/control/v1/tenant/" + id.String() + "/migrate_secondary"
	return s.c.Call(ctx, http.MethodPut, path, req, nil)
}

// CancelReconcile ends what the controller is doing about a shard.
func (s Shards) CancelReconcile(ctx context.Context, id neon.ShardID) error {
	path := "/control/v1/tenant/" + id.String() + "/cancel_reconcile"
	return s.c.Call(ctx, http.MethodPut, path, nil, nil)
}

// SetPreferredAZs changes the zones that shards should be served from; nil clears.
func (s Shards) SetPreferredAZs(
	ctx context.Context, req neon.PreferredAZsRequest,
) (resp neon.PreferredAZsResponse, err error) {
	return resp, s.c.Call(ctx, http.MethodPut, "/control/v1/preferred_azs", req, &resp)
}

// AttachHook asks for a generation for a party that attaches a shard on a pageserver
// by itself; a nil node says that the shard was detached, and then the answer is 0.
func (s Shards) AttachHook(
	ctx context.Context, req neon.AttachHookRequest,
) (g neon.Generation, err error) {
	var resp neon.AttachHookResponse
	err = s.c.Call(ctx, http.MethodPost, "/debug/v1/attach-hook", req, &resp)
	if resp.Generation != nil {
		g = *resp.Generation
	}
	return g, err
}
