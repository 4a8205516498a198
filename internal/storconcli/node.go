package storconcli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"quorate/api/neon"
)

// nodeCommands are about what the controller knows of pageservers.
type nodeCommands struct{ *session }

func (s nodeCommands) all() []*cobra.Command {
	return []*cobra.Command{
		s.register(), s.configure(), s.list(), s.tombstones(),
		s.delete(), s.deleteTombstone(), s.drop(),
	}
}

// needNode adds --node-id.
func needNode(cmd *cobra.Command, id *neon.NodeID) {
	need(cmd, "node-id", id, parseNode, "Id of the node")
}

func parseNode(s string) (neon.NodeID, error) {
	n, err := neon.ParseNodeID(s)
	if err != nil {
		return 0, errDigit
	}
	return n, nil
}

func (s nodeCommands) register() *cobra.Command {
	var r neon.NodeRegister
	var zone string
	cmd := s.leaf("node-register",
		"Register a pageserver with the storage controller; they do so themselves when they start",
		func(ctx context.Context) error {
			r.AZ = neon.MakeAZ(zone)
			return s.client.post(ctx, "control/v1/node", &r)
		})
	needNode(cmd, &r.ID)
	need(cmd, "listen-pg-addr", &r.PgAddr, parseText, "Host that computes connect to")
	need(cmd, "listen-pg-port", &r.PgPort, parsePort, "Port that computes connect to")
	may(cmd, "listen-grpc-addr", &r.GRPCAddr, optional(parseText), "Host of the gRPC service")
	may(cmd, "listen-grpc-port", &r.GRPCPort, optional(parsePort), "Port of the gRPC service")
	need(cmd, "listen-http-addr", &r.HTTPAddr, parseText, "Host of the management API")
	need(cmd, "listen-http-port", &r.HTTPPort, parsePort, "Port of the management API")
	may(cmd, "listen-https-port", &r.HTTPSPort, optional(parsePort),
		"HTTPS port of the management API")
	need(cmd, "availability-zone-id", &zone, parseText,
		"Availability zone that the pageserver is in")
	return cmd
}

func (s nodeCommands) configure() *cobra.Command {
	var r neon.NodeConfigure
	cmd := s.leaf("node-configure", "Modify a node's configuration in the storage controller",
		func(ctx context.Context) error {
			return s.client.put(ctx, fmt.Sprintf("control/v1/node/%s/config", r.ID), &r)
		})
	needNode(cmd, &r.ID)
	may(cmd, "availability", &r.Availability, optional(parseAvailability),
		"Usually detected by heartbeats: 'offline' marks a node offline by hand, 'active' takes it back")
	may(cmd, "scheduling", &r.Scheduling, optional(parseNodeScheduling),
		"Whether tenant shards may be scheduled onto this node")
	complete(cmd, "availability", "active", "offline")
	complete(cmd, "scheduling", slices.Sorted(maps.Keys(nodeSchedulings))...)
	return cmd
}

func (s nodeCommands) list() *cobra.Command {
	return s.leaf("nodes", "List nodes known to the storage controller",
		func(ctx context.Context) error {
			return s.print(ctx, "control/v1/node")
		})
}

func (s nodeCommands) tombstones() *cobra.Command {
	return s.leaf("node-tombstones", "List deleted nodes that the storage controller remembers",
		func(ctx context.Context) error {
			return s.print(ctx, "debug/v1/tombstone")
		})
}

// print prints pageservers by host.
func (s nodeCommands) print(ctx context.Context, path string) error {
	var nodes neon.List[neon.NodeDescribe]
	if err := s.client.get(ctx, path, &nodes); err != nil {
		return err
	}
	slices.SortStableFunc(nodes,
		func(a, b neon.NodeDescribe) int { return cmp.Compare(a.HTTPAddr, b.HTTPAddr) })
	return s.out.result(nodes, func(k ink) string {
		g := grid{header: []string{"Id", "Hostname", "AZ", "Scheduling", "Availability"}}
		for _, n := range nodes {
			g.add(n.ID.String(), n.HTTPAddr, n.AZ, k.unusual(string(n.Scheduling)),
				k.availability(n.Availability))
		}
		return g.render(k)
	})
}

func (s nodeCommands) delete() *cobra.Command {
	var id neon.NodeID
	cmd := s.leaf("node-delete",
		"Delete a node at once; use node-start-delete instead, if possible",
		func(ctx context.Context) error {
			s.out.warn("Warning: This command is obsolete and will be removed in a future version")
			s.out.warn("Use `node-start-delete` instead, if possible")
			return s.client.delete(ctx, "control/v1/node/"+id.String())
		})
	needNode(cmd, &id)
	return cmd
}

func (s nodeCommands) deleteTombstone() *cobra.Command {
	var id neon.NodeID
	cmd := s.leaf("node-delete-tombstone",
		"Forget that a node was deleted, so that it may register again",
		func(ctx context.Context) error {
			return s.client.delete(ctx, "debug/v1/tombstone/"+id.String())
		})
	needNode(cmd, &id)
	return cmd
}

func (s nodeCommands) drop() *cobra.Command {
	var id neon.NodeID
	var unclean bool
	cmd := s.leaf("node-drop",
		"Uncleanly drop a node from the storage controller, whoever refers to it",
		func(ctx context.Context) error {
			if !unclean {
				return complain(
					"This command is not a clean node decommission, and uncleanly drops all controller state for the node, without checking if any tenants still refer to it.  If you know what you're doing, add `--unclean` to proceed.")
			}
			return s.client.post(ctx, fmt.Sprintf("debug/v1/node/%s/drop", id), nil)
		})
	needNode(cmd, &id)
	cmd.Flags().BoolVar(&unclean, "unclean", false, "Really do it")
	return cmd
}
