package storconcli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"quorate/api/neon"
)

// move is one planned migration.
type move struct {
	Shard neon.ShardID `json:"tenant_shard_id"`
	From  neon.NodeID  `json:"from"`
	To    neon.NodeID  `json:"to"`
	Error string       `json:"error,omitempty"`
}

// bulk is the document of a bulk migration.
type bulk struct {
	DryRun    bool            `json:"dry_run"`
	Moves     neon.List[move] `json:"moves"`
	Succeeded int             `json:"succeeded"`
	Failed    int             `json:"failed"`
}

const (
	defaultConcurrency = 8
	progressEvery      = 20 // migrations for one line of progress
)

// bulkCommands move many shards.
type bulkCommands struct{ *session }

func (s bulkCommands) migrate() *cobra.Command {
	var away []neon.NodeID
	var atMost *uint
	var dryRun *bool
	concurrency := uint(defaultConcurrency)
	cmd := s.leaf("bulk-migrate",
		"Migrate attached shards away from a set of pageservers, onto all others",
		func(ctx context.Context) error {
			targets, err := s.prepare(ctx, away)
			if err != nil {
				return err
			}
			var tenants []neon.TenantDescribe
			if err := s.client.get(ctx, "control/v1/tenant", &tenants); err != nil {
				return err
			}
			moves := s.plan(tenants, away, targets, atMost)
			if dryRun != nil && *dryRun {
				return s.printPlan(moves)
			}
			return s.migrateAll(ctx, moves, int(max(1, concurrency)))
		})
	cmd.Flags().Var(values("nodes", &away, parseNode), "nodes",
		"Pageserver to migrate away from; repeat it for more")
	may(cmd, "concurrency", &concurrency, parseCount, "How many shards to migrate at a time")
	may(cmd, "max-shards", &atMost, optional(parseCount), "How many shards to migrate at most")
	may(cmd, "dry-run", &dryRun, optional(parseBool), "Print the plan, migrate nothing")
	complete(cmd, "dry-run", "true", "false")
	return cmd
}

// prepare stops scheduling onto the nodes to migrate away from. It returns the nodes that
// can take their shards.
func (s bulkCommands) prepare(
	ctx context.Context, away []neon.NodeID,
) (targets []neon.NodeID, err error) {
	var nodes []neon.NodeDescribe
	if err := s.client.get(ctx, "control/v1/node", &nodes); err != nil {
		return nil, err
	}
	var sources []neon.NodeID
	for _, n := range nodes {
		takes := n.Scheduling == neon.SchedulingActive || n.Scheduling == neon.SchedulingFilling
		switch {
		case slices.Contains(away, n.ID):
			sources = append(sources, n.ID)
		case takes && n.Availability == neon.NodeActive:
			targets = append(targets, n.ID)
		}
	}
	if len(sources) != len(away) {
		return nil, complain("Bulk migration requested away from node which doesn't exist.")
	}
	if len(targets) == 0 {
		return nil, complain("There are no nodes to migrate to")
	}
	draining := neon.SchedulingDraining
	for _, id := range sources {
		body := neon.NodeConfigure{ID: id, Scheduling: &draining}
		if err := s.client.put(ctx, fmt.Sprintf("control/v1/node/%s/config", id),
			&body); err != nil {
			return nil, err
		}
	}
	return targets, nil
}

// plan spreads the attached shards of the nodes in away over the targets, in turn.
func (s bulkCommands) plan(
	tenants []neon.TenantDescribe, away, targets []neon.NodeID, atMost *uint,
) (moves []move) {
	for _, t := range tenants {
		for _, shard := range t.Shards {
			if atMost != nil && uint(len(moves)) >= *atMost {
				s.out.remark("Stop planning shard moves since the requested maximum was reached")
				return moves
			}
			if shard.Attached != nil && slices.Contains(away, *shard.Attached) {
				moves = append(moves, move{
					Shard: shard.Shard, From: *shard.Attached, To: targets[len(moves)%len(targets)],
				})
			}
		}
	}
	return moves
}

func (s bulkCommands) printPlan(moves []move) error {
	return s.out.result(bulk{DryRun: true, Moves: moves}, func(ink) string {
		text := fmt.Sprintf("Dryrun requested. Planned %d moves:", len(moves))
		for _, m := range moves {
			text += fmt.Sprintf("\n%s: %s -> %s", m.Shard, m.From, m.To)
		}
		return text
	})
}

// migrateAll carries out the moves, some at a time, and prints them in their order. When
// one fails, it prints that and goes on with the others.
func (s bulkCommands) migrateAll(ctx context.Context, moves []move, concurrency int) error {
	results := make([]chan error, len(moves))
	for i := range results {
		results[i] = make(chan error, 1)
	}
	next := make(chan int)
	for range min(concurrency, len(moves)) {
		go func() { // ends when next is closed
			for i := range next {
				results[i] <- s.migrateOne(ctx, moves[i])
			}
		}()
	}
	go func() {
		defer close(next)
		for i := range moves {
			next <- i
		}
	}()
	done := bulk{Moves: moves}
	for i := range moves {
		m := &moves[i]
		if err := <-results[i]; err != nil {
			done.Failed++
			m.Error = err.Error()
			s.out.remark("Failed to migrate %s from node %s to node %s: %v", m.Shard, m.From, m.To,
				err)
		} else {
			done.Succeeded++
		}
		if (i+1)%progressEvery == 0 {
			s.out.remark("%s", done.summary())
		}
	}
	return s.out.sentence(done, "%s", done.summary())
}

func (b *bulk) summary() string {
	return fmt.Sprintf("Processed %d/%d shards: %d succeeded, %d failed", b.Succeeded+b.Failed,
		len(b.Moves), b.Succeeded, b.Failed)
}

func (s bulkCommands) migrateOne(ctx context.Context, m move) error {
	body := neon.MigrateRequest{Node: m.To, Origin: &m.From, Config: neon.DefaultMigrationConfig()}
	return s.client.put(ctx, fmt.Sprintf("control/v1/tenant/%s/migrate", m.Shard), &body)
}
