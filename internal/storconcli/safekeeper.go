package storconcli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"quorate/api/neon"
)

// safekeeperSchedulings are the words of the command line and of the tables.
var safekeeperSchedulings = map[string]neon.SafekeeperScheduling{
	"active": neon.SafekeeperActive, "activating": neon.SafekeeperActivating,
	"pause": neon.SafekeeperPause, "decomissioned": neon.SafekeeperDecomissioned,
}

func parseSafekeeperScheduling(s string) (neon.SafekeeperScheduling, error) {
	if p, ok := safekeeperSchedulings[s]; ok {
		return p, nil
	}
	return "", complain("Unknown scheduling policy '%s', try active,pause,decomissioned", s)
}

// safekeeper is one entry in the answer of GET control/v1/safekeeper. Unlike
// neon.SafekeeperDescribe, it takes every port and every policy, so that the list can be
// printed whatever a controller has stored.
type safekeeper struct {
	ID         neon.NodeID `json:"id"`
	Region     string      `json:"region_id"`
	Version    int64       `json:"version"`
	Host       string      `json:"host"`
	Port       int32       `json:"port"`
	HTTPPort   int32       `json:"http_port"`
	HTTPSPort  *int32      `json:"https_port"`
	AZ         string      `json:"availability_zone_id"`
	Scheduling string      `json:"scheduling_policy"`
	Gone       bool        `json:"gone,omitempty"` // only Quorate says so
}

// use is how a safekeeper is used, in a word or two.
func (k *safekeeper) use() string {
	if k.Gone {
		return "gone"
	}
	return strings.ToLower(k.Scheduling)
}

// safekeeperCommands are about safekeepers and the timelines on them.
type safekeeperCommands struct{ *session }

func (s safekeeperCommands) all() []*cobra.Command {
	return []*cobra.Command{
		s.list(), s.setScheduling(), s.settle(), s.downloadHeatmapLayers(),
		s.locate(), s.migrate(), s.abortMigration(),
	}
}

func (s safekeeperCommands) list() *cobra.Command {
	return s.leaf("safekeepers", "List safekeepers known to the storage controller",
		func(ctx context.Context) error {
			var all neon.List[safekeeper]
			if err := s.client.get(ctx, "control/v1/safekeeper", &all); err != nil {
				return err
			}
			slices.SortStableFunc(all, func(a, b safekeeper) int { return cmp.Compare(a.ID, b.ID) })
			return s.out.result(all, func(k ink) string {
				g := grid{header: []string{
					"Id", "Version", "Host", "Port", "Http Port", "AZ Id", "Scheduling",
				}}
				for _, sk := range all {
					g.add(sk.ID.String(), strconv.FormatInt(sk.Version, 10), sk.Host,
						strconv.Itoa(int(sk.Port)),
						strconv.Itoa(int(sk.HTTPPort)), sk.AZ,
						k.unusual(sk.use()))
				}
				return g.render(k)
			})
		})
}

func (s safekeeperCommands) setScheduling() *cobra.Command {
	var id neon.NodeID
	var r neon.SafekeeperPolicyRequest
	cmd := s.leaf("safekeeper-scheduling", "Set the scheduling policy of the specified safekeeper",
		func(ctx context.Context) error {
			if err := s.client.post(ctx,
				fmt.Sprintf("control/v1/safekeeper/%s/scheduling_policy", id), r); err != nil {
				return err
			}
			return s.out.sentence(r, "Scheduling policy of %s set to %s", id,
				strings.ToLower(string(r.Scheduling)))
		})
	needNode(cmd, &id)
	need(cmd, "scheduling-policy", &r.Scheduling, parseSafekeeperScheduling, "The policy")
	complete(cmd, "scheduling-policy", slices.Sorted(maps.Keys(safekeeperSchedulings))...)
	return cmd
}

