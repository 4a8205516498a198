package controller

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/fanout"
)

// TimeTravel puts the remote data of a tenant back to a moment in the past. The
// tenant must not be on any pageserver. This is checked before each shard. The check
// catches mistakes of operators. It does not keep the tenant from being attached later.
func (t *Tenants) TimeTravel(
	ctx context.Context, id neon.TenantID, to neon.TimeTravel, counts []neon.ShardCount,
) error {
	counts = slices.Clone(counts)
	slices.Sort(counts)
	var node *fsm.Node
	for i, count := range slices.Compact(counts) {
		for _, shard := range neon.ShardIDs(id, count) {
			s, err := t.Log.ReadState(ctx)
			if err != nil {
				return err
			}
			if err := t.refuseIfPresent(s, id); err != nil {
				return err
			}
			if node == nil && i == 0 {
				node = fanout.AnyAvailable(s, t.Reality.Silent()...)
			}
			if node == nil {
				return neon.Errorf(neon.Conflict, "Scheduling error: No pageservers found")
			}
			decide.Acted(ctx)
			if _, _, err := t.Pageservers.Call(ctx, node, shard,
				neon.TravelRemoteStorage(to)); err != nil {
				return neon.Errorf(neon.Internal,
					"Error doing time travel recovery for shard %s on node %d (%s): %w",
					shard, node.ID, node.Addr.HTTPHost, err)
			}
		}
	}
	return nil
}

// refuseIfPresent returns an error when a tenant is, or should be, on a pageserver.
func (t *Tenants) refuseIfPresent(s *fsm.State, id neon.TenantID) error {
	for sh := range s.TenantShards(id) {
		if sh.Attached != 0 || len(sh.Secondary) > 0 {
			return neon.Errorf(neon.Internal,
				"We want tenant to be attached in shard with tenant_shard_id=%s", sh.ID)
		}
		for node, conf := range t.Reality.Status(sh.ID).Observed {
			if conf != nil && conf.Mode != neon.Detached {
				return neon.Errorf(neon.Internal,
					"We observed attached=%s tenant in node_id=%d shard with tenant_shard_id=%s",
					conf.Mode, node, sh.ID)
			}
		}
	}
	return nil
}

// unsplitStripe is the stripe size of tenants from before it was written down.
const unsplitStripe = 32768

// Import creates a tenant of which there is only data in remote storage. It gets the
// largest number of shards that is found there, and generations above all that are found.
func (t *Tenants) Import(
	ctx context.Context, id neon.TenantID,
) (resp neon.TenantCreateResponse, err error) {
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
