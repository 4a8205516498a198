package testcluster_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

func unmanagedStories() []scenario {
	zones := testcluster.Builder{Pageservers: 4, Zones: 2}
	return []scenario{
		{name: "unmanaged", builder: zones, run: unmanagedStory},
		{name: "dropped and imported", builder: zones, run: dropStory},
		{name: "cancelled", builder: zones, run: cancelStory},
	}
}

// place makes a location on a pageserver, as a client does that needs no controller.
func (s *script) place(n neon.NodeID, shard neon.ShardID, conf neon.LocationConfig) {
	s.Helper()
	body, err := json.Marshal(conf)
	if err != nil {
		s.Fatal(err)
	}
	rec := httptest.NewRecorder()
	path := "/v1/tenant/" + shard.String() + "/location_config"
	s.Fleet().Node(n).Handler().ServeHTTP(rec,
		httptest.NewRequestWithContext(s.within(), http.MethodPut, path, bytes.NewReader(body)))
	if rec.Code != http.StatusOK {
		s.Fatalf("step %q: place %s on %s as %s: %d %s", s.step_, shard, n, conf.Mode, rec.Code,
			rec.Body)
	}
}

// hook asks for the generation of an attachment by hand; node 0 says that there is
// none any more.
func (s *script) hook(shard neon.ShardID, node neon.NodeID) (g neon.Generation) {
	s.Helper()
	req := neon.AttachHookRequest{Shard: shard}
	if node != 0 {
		req.Node = &node
	}
	s.do("attach hook", func(ctx context.Context, c *testcluster.Client) (err error) {
		g, err = c.Shards().AttachHook(ctx, req)
		return err
	})
	return g
}

// undisturbed demands that no pageserver is told anything about some shards for so
// long that every pageserver was listed again.
func (s *script) undisturbed(shards ...neon.ShardID) {
	s.Helper()
	for _, id := range shards {
		s.Oracle().Stopped(id)
	}
	s.pass(70 * time.Second)
	for _, id := range shards {
		s.Oracle().Resumed(id)
	}
}

// valid demands that validation says of a generation that it is the newest, or not.
func (s *script) valid(shard neon.ShardID, g neon.Generation, want bool) {
	s.Helper()
	s.do("validate", func(ctx context.Context, c *testcluster.Client) error {
		resp, err := c.Upcalls().Validate(ctx,
			neon.ValidateRequest{Tenants: []neon.ValidateTenant{{Shard: shard, Gen: g}}})
		if err == nil && (len(resp.Tenants) != 1 || resp.Tenants[0].Valid != want) {
			s.Errorf("step %q: generation %s of %s: %+v, want %v", s.step_, g, shard, resp.Tenants,
				want)
		}
		return err
	})
}

func unmanagedStory(s *script) {
	known, unknown := shardOf(0, 0, 0), shardOf(1, 0, 0)
	s.create(0, 0, neon.Attached(0))
	s.timeline(0, 0, -1, known)
	s.rest()
	home := s.home(known)
	s.step("taken away")
	s.hook(known, 0)
	s.place(home, known, neon.LocationConfig{Mode: neon.Detached})
	s.step("attached elsewhere")
	to := home%4 + 1
	g := s.hook(known, to)
	s.valid(known, g, true)
	s.place(to, known, neon.LocationConfig{Mode: neon.AttachedSingle, Generation: &g})
	s.step("an unknown one")
	first := s.hook(unknown, 1)
	s.place(1, unknown, neon.LocationConfig{Mode: neon.AttachedSingle, Generation: &first})
	s.step("attached twice")
	second := s.hook(unknown, 2)
	s.valid(unknown, first, false)
	s.valid(unknown, second, true)
	s.place(2, unknown, neon.LocationConfig{Mode: neon.AttachedMulti, Generation: &second})
	s.undisturbed(known, unknown)
	s.step("restart")
	if err := s.Fleet().Node(2).Restart(s.within()); err != nil {
		s.Fatal(err)
	}
	s.verdicts()
	s.pass(time.Second)
	if at, ok := s.Fleet().Node(2).Location(unknown); !ok || at.Generation <= second {
		s.Errorf("after its restart the pageserver has %+v, it had %s", at, second)
	}
	s.step("taken back")
	s.policy(0, neon.PolicyRequest{Placement: ptr(neon.Attached(1))})
	s.policy(1, neon.PolicyRequest{Placement: ptr(neon.Attached(0))})
	s.rest()
}