// settle makes the command for a safekeeper that will not come back. Only Quorate has it.
func (s safekeeperCommands) settle() *cobra.Command {
	var id neon.NodeID
	cmd := s.leaf("safekeeper-gone",
		"Wait no more for a decommissioned safekeeper, whose id is not used again",
		func(ctx context.Context) error {
			if err := s.client.put(ctx, fmt.Sprintf("control/v1/safekeeper/%s/gone", id),
				nil); err != nil {
				return err
			}
			return s.out.sentence(map[string]neon.NodeID{"gone": id},
				"Safekeeper %s is gone for good, and owes nothing any more", id)
		})
	needNode(cmd, &id)
	return cmd
}

// needTimeline adds --timeline-id.
func needTimeline(cmd *cobra.Command, id *neon.TimelineID) {
	need(cmd, "timeline-id", id, neon.ParseTimelineID, "Id of the timeline")
}

func (s safekeeperCommands) downloadHeatmapLayers() *cobra.Command {
	var shard neon.ShardID
	var timeline neon.TimelineID
	var concurrency *uint
	cmd := s.leaf("download-heatmap-layers",
		"Download the missing heatmap layers of a timeline, on one shard or all",
		func(ctx context.Context) error {
			path := fmt.Sprintf("v1/tenant/%s/timeline/%s/download_heatmap_layers", shard, timeline)
			if concurrency != nil {
				path += fmt.Sprintf("?concurrency=%d", *concurrency)
			}
			return s.client.post(ctx, path, nil)
		})
	need(cmd, "tenant-shard-id", &shard, neon.ParseShardID,
		"Id of one shard, or of a tenant for all its shards")
	needTimeline(cmd, &timeline)
	may(cmd, "concurrency", &concurrency, optional(parseCount),
		"How many downloads at a time (default 16)")
	return cmd
}

func (s safekeeperCommands) locate() *cobra.Command {
	var tenant neon.TenantID
	var timeline neon.TimelineID
	cmd := s.leaf("timeline-locate", "Tell which safekeepers a timeline is on",
		func(ctx context.Context) error {
			var at neon.TimelineLocate
			if err := s.client.get(ctx,
				fmt.Sprintf("debug/v1/tenant/%s/timeline/%s/locate", tenant, timeline),
				&at); err != nil {
				return err
			}
			next := "None"
			if at.NewSet != nil {
				next = fmt.Sprintf("Some([%s])", joinIDs(*at.NewSet, ", "))
			}
			return s.out.sentence(at, "generation = %d\nsk_set = [%s]\nnew_sk_set = %s",
				at.Generation, joinIDs(at.Set, ", "), next)
		})
	needTenant(cmd, &tenant)
	needTimeline(cmd, &timeline)
	return cmd
}

func (s safekeeperCommands) migrate() *cobra.Command {
	var tenant neon.TenantID
	var timeline neon.TimelineID
	var to []neon.NodeID
	cmd := s.leaf("timeline-safekeeper-migrate", "Migrate a timeline to a new set of safekeepers",
		func(ctx context.Context) error {
			return s.client.post(ctx,
				fmt.Sprintf("v1/tenant/%s/timeline/%s/safekeeper_migrate", tenant, timeline),
				neon.SafekeeperMigrateRequest{NewSet: to})
		})
	needTenant(cmd, &tenant)
	needTimeline(cmd, &timeline)
	needVar(cmd, "new-sk-set", values("new-sk-set", &to, parseNode), "The safekeepers, e.g. 1,2,3")
	return cmd
}

func (s safekeeperCommands) abortMigration() *cobra.Command {
	var tenant neon.TenantID
	var timeline neon.TimelineID
	cmd := s.leaf("timeline-safekeeper-migrate-abort",
		"Abort the migration of a timeline between safekeepers", func(ctx context.Context) error {
			return s.client.post(ctx,
				fmt.Sprintf("v1/tenant/%s/timeline/%s/safekeeper_migrate_abort", tenant, timeline),
				nil)
		})
	needTenant(cmd, &tenant)
	needTimeline(cmd, &timeline)
	return cmd
}
