package controller

import (
	"context"
	"encoding/json"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/fanout"
	"quorate/internal/split"
)

// unsplitStripe is the stripe size of tenants from before it was written down.
const unsplitStripe = 32768

// Import creates a tenant of which there is only data in remote storage. It gets the
// largest number of shards that is found there, and generations above all that are found.
func (t *Tenants) Import(
	ctx context.Context, id neon.TenantID,
) (resp neon.TenantCreateResponse, err error) {
	// What is found while the data is put back in time is nothing to count on from.
	if err := split.AwaitEnd(ctx, t.Log, id); err != nil {
		return resp, err
	}
	s, err := t.Log.ReadState(ctx)
	if err != nil {
		return resp, err
	}
	node := fanout.AnyAvailable(s, t.Reality.Silent()...)
	if node == nil {
		return resp, neon.Errorf(neon.BadRequest, "No nodes available")
	}
	_, body, err := t.Pageservers.Call(ctx, node, neon.Unsharded(id), neon.ScanRemoteStorage())
	if err != nil {
		return resp, err
	}
	var scan neon.RemoteScan
	if err := json.Unmarshal(body, &scan); err != nil {
		return resp, neon.Errorf(neon.Internal, "error decoding body: %w", err)
	}
	if len(scan.Shards) == 0 {
		return resp, neon.Errorf(neon.NotFound, "No shards found")
	}
	c, err := importCommand(id, scan)
	if err != nil {
		return resp, err
	}
	return t.create(ctx, c)
}

// importCommand refuses a tenant that was attached in a generation so large that too few
// are left.
func importCommand(id neon.TenantID, scan neon.RemoteScan) (fsm.CreateTenant, error) {
	c := fsm.CreateTenant{
		ID: id, Stripe: unsplitStripe, Policy: neon.Attached(0), Scheduling: neon.ShardActive,
		At: time.Now().UnixMilli(),
	}
	for _, sh := range scan.Shards {
		c.Count = max(c.Count, sh.Shard.Count)
		if sh.Generation != nil {
			c.Generation = max(c.Generation, *sh.Generation)
		}
	}
	for _, sh := range scan.Shards {
		newest := sh.Generation == nil && c.Generation == 0 ||
			sh.Generation != nil && *sh.Generation == c.Generation
		if sh.Shard.Count == c.Count && newest && sh.StripeSize != nil && *sh.StripeSize != 0 {
			c.Stripe = *sh.StripeSize
		}
	}
	if err := c.Generation.Check(); err != nil {
		return c, neon.Errorf(neon.PreconditionFailed,
			"Remote data of tenant %s cannot be imported: %w", id, err)
	}
	return c, nil
}