func dropStory(s *script) {
	two := []neon.ShardID{shardOf(0, 0, 2), shardOf(0, 1, 2)}
	s.create(0, 2, neon.Attached(1))
	s.timeline(0, 0, -1, two...)
	s.create(1, 0, neon.Attached(0))
	s.rest()
	before, _ := s.Oracle().Shard(two[0])
	s.step("put away")
	s.policy(0, neon.PolicyRequest{Placement: ptr(neon.Placement{})})
	s.rest()
	s.step("dropped")
	for n := range 2 {
		s.do("drop", func(
			ctx context.Context, c *testcluster.Client,
		) error {
			return c.Tenants().Drop(ctx, idOf(n))
		})
	}
	s.do("a dropped tenant is gone", func(ctx context.Context, c *testcluster.Client) error {
		if _, err := c.Tenants().Describe(ctx,
			idOf(0)); client.StatusOf(err) != http.StatusNotFound {
			return fmt.Errorf("it is there: %w", err)
		}
		return nil
	})
	s.step("imported")
	s.do("import", func(ctx context.Context, c *testcluster.Client) error {
		_, err := c.Tenants().Import(ctx, idOf(0))
		return err
	})
	s.rest()
	if f, _ := s.Oracle().Shard(two[0]); f.Committed <= before.Committed {
		s.Errorf("imported in generation %s, it had %s", f.Committed, before.Committed)
	}
	s.step("what was left of the other goes")
	s.eventually("it goes", func(context.Context) error {
		for _, n := range s.pageservers() {
			if at, ok := n.Location(shardOf(1, 0, 0)); ok {
				return fmt.Errorf("on %s: %+v", n.ID(), at)
			}
		}
		return nil
	})
}

// cancelStory cancels a move that does not get on. The shard arrives when the
// pageservers are well again, since that is where it should be.
func cancelStory(s *script) {
	shard := shardOf(0, 0, 0)
	s.create(0, 0, neon.Attached(1))
	s.timeline(0, 0, -1, shard)
	// it is to stay where it goes
	s.policy(0, neon.PolicyRequest{Scheduling: ptr(neon.ShardEssential)})
	s.rest()
	s.step("slow")
	for _, n := range s.pageservers() {
		n.SetFaults(simpageserver.Fault{
			Kind: simpageserver.FaultDelayReply, Route: simpageserver.RouteLocationPut,
			Delay: 20 * time.Second,
		})
	}
	to := s.home(shard)%4 + 1
	s.do("migrate", func(ctx context.Context, c *testcluster.Client) error {
		err := c.WithTryTimeout(time.Second).Shards().Migrate(ctx, shard,
			neon.MigrateRequest{Node: to, Config: neon.MigrationConfig{OverrideScheduler: true}})
		if s.home(shard) == to {
			return nil // it takes longer than a client waits
		}
		return err
	})
	s.step("cancelled")
	s.do("cancel", func(ctx context.Context, c *testcluster.Client) error {
		err := c.Shards().CancelReconcile(ctx, shard)
		if client.StatusOf(err) == http.StatusInternalServerError {
			return nil // it was cut short
		}
		return err
	})
	s.step("well again")
	for _, n := range s.pageservers() {
		n.SetFaults()
	}
	s.rest()
	if at := s.home(shard); at != to {
		s.Errorf("shard %s went to node %s, not %s", shard, at, to)
	}
}
