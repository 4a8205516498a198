package storconcli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quorate/api/neon"
)

const operationsPath = "debug/v1/operation"

// list lists operations. Only Quorate has it.
func (s operationCommands) list() *cobra.Command {
	var ended bool
	cmd := s.leaf("node-operations",
		"List the drains, fills and deletions of pageservers under way, and what hinders them",
		func(ctx context.Context) error {
			if ended {
				return s.listEnded(ctx)
			}
			var all neon.List[neon.NodeOperation]
			if err := s.client.get(ctx, operationsPath, &all); err != nil {
				return err
			}
			return s.out.result(all, func(k ink) string { return operationTable(k, all) })
		})
	cmd.Flags().BoolVar(&ended, "ended", false,
		"Those that have ended, the latest first, and what they left behind")
	return cmd
}

func operationTable(k ink, all []neon.NodeOperation) string {
	g := grid{header: []string{"Node", "Operation", "Attached", "At start", "Waits for", "Stays"}}
	var named strings.Builder
	for _, o := range all {
		g.add(o.Node.String(), o.Kind, strconv.Itoa(o.Attached), strconv.Itoa(o.Total),
			countOf(o.Waits), k.red(countOf(o.Stays)))
		name(&named, o.Node, "waits for", o.Waits)
		name(&named, o.Node, "leaves", o.Stays)
	}
	return g.render(k) + named.String()
}

func (s operationCommands) listEnded(ctx context.Context) error {
	var all neon.List[neon.EndedNodeOperation]
	if err := s.client.get(ctx, operationsPath+"?ended=true", &all); err != nil {
		return err
	}
	return s.out.result(all, func(k ink) string {
		g := grid{header: []string{
			"Node", "Operation", "Result", "Begun", "Ended", "Attached", "At start", "Left",
		}}
		var named strings.Builder
		for _, o := range all {
			result := o.Result
			if result != "completed" {
				result = k.yellow(result)
			}
			g.add(o.Node.String(), o.Kind, result, timeOf(o.BegunAt), timeOf(o.EndedAt),
				strconv.Itoa(o.Attached), strconv.Itoa(o.Total), k.red(countOf(o.Left)))
			name(&named, o.Node, "left", o.Left)
		}
		return g.render(k) + named.String()
	})
}

func countOf(h *neon.HinderedShards) string {
	if h == nil {
		return ""
	}
	return strconv.Itoa(h.Count)
}

func timeOf(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// name adds a line for each shard that is named.
func name(out *strings.Builder, n neon.NodeID, what string, h *neon.HinderedShards) {
	if h == nil {
		return
	}
	for _, x := range h.Shards {
		fmt.Fprintf(out, "\nnode %s %s %s: %s", n, what, x.Shard, x.Why)
	}
	if more := h.Count - len(h.Shards); more > 0 {
		fmt.Fprintf(out, "\nnode %s %s %d more", n, what, more)
	}
}
