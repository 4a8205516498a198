package storconcli

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"quorate/api/neon"
)

// shardCommands split, move and watch shards.
type shardCommands struct{ *session }

func (s shardCommands) all() []*cobra.Command {
	return []*cobra.Command{
		s.split(), s.migrate(), s.watch(),
		s.migrateSecondary(), s.cancelReconcile(),
	}
}

// needShard adds --tenant-shard-id.
func needShard(cmd *cobra.Command, id *neon.ShardID) {
	need(cmd, "tenant-shard-id", id, neon.ParseShardID, "Id of the shard")
}

func (s shardCommands) split() *cobra.Command {
	var id neon.TenantID
	var r neon.ShardSplitRequest
	cmd := s.leaf("tenant-shard-split",
		"Split an existing tenant into a higher number of shards than its current shard count",
		func(ctx context.Context) error {
			var done neon.ShardSplitResponse
			path := fmt.Sprintf("control/v1/tenant/%s/shard_split", id)
			if err := s.client.call(ctx,
				exchange{method: http.MethodPut, path: path, body: r, answer: &done}); err != nil {
				return err
			}
			return s.out.sentence(done, "Split tenant %s into %d shards: %s", id, r.Count,
				joinIDs(done.Shards, ","))
		})
	needTenant(cmd, &id)
	need(cmd, "shard-count", &r.Count, parseShardCount, "How many shards there shall be")
	may(cmd, "stripe-size", &r.StripeSize, optional(parseStripe),
		"In 8kiB pages, e.g. 2048 for 16MB stripes; only for tenants of one shard")
	return cmd
}

func (s shardCommands) migrate() *cobra.Command {
	var id neon.ShardID
	r := neon.MigrateRequest{Config: neon.DefaultMigrationConfig()}
	cmd := s.leaf("tenant-shard-migrate",
		"Migrate the attached location of a tenant shard to a specific pageserver",
		func(ctx context.Context) error {
			err := s.client.put(ctx, fmt.Sprintf("control/v1/tenant/%s/migrate", id), &r)
			if statusOf(err) == http.StatusPreconditionFailed {
				return complain(
					"Migration to %s rejected, may require `--override-scheduler true` (%v)",
					r.Node, err)
			}
			if err != nil {
				return err
			}
			return s.watchUntil(ctx, id, &r.Node)
		})
	needShard(cmd, &id)
	need(cmd, "node", &r.Node, parseNode, "Where to migrate it to")
	may(cmd, "prewarm", &r.Config.Prewarm, parseBool, "Whether to warm a secondary location first")
	may(cmd, "override-scheduler", &r.Config.OverrideScheduler, parseBool,
		"Whether to migrate it even to a node that the scheduler likes less")
	complete(cmd, "prewarm", "true", "false")
	complete(cmd, "override-scheduler", "true", "false")
	return cmd
}

func (s shardCommands) watch() *cobra.Command {
	var id neon.ShardID
	cmd := s.leaf("tenant-shard-watch",
		"Watch the location of a tenant shard evolve, e.g. while expecting it to migrate",
		func(ctx context.Context) error {
			return s.watchUntil(ctx, id, nil)
		})
	needShard(cmd, &id)
	return cmd
}

// watchUntil prints where the shard is, again and again, until it is attached to the
// given node and at rest there.
func (s shardCommands) watchUntil(ctx context.Context, id neon.ShardID, until *neon.NodeID) error {
	if until != nil {
		s.out.remark("Waiting for tenant shard %s to be migrated to node %s", id, until)
	}
	tick := time.NewTicker(s.env.WatchEvery)
	defer tick.Stop()
	for {
		var tenant neon.TenantDescribe
		if err := s.client.get(ctx, "control/v1/tenant/"+id.Tenant.String(), &tenant); err != nil {
			return err
		}
		i := slices.IndexFunc(tenant.Shards,
			func(d neon.ShardDescribe) bool { return d.Shard == id })
		if i < 0 {
			return complain("Tenant shard not found")
		}
		shard := &tenant.Shards[i]
		if err := s.out.sentence(shard, "%s", whereabouts(shard)); err != nil {
			return err
		}
		if until != nil && shard.Attached != nil && *shard.Attached == *until &&
			!shard.Reconciling {
			s.out.remark("Tenant shard %s is now on node %s", id, until)
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func whereabouts(shard *neon.ShardDescribe) string {
	attached := "none"
	if shard.Attached != nil {
		attached = shard.Attached.String()
	}
	doing := "idle"
	if shard.Reconciling {
		doing = "active"
	}
	return fmt.Sprintf("attached: %s secondary: %s (reconciler %s)", attached,
		joinIDs(shard.Secondary, ","), doing)
}

func (s shardCommands) migrateSecondary() *cobra.Command {
	var id neon.ShardID
	r := neon.MigrateRequest{Config: neon.DefaultMigrationConfig()}
	cmd := s.leaf("tenant-shard-migrate-secondary",
		"Migrate the secondary location of a tenant shard to a specific pageserver",
		func(ctx context.Context) error {
			return s.client.put(ctx, fmt.Sprintf("control/v1/tenant/%s/migrate_secondary", id), &r)
		})
	needShard(cmd, &id)
	need(cmd, "node", &r.Node, parseNode, "Where to migrate it to")
	return cmd
}

func (s shardCommands) cancelReconcile() *cobra.Command {
	var id neon.ShardID
	cmd := s.leaf("tenant-shard-cancel-reconcile", "Cancel any ongoing reconciliation of a shard",
		func(ctx context.Context) error {
			return s.client.put(ctx, fmt.Sprintf("control/v1/tenant/%s/cancel_reconcile", id), nil)
		})
	needShard(cmd, &id)
	return cmd
}
