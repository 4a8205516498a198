package testcluster_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net/http"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

// scenarios are all the stories.
func scenarios() []scenario {
	all := append(tenantStories(), nodeStories()...)
	all = append(all, safekeeperStories()...)
	all = append(all, heldMembershipStories()...)
	all = append(all, unmanagedStories()...)
	all = append(all, preferenceStories()...)
	all = append(all, operationStories()...)
	all = append(all, timelineStories()...)
	all = append(all, splitStories()...)
	all = append(all, splitMeetsStories()...)
	all = append(all, apartStories()...)
	all = append(all, repeatStories()...)
	return append(all, leaderStories()...)
}

// idOf makes the same ids in every run.
func idOf(n int) (id neon.TenantID) {
	binary.BigEndian.PutUint64(id[:], 0x5ce9a510_00000000)
	binary.BigEndian.PutUint64(id[8:], uint64(n)+1)
	return id
}

func timelineOf(n int) (id neon.TimelineID) {
	binary.BigEndian.PutUint64(id[:], 0x71e11e00_00000000)
	binary.BigEndian.PutUint64(id[8:], uint64(n)+1)
	return id
}

func shardOf(n, number, count int) neon.ShardID {
	return neon.ShardID{
		Tenant: idOf(n), Number: neon.ShardNumber(number), Count: neon.ShardCount(count),
	}
}

// create makes a tenant; count 0 makes an unsharded one.
func (s *script) create(n, count int, p neon.Placement) {
	s.Helper()
	req := neon.TenantCreateRequest{Tenant: neon.ShardID{Tenant: idOf(n)}, Placement: &p}
	if count > 0 {
		req.ShardParameters = &neon.ShardParameters{
			Count: neon.ShardCount(count), StripeSize: neon.DefaultStripeSize,
		}
	}
	s.do("create a tenant", func(ctx context.Context, c *testcluster.Client) error {
		_, err := c.Tenants().Create(ctx, req)
		return err
	})
}

// timeline makes a timeline, on an ancestor unless that is negative, and reports
// it to the oracle as acknowledged.
func (s *script) timeline(tenant, n, ancestor int, shards ...neon.ShardID) {
	s.Helper()
	version := neon.PgVersion(16)
	req := neon.TimelineCreateRequest{Timeline: timelineOf(n)}
	if ancestor < 0 {
		req.Bootstrap = &neon.TimelineBootstrap{PgVersion: &version}
	} else {
		req.Branch = &neon.TimelineBranch{Ancestor: timelineOf(ancestor), PgVersion: &version}
	}
	s.do("create a timeline", func(ctx context.Context, c *testcluster.Client) error {
		_, err := c.Timelines().Create(ctx, idOf(tenant), req)
		return err
	})
	s.Fleet().Durable(timelineOf(n), shards...)
}

func (s *script) deleteTimeline(tenant, n int) {
	s.Helper()
	s.do("delete a timeline", func(ctx context.Context, c *testcluster.Client) error {
		err := c.Timelines().Delete(ctx, idOf(tenant), timelineOf(n))
		if client.StatusOf(err) == http.StatusNotFound {
			return nil // by an earlier try
		}
		return err
	})
	s.Fleet().Removed(timelineOf(n), idOf(tenant))
}

func (s *script) deleteTenant(n int) {
	s.Helper()
	s.do("delete a tenant", func(ctx context.Context, c *testcluster.Client) error {
		err := c.Tenants().Delete(ctx, idOf(n))
		if client.StatusOf(err) == http.StatusNotFound {
			return nil
		}
		return err
	})
	s.deleted = append(s.deleted, idOf(n))
}

func (s *script) policy(n int, req neon.PolicyRequest) {
	s.Helper()
	s.do("change a policy", func(
		ctx context.Context, c *testcluster.Client,
	) error {
		return c.Tenants().SetPolicy(ctx, idOf(n), req)
	})
}

func conf(text string) neon.TenantConfig {
	c, err := neon.ParseTenantConfig([]byte(text), neon.RejectUnknown)
	if err != nil {
		panic(err)
	}
	return c
}

func tenantStories() []scenario {
	zones := testcluster.Builder{Pageservers: 4, Zones: 2}
	return []scenario{
		{name: "create", builder: zones, run: createStory},
		{name: "timelines", builder: zones, run: timelineStory},
		{name: "timelines archived and detached", builder: zones, run: branchStory},
		{name: "config", builder: zones, run: configStory},
		{name: "policies", builder: zones, run: policyStory},
		{name: "onboarding", builder: zones, run: onboardStory},
		{name: "tenant delete", builder: zones, run: deleteStory},
		{name: "lost replies", builder: zones, run: lostReplyStory},
		{name: "hook failing", builder: zones, run: hookStory},
	}
}

