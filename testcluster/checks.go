package testcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"quorate/api/neon"
	"quorate/testcluster/simpageserver"
)

// WaitNodes waits until the controllers see every pageserver that runs as active
// and every other as not, but for some that do not matter.
func (c *Cluster) WaitNodes(ctx context.Context, but ...neon.NodeID) error {
	client := c.Client()
	var last error
	err := until(ctx, "wait for the verdicts on the pageservers", func() bool {
		list, err := client.Nodes().List(ctx)
		if err != nil {
			last = err
			return false
		}
		seen := make(map[neon.NodeID]neon.NodeAvailability)
		for _, n := range list {
			seen[n.ID] = n.Availability
		}
		for _, n := range c.fleet.Nodes() {
			if n.Running() != (seen[n.ID()] == neon.NodeActive) && !slices.Contains(but, n.ID()) {
				last = fmt.Errorf("node %s is %s", n.ID(), seen[n.ID()])
				return false
			}
		}
		return true
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}

// WaitQuiescent waits until the leader has nothing left to do and no pageserver
// is told anything any more.
func (c *Cluster) WaitQuiescent(ctx context.Context) error {
	client := c.Client()
	var last error
	quiet := 0
	err := until(ctx, "wait until nothing is left to do", func() bool {
		before := c.fleet.Changes()
		left, err := client.Debug().ReconcileAll(ctx)
		if last = err; err == nil && left > 0 {
			last = fmt.Errorf("%d shards are not yet where they should be", left)
		}
		if left == 0 && err == nil && c.fleet.Changes() == before {
			quiet++
		} else {
			quiet = 0
		}
		return quiet >= 2
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}

// Shards lists the shards of all tenants that are placed as attached, with the
// pageserver each should be attached to, as a controller sees them.
func Shards(ctx context.Context, c *Client) (map[neon.ShardID]neon.NodeID, error) {
	list, err := c.Tenants().List(ctx, neon.TenantID{}, 0)
	if err != nil {
		return nil, err
	}
	want := make(map[neon.ShardID]neon.NodeID)
	for _, t := range list {
		if t.Policy.Kind != neon.PlaceAttached {
			continue
		}
		for _, s := range t.Shards {
			if want[s.Shard] = 0; s.Attached != nil {
				want[s.Shard] = *s.Attached
			}
		}
	}
	return want, nil
}

// CheckAttachedExactlyOnce asks a controller where all shards are, and demands
// that each is attached on exactly that running pageserver, on no other, active
// and in its newest generation.
func (c *Cluster) CheckAttachedExactlyOnce(ctx context.Context, i int) error {
	want, err := Shards(ctx, c.ClientOf(i))
	if err != nil {
		return fmt.Errorf("ask controller %d where the shards are: %w", i, err)
	}
	ids := make([]neon.ShardID, 0, len(want))
	var wrong []error
	for id, node := range want {
		ids = append(ids, id)
		n := c.fleet.Node(node)
		if n == nil {
			wrong = append(wrong, fmt.Errorf(
				"shard %s should be attached on node %s, which does not exist", id, node))
			continue
		}
		if v, ok := n.Location(id); !ok || v.Mode != neon.AttachedSingle || !n.Running() {
			wrong = append(wrong, fmt.Errorf(
				"shard %s is not attached on node %s, where controller %d says it is", id, node, i))
		}
	}
	if len(wrong) > 0 {
		wrong = append([]error{fmt.Errorf("%d of %d shards are elsewhere", len(wrong), len(want))},
			wrong[:min(10, len(wrong))]...)
	}
	return errors.Join(append(wrong, c.fleet.AttachedExactlyOnce(ids))...)
}

// CheckAll checks everything that must hold when the cluster is at rest: the
// oracle's invariants, the placement as every running controller sees it, the
// leader's own consistency check, and the ledger.
func (c *Cluster) CheckAll(ctx context.Context) error {
	var errs []error
	if err := c.Oracle().Err(); err != nil {
		errs = append(errs, err)
	}
	if err := c.fleet.CheckQuiescent(); err != nil {
		errs = append(errs, err)
	}
	for i, r := range c.replicas {
		if r.running() {
			errs = append(errs, c.CheckAttachedExactlyOnce(ctx, i))
		}
	}
	errs = append(errs, c.Client().Debug().ConsistencyCheck(ctx), c.ledger.Verify(ctx, c.Client()))
	return errors.Join(errs...)
}

// Dump writes the ends of the controllers' logs, what the oracle found and its
// last events.
func (c *Cluster) Dump(w io.Writer) {
	for i, r := range c.replicas {
		fmt.Fprintf(w, "==== controller %d (running: %v)\n%s\n", i, r.running(),
			tailLines(r.logs(), 150))
	}
	if c.fleet == nil {
		return
	}
	for _, v := range c.Oracle().Violations() {
		fmt.Fprintf(w, "violation: %s\n", v)
	}
	events := c.Oracle().History()
	fmt.Fprintf(w, "==== the last of %d events\n", len(events))
	for _, e := range events[max(0, len(events)-100):] {
		fmt.Fprintln(w, describeEvent(e))
	}
}

func tailLines(b []byte, n int) []byte {
	for i := len(b) - 1; i > 0; i-- {
		if b[i-1] == '\n' {
			if n--; n == 0 {
				return b[i:]
			}
		}
	}
	return b
}

func describeEvent(e simpageserver.Event) string {
	return fmt.Sprintf("%10s %-10s node %-3s %s gen %d %s %s",
		e.At.Round(time.Millisecond), e.Kind, e.Node, e.Shard, e.Generation, e.Mode, e.Note)
}
