package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/reconciler"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

// What an operator says about where things should be, beside moving them.
func preferenceStories() []scenario {
	zones := testcluster.Builder{Pageservers: 4, Zones: 2, Tune: eager}
	cold := testcluster.Builder{
		Pageservers: 5, Zones: 2, Behaviour: simpageserver.Behaviour{DownloadRate: 1 << 10},
	}
	return []scenario{
		{name: "preferred zones", builder: zones, run: zoneStory},
		{name: "preferred zones in bulk", builder: zones, run: zonesStory},
		{name: "policies of nodes", builder: zones, run: nodePolicyStory},
		{name: "all nodes paused", builder: zones, run: allPausedStory},
		{name: "paused and pinned", builder: zones, run: pausedStory},
		{name: "paused, and its node dropped", builder: zones, run: pausedNodeDroppedStory},
		{name: "fill cancelled", builder: cold, run: cancelFillStory},
	}
}

// eager looks for better places all the time, and does not wait long for a node that
// is gone: until then a move to it goes before any other of its tenant. One that has come
// back is counted on soon.
func eager(o *reconciler.Options) {
	o.OptimiseInterval, o.RehomeSecondary = 500*time.Millisecond, 5*time.Second
	o.SteadyAfter = 2 * time.Second
}

// prefer changes the zones of shards and demands that just those that exist are named
// in the answer.
func (s *script) prefer(want neon.PreferredAZsRequest, exist ...neon.ShardID) {
	s.Helper()
	slices.SortFunc(exist, neon.ShardID.Compare)
	s.do("prefer zones", func(ctx context.Context, c *testcluster.Client) error {
		resp, err := c.Shards().SetPreferredAZs(ctx, want)
		if err == nil && !slices.Equal(resp.Updated, exist) {
			s.Errorf("step %q: zones of %v were changed, not of %v", s.step_, resp.Updated, exist)
		}
		return err
	})
}

// servedFrom waits until shards are attached in the zones that they prefer, which
// happens when there is nothing else to do.
func (s *script) servedFrom(want neon.PreferredAZsRequest) {
	s.Helper()
	s.eventually("shards are served from their zones", func(ctx context.Context) error {
		nodes, err := s.Client().Nodes().List(ctx)
		if err != nil {
			return err
		}
		zone := make(map[neon.NodeID]string)
		for _, n := range nodes {
			zone[n.ID] = n.AZ
		}
		var errs []error
		for id, az := range want {
			d, err := s.Client().Tenants().Describe(ctx, id.Tenant)
			if err != nil {
				return err
			}
			for _, sh := range d.Shards {
				switch {
				case sh.Shard != id:
				case sh.PreferredAZ.String() != az.String():
					s.Fatalf("step %q: shard %s prefers %q, not %q", s.step_, id, sh.PreferredAZ,
						az)
				case sh.Attached == nil || zone[*sh.Attached] != az.String():
					errs = append(errs,
						fmt.Errorf("shard %s is on node %v, not in zone %s", id, sh.Attached, az))
				}
			}
		}
		return errors.Join(errs...)
	})
}

func zoneStory(s *script) {
	s.populate()
	shard := shardOf(1, 0, 0)
	in := func(az neon.AZ) neon.PreferredAZsRequest { return neon.PreferredAZsRequest{shard: &az} }
	for i := range 3 {
		s.step(fmt.Sprintf("zone %d", i%2))
		s.prefer(in(testcluster.Zone(i%2)), shard)
		s.step("it goes there")
		s.servedFrom(in(testcluster.Zone(i % 2)))
	}
	s.step("that zone dies")
	for _, n := range []neon.NodeID{1, 3} {
		s.KillPageserver(n)
	}
	s.verdicts()
	s.deserted(1)
	s.deserted(3)
	s.step("and comes back")
	for _, n := range []neon.NodeID{1, 3} {
		s.pageserver(n)
	}
	s.verdicts()
	s.servedFrom(in(testcluster.Zone(0)))
	s.step("a zone that does not exist")
	s.prefer(in(neon.MakeAZ("nowhere")), shard)
	s.rest()
	s.step("no zone")
	s.prefer(neon.PreferredAZsRequest{shard: nil}, shard)
	s.rest()
}

