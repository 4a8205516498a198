package storconcli

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"quorate/api/neon"
)

// tenantCommands are about whole tenants.
type tenantCommands struct{ *session }

func (s tenantCommands) all() []*cobra.Command {
	return []*cobra.Command{
		s.list(), s.describe(), s.create(), s.delete(), s.drop(),
		s.policy(), s.setPreferredAZ(),
	}
}

// needTenant adds --tenant-id.
func needTenant(cmd *cobra.Command, id *neon.TenantID) {
	need(cmd, "tenant-id", id, neon.ParseTenantID, "Id of the tenant")
}

func (s tenantCommands) create() *cobra.Command {
	var id neon.TenantID
	cmd := s.leaf("tenant-create",
		"Create a new tenant in the storage controller, and by extension on pageservers",
		func(ctx context.Context) error {
			policy := neon.Attached(1)
			body := neon.TenantCreateRequest{Tenant: neon.Unsharded(id), Placement: &policy}
			var created neon.TenantCreateResponse
			if err := s.client.call(ctx, exchange{
				method: http.MethodPost, path: "v1/tenant", body: body, answer: &created,
			}); err != nil {
				return err
			}
			return s.out.result(created, func(k ink) string {
				g := grid{header: []string{"Shard", "Node", "Generation"}}
				for _, shard := range created.Shards {
					g.add(shard.Shard.String(), shard.Node.String(),
						strconv.FormatUint(uint64(shard.Generation), 10))
				}
				return g.render(k)
			})
		})
	needTenant(cmd, &id)
	return cmd
}

func (s tenantCommands) delete() *cobra.Command {
	var id neon.TenantID
	cmd := s.leaf("tenant-delete",
		"Delete a tenant in the storage controller, and by extension on pageservers",
		func(ctx context.Context) error {
			err := s.client.delete(ctx, "v1/tenant/"+id.String())
			if statusOf(err) == http.StatusNotFound {
				return nil // it is gone, which is what was wanted
			}
			return err
		})
	needTenant(cmd, &id)
	return cmd
}

func (s tenantCommands) drop() *cobra.Command {
	var id neon.TenantID
	var unclean bool
	cmd := s.leaf("tenant-drop",
		"Uncleanly drop a tenant from the storage controller: nothing is deleted from pageservers",
		func(ctx context.Context) error {
			if !unclean {
				return complain(
					"This command is not a tenant deletion, and uncleanly drops all controller state for the tenant.  If you know what you're doing, add `--unclean` to proceed.")
			}
			return s.client.post(ctx, fmt.Sprintf("debug/v1/tenant/%s/drop", id), nil)
		})
	needTenant(cmd, &id)
	cmd.Flags().BoolVar(&unclean, "unclean", false, "Really do it")
	return cmd
}

func (s tenantCommands) policy() *cobra.Command {
	var id neon.TenantID
	var r neon.PolicyRequest
	cmd := s.leaf("tenant-policy", "Modify a tenant's policies in the storage controller",
		func(ctx context.Context) error {
			return s.client.put(ctx, fmt.Sprintf("control/v1/tenant/%s/policy", id), &r)
		})
	needTenant(cmd, &id)
	may(cmd, "placement", &r.Placement, optional(parsePlacement),
		"detached, only a secondary location (secondary), or attached with N secondaries (attached:N)")
	may(cmd, "scheduling", &r.Scheduling, optional(parseShardScheduling),
		"active is normal, essential does not optimise, pause changes no schedule, stop does not even carry out changes made: the last two can make a tenant unavailable and are for emergencies")
	complete(cmd, "placement", "detached", "secondary", "attached:0", "attached:1")
	complete(cmd, "scheduling", slices.Sorted(maps.Keys(shardSchedulings))...)
	return cmd
}

// preferredAZs is the body of PUT control/v1/preferred_azs; nil clears.
type preferredAZs map[neon.ShardID]*string

func (s tenantCommands) setPreferredAZ() *cobra.Command {
	var id neon.TenantID
	var zone *string
	cmd := s.leaf("tenant-set-preferred-az",
		"Prefer an availability zone for all shards of a tenant, or none",
		func(ctx context.Context) error {
			var tenant neon.TenantDescribe
			if err := s.client.get(ctx, "control/v1/tenant/"+id.String(), &tenant); err != nil {
				return err
			}
			var nodes []neon.NodeDescribe
			if err := s.client.get(ctx, "control/v1/node", &nodes); err != nil {
				return err
			}
			if zone == nil {
				s.out.warn("Clearing preferred AZ for tenant %s", id)
			} else if known := zones(nodes); !slices.Contains(known, *zone) {
				return complain("AZ %s not found on any node: known AZs are: {%s}", *zone,
					strings.Join(quoted(known), ", "))
			}
			body := make(preferredAZs, len(tenant.Shards))
			for _, shard := range tenant.Shards {
				body[shard.Shard] = zone
			}
			return s.client.put(ctx, "control/v1/preferred_azs", body)
		})
	needTenant(cmd, &id)
	may(cmd, "preferred-az", &zone, optional(parseText), "The zone (default: none)")
	return cmd
}

func zones(nodes []neon.NodeDescribe) (all []string) {
	for _, n := range nodes {
		all = append(all, n.AZ)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func quoted(all []string) []string {
	q := make([]string, len(all))
	for i, s := range all {
		q[i] = strconv.Quote(s)
	}
	return q
}
