package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

// states are the replicated states of all running controllers, at one index: it
// waits until they have applied the same.
func states(ctx context.Context, c *testcluster.Cluster) ([]*fsm.State, error) {
	for {
		var all []*fsm.State
		for i := range c.Controllers() {
			if !c.Running(i) {
				continue
			}
			s, err := c.State(ctx, i)
			if err != nil {
				return nil, fmt.Errorf("replica %d: %w", i, err)
			}
			all = append(all, s)
		}
		if !slices.ContainsFunc(all, func(s *fsm.State) bool { return s.Index != all[0].Index }) {
			return all, nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("replicas do not come to rest at one index: %w",
				context.Cause(ctx))
		}
	}
}

// checkEverything is all that must hold when nothing is left to do.
func checkEverything(ctx context.Context, c *testcluster.Cluster) error {
	return errors.Join(c.CheckAll(ctx), checkReplicas(ctx, c), checkIntents(ctx, c),
		checkComputeNotified(ctx, c), checkSafekeepers(ctx, c), checkTimelineWork(ctx, c))
}

// checkReplicas demands that every replica has the same state and that it holds together.
func checkReplicas(ctx context.Context, c *testcluster.Cluster) error {
	all, err := states(ctx, c)
	if err != nil {
		return err
	}
	var errs []error
	for i, s := range all {
		if err := fsm.Check(s); err != nil {
			errs = append(errs, fmt.Errorf("state of replica %d: %w", i, err))
		}
		if h := s.Hash(); h != all[0].Hash() {
			errs = append(errs, fmt.Errorf("replica %d has hash %s and replica 0 %s at index %d", i,
				h, all[0].Hash(), s.Index))
		}
	}
	return errors.Join(errs...)
}

// checkIntents demands that the pageservers hold what the intents say and nothing else.
func checkIntents(ctx context.Context, c *testcluster.Cluster) error {
	all, err := states(ctx, c)
	if err != nil {
		return err
	}
	running := func(id neon.NodeID) bool { n := c.Fleet().Node(id); return n != nil && n.Running() }
	want := make(map[neon.ShardID]simpageserver.Intent)
	var errs []error
	for sh := range all[0].ShardsFrom(neon.ShardID{}) {
		tenant, _ := all[0].Tenant(sh.ID.Tenant)
		if tenant.Policy.Kind == neon.PlaceAttached && !running(sh.Attached) {
			errs = append(errs,
				fmt.Errorf("shard %s is meant for node %s, which does not run", sh.ID, sh.Attached))
		}
		in := simpageserver.Intent{Attached: sh.Attached}
		for _, id := range sh.Secondary {
			if running(id) {
				in.Secondaries = append(in.Secondaries, id)
			}
		}
		want[sh.ID] = in
	}
	return errors.Join(append(errs, c.Fleet().CheckPlacement(want))...)
}

// checkComputeNotified demands that compute was told where every shard is, and that nothing
// is owed.
func checkComputeNotified(ctx context.Context, c *testcluster.Cluster) error {
	all, err := states(ctx, c)
	if err != nil || c.Hook() == nil {
		return err
	}
	var errs []error
	for sh := range all[0].ShardsFrom(neon.ShardID{}) {
		if sh.Attached == 0 {
			continue
		}
		if told, ok := c.Hook().LastNode(sh.ID); !ok || told != sh.Attached ||
			sh.OwesNotification() {
			errs = append(errs, fmt.Errorf(
				"shard %s is on node %s, compute was told %s (notified: %v)", sh.ID, sh.Attached,
				told, sh.ComputeAcknowledged))
		}
	}
	return errors.Join(errs...)
}

// normalised is the end of a story without what may differ: which pageserver
// holds a shard, how often a generation was raised, and when.
func (s *script) normalised() string {
	s.Helper()
	ctx := s.within()
	all, err := states(ctx, s.Cluster)
	if err != nil {
		s.Fatal(err)
	}
	var b strings.Builder
	for n := range all[0].Nodes() {
		if beyond(n.ID) {
			continue
		}
		fmt.Fprintf(&b, "node %s %s %s\n", n.ID, n.Availability, n.Scheduling)
	}
	for tenant := range all[0].TenantsFrom(neon.TenantID{}) {
		if beyondStory(tenant.ID) {
			continue
		}
		fmt.Fprintf(&b, "tenant %s count %d stripe %d %s %s deleting %v config %s\n", tenant.ID,
			tenant.Count,
			tenant.Stripe, tenant.Policy, tenant.Scheduling, tenant.Deleting, tenant.Config.JSON())
		for sh := range all[0].TenantShards(tenant.ID) {
			fmt.Fprintf(&b, "  shard %d attached %v secondaries %d numbered %v owes %v\n",
				sh.ID.Number,
				sh.Attached != 0 && sh.GenNode == sh.Attached, len(sh.Secondary), sh.HasGeneration,
				sh.OwesNotification())
		}
		b.WriteString(walLines(s, tenant.ID))
		b.WriteString(importLines(all[0], tenant.ID))
		if tenant.Policy.Kind == neon.PlaceAttached {
			b.WriteString(s.timelines(ctx, tenant.ID))
		}
	}
	return b.String()
}

// timelines lists the timelines of a tenant, as each of its shards has them.
func (s *script) timelines(ctx context.Context, id neon.TenantID) string {
	s.Helper()
	list, err := s.Client().Timelines().List(ctx, id)
	if err != nil {
		s.Fatalf("timelines of %s: %v", id, err)
	}
	lines := make([]string, 0, len(list))
	for _, tl := range list {
		ancestor := "none"
		if tl.Ancestor != nil {
			ancestor = tl.Ancestor.String()
		}
		lines = append(lines, fmt.Sprintf("  timeline %s ancestor %s version %d\n", tl.Timeline,
			ancestor, tl.PgVersion))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// checkBelief demands that what the leader believes of locations is true (I10).
func checkBelief(ctx context.Context, c *testcluster.Cluster) error {
	list, err := c.Client().Debug().Shards(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, sh := range list {
		for id, l := range sh.Observed.Locations {
			node := c.Fleet().Node(id)
			if l.Config == nil || node == nil || !node.Running() {
				continue
			}
			at, there := node.Location(sh.Shard)
			if !there || at.Mode != l.Config.Mode ||
				l.Config.Generation != nil && at.Generation != *l.Config.Generation {
				errs = append(errs, fmt.Errorf(
					"I10: the leader believes that shard %s is %s on node %s, it is %+v", sh.Shard,
					l.Config.Mode, id, at))
			}
		}
	}
	return errors.Join(errs...)
}