func createStory(s *script) {
	s.step("unsharded")
	s.create(0, 0, neon.Attached(0))
	s.step("sharded with a secondary")
	s.create(1, 4, neon.Attached(1))
	s.step("only secondary")
	s.create(2, 0, neon.Placement{Kind: neon.PlaceSecondary})
	s.step("put away")
	s.create(3, 2, neon.Placement{})
	s.step("again with other parameters")
	s.create(1, 4, neon.Attached(0))
	s.step("rest")
	s.rest()
}

func timelineStory(s *script) {
	two := []neon.ShardID{shardOf(0, 0, 2), shardOf(0, 1, 2)}
	s.create(0, 2, neon.Attached(1))
	s.create(1, 0, neon.Attached(0))
	s.step("bootstrap")
	s.timeline(0, 0, -1, two...)
	s.step("branch")
	s.timeline(0, 1, 0, two...)
	s.step("the same again")
	s.timeline(0, 0, -1, two...)
	s.step("of another tenant")
	s.timeline(1, 2, -1, shardOf(1, 0, 0))
	s.step("delete the branch")
	s.deleteTimeline(0, 1)
	s.step("after that")
	s.timeline(0, 3, 0, two...)
}

func configStory(s *script) {
	s.create(0, 2, neon.Attached(1))
	s.step("put")
	s.do("put", func(ctx context.Context, c *testcluster.Client) error {
		return c.Tenants().PutConfig(ctx, idOf(0),
			conf(`{"pitr_interval":"7days","gc_horizon":1024}`))
	})
	s.step("patch")
	s.do("patch", func(ctx context.Context, c *testcluster.Client) error {
		return c.Tenants().PatchConfig(ctx, idOf(0),
			map[string]any{"gc_horizon": nil, "checkpoint_distance": 4096})
	})
	s.step("put less")
	s.do("put", func(ctx context.Context, c *testcluster.Client) error {
		return c.Tenants().PutConfig(ctx, idOf(0), conf(`{"checkpoint_distance":8192}`))
	})
	s.step("read")
	s.do("read", func(ctx context.Context, c *testcluster.Client) error {
		have, err := c.Tenants().Config(ctx, idOf(0))
		if err == nil && have != conf(`{"checkpoint_distance":8192}`) {
			s.Errorf("a read after an acknowledged put shows %s", have.JSON())
		}
		return err
	})
}

func policyStory(s *script) {
	place := func(p neon.Placement) neon.PolicyRequest { return neon.PolicyRequest{Placement: &p} }
	for n := range 3 {
		s.create(n, 2, neon.Attached(0))
	}
	s.step("more secondaries")
	s.policy(0, place(neon.Attached(1)))
	s.step("no attachment")
	s.policy(1, place(neon.Placement{Kind: neon.PlaceSecondary}))
	s.step("put away")
	s.policy(2, place(neon.Placement{}))
	s.rest()
	s.step("fewer secondaries")
	s.policy(0, place(neon.Attached(0)))
	s.step("attached again")
	s.policy(1, place(neon.Attached(1)))
	s.step("back from nowhere")
	s.policy(2, place(neon.Attached(0)))
	s.rest()
	s.step("stop")
	s.policy(0, neon.PolicyRequest{Scheduling: ptr(neon.ShardStop)})
	s.rest()
	for i := range 2 {
		s.Oracle().Stopped(shardOf(0, i, 2))
	}
	s.step("while it is stopped")
	s.policy(0, place(neon.Attached(1)))
	s.pass(2 * time.Second)
	s.step("go on")
	for i := range 2 {
		s.Oracle().Resumed(shardOf(0, i, 2))
	}
	s.policy(0, neon.PolicyRequest{Scheduling: ptr(neon.ShardActive)})
}

func ptr[T any](v T) *T { return &v }