func zonesStory(s *script) {
	s.populate()
	ids := append(append(shardsOf(0, 4), shardsOf(1, 0)...), shardsOf(2, 2)...)
	want := func(zone func(i int) int) neon.PreferredAZsRequest {
		all := make(neon.PreferredAZsRequest)
		for i, id := range ids {
			all[id] = ptr(testcluster.Zone(zone(i)))
		}
		return all
	}
	ask := func(all neon.PreferredAZsRequest) {
		s.Helper()
		// neither exists
		more := neon.PreferredAZsRequest{
			shardOf(7, 0, 0): ptr(testcluster.Zone(0)), shardOf(0, 0, 2): nil,
		}
		for id, az := range all {
			more[id] = az
		}
		s.prefer(more, slices.Clone(ids)...)
	}
	s.step("all into one zone")
	one := want(func(int) int { return 1 })
	ask(one)
	s.step("they go there")
	s.servedFrom(one)
	s.step("each into another")
	mixed := want(func(i int) int { return i % 2 })
	ask(mixed)
	s.step("with a pageserver dying on the way")
	s.KillPageserver(1)
	s.verdicts()
	s.step("they get there")
	s.servedFrom(mixed)
	s.step("back")
	s.pageserver(1)
	s.verdicts()
	s.rest()
	s.servedFrom(mixed)
	s.step("none")
	none := make(neon.PreferredAZsRequest)
	for _, id := range ids {
		none[id] = nil
	}
	s.prefer(none, ids...)
	s.rest()
}

func (s *script) schedule(id neon.NodeID, to neon.NodeScheduling) {
	s.Helper()
	s.do("set the policy of a node", func(ctx context.Context, c *testcluster.Client) error {
		return c.Nodes().Configure(ctx, neon.NodeConfigure{ID: id, Scheduling: &to})
	})
	s.becomes(id, to)
}

// nodePolicyStory sets every policy that may be set by hand: a node that is not open
// gets nothing new, and keeps what it has unless it dies.
func nodePolicyStory(s *script) {
	s.populate()
	n := s.home(shardOf(0, 0, 4))
	had := s.attached(n)
	next := 10
	for _, p := range []neon.NodeScheduling{neon.SchedulingPause, neon.SchedulingPauseForRestart} {
		s.step(string(p))
		s.schedule(n, p)
		s.step("new tenants go elsewhere")
		for range 3 {
			s.create(next, 2, neon.Attached(1))
			next++
		}
		s.rest()
		if now := s.attached(n); now > had {
			s.Errorf("step %q: node %s, which is %s, has %d shards, it had %d", s.step_, n, p, now,
				had)
		}
		s.step("it serves what it has")
		s.do("put", func(ctx context.Context, c *testcluster.Client) error {
			return c.Tenants().PutConfig(ctx, idOf(0), conf(fmt.Sprintf(`{"gc_horizon":%d}`, next)))
		})
		s.rest()
	}
	s.step("restarted")
	s.Fleet().Node(n).Kill()
	s.pageserver(n)
	s.becomes(n, neon.SchedulingActive) // it has re-attached
	s.verdicts()
	s.step("paused, and it dies")
	s.schedule(n, neon.SchedulingPause)
	s.KillPageserver(n)
	s.verdicts()
	s.deserted(n)
	s.step("back, and still paused")
	s.pageserver(n)
	s.verdicts()
	s.rest()
	s.becomes(n, neon.SchedulingPause)
	if now := s.attached(n); now > 0 {
		s.Errorf("a paused node that came back got %d shards", now)
	}
	s.step("open again")
	s.activate(n)
	s.rest()
}

