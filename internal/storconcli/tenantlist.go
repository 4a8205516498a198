package storconcli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"quorate/api/neon"
)

// errEndless is for a controller that ignores start_after: asking it for the rest would
// never end.
var errEndless = errors.New("the list of tenants does not go on behind start_after")

// pageSize is the number of tenants in one request.
const pageSize = 1000

func (s tenantCommands) list() *cobra.Command {
	var node *neon.NodeID
	cmd := s.leaf("tenants",
		"List tenants known to the storage controller, or the shards on one node",
		func(ctx context.Context) error {
			if node != nil {
				return s.listShards(ctx, *node)
			}
			return s.listTenants(ctx)
		})
	cmd.Use = "tenants [NODE_ID]"
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usagef("unexpected argument '%s' found", args[1])
		}
		if len(args) == 1 {
			id, err := parseNode(args[0])
			if err != nil {
				return usagef("invalid value '%s' for '[NODE_ID]': %v", args[0], err)
			}
			node = &id
		}
		return s.missing(cmd)
	}
	return cmd
}

func (s tenantCommands) listTenants(ctx context.Context) error {
	all := neon.List[neon.TenantDescribe]{}
	path := fmt.Sprintf("control/v1/tenant?limit=%d", pageSize)
	var last neon.TenantID
	for query := ""; ; {
		var page []neon.TenantDescribe
		if err := s.client.get(ctx, path+query, &page); err != nil {
			return err
		}
		if len(page) == 0 {
			break
		}
		if len(page) >= pageSize {
			fmt.Fprint(s.env.Stderr, ".") // long lists take a while
		}
		all = append(all, page...)
		next := page[len(page)-1].Tenant
		if query != "" && bytes.Compare(next[:], last[:]) <= 0 {
			return errEndless
		}
		last, query = next, "&start_after="+next.String()
	}
	if len(all) > pageSize {
		fmt.Fprintln(s.env.Stderr)
	}
	return s.out.result(all, func(k ink) string {
		g := grid{header: []string{
			"TenantId", "Preferred AZ", "ShardCount", "StripeSize", "Placement", "Scheduling",
		}}
		for _, t := range all {
			var first neon.ShardDescribe // an empty tenant is printed with what it has
			if len(t.Shards) > 0 {
				first = t.Shards[0]
			}
			g.add(t.Tenant.String(), first.PreferredAZ.String(),
				strconv.Itoa(int(first.Shard.Count)),
				stripeCell(t.StripeSize), placementCell(t.Policy),
				k.unusual(string(first.Scheduling)))
		}
		return g.render(k)
	})
}

func (s tenantCommands) listShards(ctx context.Context, node neon.NodeID) error {
	var on neon.NodeShards
	if err := s.client.get(ctx, fmt.Sprintf("control/v1/node/%s/shards", node), &on); err != nil {
		return err
	}
	return s.out.result(on, func(k ink) string {
		g := grid{
			header: []string{"Shard", "Intended Primary/Secondary", "Observed Primary/Secondary"},
		}
		for _, shard := range on.Shards {
			g.add(shard.Shard.String(), roleCell(shard.IntendedSecondary),
				roleCell(shard.ObservedSecondary))
		}
		return g.render(k)
	})
}

// roleCell is empty when the shard has no such location on the node.
func roleCell(secondary *bool) string {
	switch {
	case secondary == nil:
		return ""
	case *secondary:
		return "Secondary"
	}
	return "Primary"
}

func (s tenantCommands) describe() *cobra.Command {
	var id neon.TenantID
	cmd := s.leaf("tenant-describe",
		"Print details about a particular tenant, including all its shards' states",
		func(ctx context.Context) error {
			var tenant neon.TenantDescribe
			if err := s.client.get(ctx, "control/v1/tenant/"+id.String(), &tenant); err != nil {
				return err
			}
			var list []neon.NodeDescribe
			if err := s.client.get(ctx, "control/v1/node", &list); err != nil {
				return err
			}
			nodes := make(map[neon.NodeID]neon.NodeDescribe, len(list))
			for _, n := range list {
				nodes[n.ID] = n
			}
			return s.out.result(tenant,
				func(k ink) string { return describeText(k, &tenant, nodes) })
		})
	needTenant(cmd, &id)
	return cmd
}

func describeText(k ink, t *neon.TenantDescribe, nodes map[neon.NodeID]neon.NodeDescribe) string {
	var config bytes.Buffer
	if err := json.Indent(&config, []byte(t.Config.JSON()), "", "  "); err != nil {
		panic(err) // a TenantConfig is valid JSON
	}
	var head grid
	head.add("Policy", placementCell(t.Policy))
	head.add("Stripe size", stripeCell(t.StripeSize))
	head.add("Config", config.String())
	shards := grid{
		header: []string{"Shard", "Attached", "Attached AZ", "Secondary", "Last error", "status"},
	}
	for _, shard := range t.Shards {
		attached, zone := "", ""
		if shard.Attached != nil {
			n, known := nodes[*shard.Attached]
			attached, zone = fmt.Sprintf("%s (%s)", n.HTTPAddr, shard.Attached), n.AZ
			if !known { // registered, or dropped, between the two requests
				attached = fmt.Sprintf("(%s)", shard.Attached)
			}
		}
		shards.add(shard.Shard.String(), attached, zone, joinIDs(shard.Secondary, ","),
			k.red(shard.LastError), k.yellow(statusCell(&shard)))
	}
	return fmt.Sprintf("Tenant %s\n%s\nShards:\n%s", t.Tenant, head.render(k), shards.render(k))
}

func statusCell(shard *neon.ShardDescribe) string {
	var parts []string
	if shard.Reconciling {
		parts = append(parts, "reconciling")
	}
	if shard.PendingComputeNotification {
		parts = append(parts, "pending_compute")
	}
	if shard.Splitting {
		parts = append(parts, "splitting")
	}
	return strings.Join(parts, ",")
}