func onboardStory(s *script) {
	put := func(l neon.LocationConfig) {
		s.Helper()
		s.do("location_config", func(ctx context.Context, c *testcluster.Client) error {
			_, err := c.Tenants().PutLocation(ctx, idOf(0), l)
			return err
		})
	}
	s.step("secondary first")
	put(neon.LocationConfig{Mode: neon.Secondary, SecondaryConf: &neon.SecondaryConf{Warm: true}})
	s.step("wait")
	s.rest()
	s.step("then attached")
	put(neon.LocationConfig{
		Mode: neon.AttachedSingle, Generation: ptr(neon.Generation(123)),
		TenantConf: conf(`{"gc_horizon":77}`),
	})
	s.step("the same again")
	put(neon.LocationConfig{
		Mode: neon.AttachedSingle, Generation: ptr(neon.Generation(123)),
		TenantConf: conf(`{"gc_horizon":77}`),
	})
	s.rest()
	if f, ok := s.Oracle().Shard(shardOf(0, 0, 0)); !ok || f.Committed <= 123 {
		s.Errorf("the generation is %d after a tenant was taken over in 123", f.Committed)
	}
	s.step("timeline")
	s.timeline(0, 0, -1, shardOf(0, 0, 0))
}

func deleteStory(s *script) {
	for n := range 3 {
		s.create(n, 2, neon.Attached(1))
		s.timeline(n, n, -1, shardOf(n, 0, 2), shardOf(n, 1, 2))
	}
	s.step("delete")
	s.deleteTenant(0)
	s.step("delete with slow pageservers")
	for _, n := range s.pageservers() {
		n.SetFaults(simpageserver.Fault{
			Kind: simpageserver.FaultDelayReply, Route: simpageserver.RouteTenantDelete,
			Delay: time.Second,
		})
	}
	s.deleteTenant(1)
	s.step("after that")
	for _, n := range s.pageservers() {
		n.SetFaults()
	}
	s.do("a deleted tenant is gone", func(ctx context.Context, c *testcluster.Client) error {
		if _, err := c.Tenants().Describe(ctx,
			idOf(0)); client.StatusOf(err) != http.StatusNotFound {
			return errors.Join(errors.New("it is there"), err)
		}
		return nil
	})
}

func lostReplyStory(s *script) {
	faults := func(rules ...simpageserver.Fault) {
		for _, n := range s.pageservers() {
			n.SetFaults(rules...)
		}
	}
	put := simpageserver.RouteLocationPut
	s.step("every other reply is lost")
	faults(simpageserver.Fault{Kind: simpageserver.FaultLoseReply, Route: put, Probability: 0.5})
	s.create(0, 4, neon.Attached(1))
	s.step("some come twice")
	faults(simpageserver.Fault{
		Kind: simpageserver.FaultDuplicate, Route: put, Probability: 0.5, Jitter: time.Second,
	})
	s.create(1, 4, neon.Attached(1))
	s.step("timeline")
	s.timeline(1, 0, -1, shardOf(1, 0, 4), shardOf(1, 1, 4), shardOf(1, 2, 4), shardOf(1, 3, 4))
	s.step("some are garbled")
	faults(simpageserver.Fault{Kind: simpageserver.FaultMalformed, Probability: 0.3})
	s.policy(0, neon.PolicyRequest{Placement: ptr(neon.Attached(0))})
	s.pass(2 * time.Second)
	s.step("heal")
	faults()
	s.rest()
}

func hookStory(s *script) {
	s.create(0, 2, neon.Attached(1))
	s.create(1, 0, neon.Attached(1))
	s.pin(1)
	s.rest()
	shard := shardOf(1, 0, 0)
	from := s.home(shard)
	s.step("refusing")
	s.Hook().SetFaults(simpageserver.Fault{
		Kind: simpageserver.FaultRefuse, Status: http.StatusServiceUnavailable,
	})
	to := from%4 + 1
	s.move(shard, to, immediately)
	s.step("meanwhile")
	s.pass(3 * time.Second)
	if at, ok := s.Fleet().Node(from).Location(shard); !ok || !at.Mode.Attached() {
		s.Errorf("the old location was taken away while compute uses it: %+v", at)
	}
	s.step("busy")
	s.Hook().SetFaults(simpageserver.Fault{
		Kind: simpageserver.FaultRefuse, Status: http.StatusLocked, Probability: 0.5,
	},
		simpageserver.Fault{Kind: simpageserver.FaultLoseReply, Probability: 0.5})
	s.pass(3 * time.Second)
	s.step("well again")
	s.Hook().SetFaults()
	s.rest()
	if at := s.home(shard); at != to {
		s.Errorf("shard %s went to node %s, not %s", shard, at, to)
	}
}