// allPausedStory leaves no node to take anything: what is there stays, and what is new
// is refused or waits.
func allPausedStory(s *script) {
	s.populate()
	nodes := s.pageservers()
	s.step("all are paused")
	for _, n := range nodes {
		s.schedule(n.ID(), neon.SchedulingPause)
	}
	s.step("a new tenant finds no place")
	s.eventually("it is refused", func(ctx context.Context) error {
		req := neon.TenantCreateRequest{
			Tenant: neon.ShardID{Tenant: idOf(9)}, Placement: ptr(neon.Attached(0)),
		}
		_, err := s.Client().Tenants().Create(ctx, req)
		if client.StatusOf(err)/100 == 4 {
			return nil
		}
		return fmt.Errorf("create: %w", err)
	})
	s.step("one that was put away waits")
	s.policy(1, neon.PolicyRequest{Placement: &neon.Placement{}})
	s.rest()
	s.do("set it to be served", func(ctx context.Context, c *testcluster.Client) error {
		err := c.Tenants().SetPolicy(ctx, idOf(1),
			neon.PolicyRequest{Placement: ptr(neon.Attached(0))})
		d, derr := c.Tenants().Describe(ctx, idOf(1))
		if derr == nil && d.Policy.Kind == neon.PlaceAttached {
			return nil // wherever that may be
		}
		return errors.Join(err, derr)
	})
	s.step("and is paused besides")
	s.policy(1, neon.PolicyRequest{Scheduling: ptr(neon.ShardPause)})
	s.pass(5 * time.Second)
	s.step("one is open again")
	s.activate(nodes[0].ID())
	s.rest()
	if at := s.home(shardOf(1, 0, 0)); at != nodes[0].ID() {
		s.Errorf("the tenant is on node %s, only %s is open", at, nodes[0].ID())
	}
	s.step("and the others")
	for _, n := range nodes[1:] {
		s.activate(n.ID())
	}
	s.policy(1, neon.PolicyRequest{Scheduling: ptr(neon.ShardActive)})
	s.rest()
}

// pausedStory: a paused tenant and a pinned one are not moved for a better place, but
// are evacuated.
func pausedStory(s *script) {
	s.populate()
	policies := map[int]neon.ShardScheduling{1: neon.ShardPause, 2: neon.ShardEssential}
	shards := append(shardsOf(1, 0), shardsOf(2, 2)...)
	s.step("paused and pinned")
	for n, p := range policies {
		s.policy(n, neon.PolicyRequest{Scheduling: &p})
	}
	s.rest()
	at := make(map[neon.ShardID]neon.NodeID)
	other := make(neon.PreferredAZsRequest)
	for _, id := range shards {
		at[id] = s.home(id)
		other[id] = ptr(testcluster.Zone(int(at[id]) % 2)) // zones are dealt from node 1
	}
	s.step("another zone would be better")
	s.prefer(other, shards...)
	s.pass(5 * time.Second)
	s.rest()
	for _, id := range shards {
		if now := s.home(id); now != at[id] {
			s.Errorf("shard %s went from node %s to %s", id, at[id], now)
		}
	}
	s.step("a node dies")
	s.KillPageserver(at[shards[0]])
	s.verdicts()
	s.deserted(at[shards[0]])
	s.step("free again")
	for n := range policies {
		s.policy(n, neon.PolicyRequest{Scheduling: ptr(neon.ShardActive)})
	}
	s.pageserver(at[shards[0]])
	s.verdicts()
	s.servedFrom(other)
}

// pausedNodeDroppedStory makes controllers forget the node of a paused tenant, which
// leaves that nowhere.
func pausedNodeDroppedStory(s *script) {
	s.populate()
	shard := shardOf(1, 0, 0)
	s.step("paused")
	s.policy(1, neon.PolicyRequest{Scheduling: ptr(neon.ShardPause)})
	s.rest()
	n := s.home(shard)
	s.step("its node is dropped")
	s.KillPageserver(n)
	s.do("drop", func(ctx context.Context, c *testcluster.Client) error {
		err := c.Nodes().Drop(ctx, n)
		if client.StatusOf(err) == 404 {
			return nil
		}
		return err
	})
	s.step("it is served elsewhere")
	s.eventually("it is", func(ctx context.Context) error {
		if at := s.home(shard); at == 0 || at == n {
			return fmt.Errorf("it is on node %s", at)
		}
		return nil
	})
	s.rest()
}

// cancelFillStory cancels a fill of a node whose destinations are cold.
func cancelFillStory(s *script) {
	s.populate()
	n := s.home(shardOf(0, 0, 4))
	s.KillPageserver(n)
	s.verdicts()
	s.deserted(n)
	s.pageserver(n)
	s.verdicts()
	s.step("fill")
	s.order("fill", n, begin(client.Nodes.Fill), neon.SchedulingFilling)
	s.step("cancel")
	s.order("cancel", n, client.Nodes.CancelFill, neon.SchedulingActive)
	s.step("as before")
	s.becomes(n, neon.SchedulingActive)
	s.noOperations()
	s.rest()
}
