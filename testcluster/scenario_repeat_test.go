package testcluster_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/testcluster"
)

func repeatStories() []scenario {
	b := testcluster.Builder{Pageservers: 4, Zones: 2, Safekeepers: 3}
	return []scenario{
		{name: "requests carried again", builder: b, run: repeatStory},
	}
}

// twice makes a request under a key, lets others change the same, and makes it again as a
// client or a replica does that has never heard the answer. It is answered as done, or with
// the status of what is left of it, and demand finds that nothing was done again.
func (s *script) twice(
	what string, request, others func(context.Context, *testcluster.Client) error,
	again int, demand func(context.Context, *testcluster.Client) error,
) {
	s.Helper()
	key := "key " + what
	s.step(what)
	s.do(what, func(ctx context.Context, c *testcluster.Client) error {
		return request(client.WithIdempotencyKey(ctx, key), c)
	})
	s.step(what + ": others")
	s.do("change it: "+what, others)
	s.step(what + ": again")
	s.do("again: "+what, func(ctx context.Context, c *testcluster.Client) error {
		silent := &testcluster.Client{Client: c.Client} // it must not count in the ledger
		err := request(client.WithIdempotencyKey(ctx, key), silent)
		if again != 0 && err == nil {
			s.Fatalf("step %q: it was done again", s.step_)
		}
		if again != 0 && client.StatusOf(err) == again {
			return nil
		}
		return err
	})
	s.eventually("nothing was done again", func(ctx context.Context) error {
		return demand(ctx, s.Client())
	})
}

func repeatStory(s *script) {
	s.upgraded()
	s.populate()
	repeatTenants(s)
	repeatTimelines(s)
	repeatNodes(s)
	s.rest()
}

func repeatTenants(s *script) {
	type call = func(context.Context, *testcluster.Client) error
	id := idOf(8)
	create := func(ctx context.Context, c *testcluster.Client) error {
		_, err := c.Tenants().Create(ctx, neon.TenantCreateRequest{
			Tenant:    neon.Unsharded(id),
			Placement: &neon.Placement{Kind: neon.PlaceSecondary}, // it gets no generation
		})
		return err
	}
	remove := func(ctx context.Context, c *testcluster.Client) error {
		err := c.Tenants().Delete(ctx, id)
		if client.StatusOf(err) == http.StatusNotFound {
			return nil
		}
		return err
	}
	there := func(want bool) call {
		return func(ctx context.Context, c *testcluster.Client) error {
			_, err := c.Tenants().Describe(ctx, id)
			if found := err == nil; found != want {
				return fmt.Errorf("it is there: %t, %w", found, err)
			}
			return nil
		}
	}
	config := func(horizon int) call {
		return func(ctx context.Context, c *testcluster.Client) error {
			return c.Tenants().PutConfig(ctx, idOf(1),
				conf(fmt.Sprintf(`{"gc_horizon":%d}`, horizon)))
		}
	}
	s.twice("creation", create, remove, http.StatusConflict, there(false))
	s.twice("configuration", config(1), config(2), 0,
		func(ctx context.Context, c *testcluster.Client) error {
			have, err := c.Tenants().Config(ctx, idOf(1))
			if err == nil && have != conf(`{"gc_horizon":2}`) {
				s.Fatalf("step %q: the configuration is %s", s.step_, have.JSON())
			}
			return err
		})
	// Who has created it is not in the ledger: it has been deleted there before.
	s.do("create another", func(ctx context.Context, c *testcluster.Client) error {
		id = idOf(9)
		return create(ctx, c)
	})
	unrecorded := func(ctx context.Context, c *testcluster.Client) error {
		return remove(ctx, &testcluster.Client{Client: c.Client})
	}
	s.twice("deletion", unrecorded, create, 0, there(true))
}

func repeatTimelines(s *script) {
	tenant := idOf(0)
	version := neon.PgVersion(16)
	create := func(ctx context.Context, c *testcluster.Client) error {
		_, err := c.Timelines().Create(ctx, tenant, neon.TimelineCreateRequest{
			Timeline: timelineOf(5), Bootstrap: &neon.TimelineBootstrap{PgVersion: &version},
		})
		return err
	}
	remove := func(ctx context.Context, c *testcluster.Client) error {
		return c.Timelines().Delete(ctx, tenant, timelineOf(5))
	}
	s.twice("creation of a timeline", create, remove, http.StatusConflict,
		func(ctx context.Context, c *testcluster.Client) error {
			ids, err := c.Timelines().IDs(ctx, tenant)
			if slices.Contains(ids, timelineOf(5)) {
				s.Fatalf("step %q: timelines are %v", s.step_, ids)
			}
			return err
		})
}

func repeatNodes(s *script) {
	node := neon.NodeID(1)
	policy := func(p neon.NodeScheduling) func(context.Context, *testcluster.Client) error {
		return func(ctx context.Context, c *testcluster.Client) error {
			return c.Nodes().Configure(ctx, neon.NodeConfigure{ID: node, Scheduling: &p})
		}
	}
	is := func(p neon.NodeScheduling) func(context.Context, *testcluster.Client) error {
		return func(ctx context.Context, c *testcluster.Client) error {
			n, err := c.Nodes().Get(ctx, node)
			if err == nil && n.Scheduling != p {
				s.Fatalf("step %q: the node is %s", s.step_, n.Scheduling)
			}
			return err
		}
	}
	s.twice("policy of a node", policy(neon.SchedulingPause), policy(neon.SchedulingActive), 0,
		is(neon.SchedulingActive))
	drain := func(ctx context.Context, c *testcluster.Client) error {
		return c.Nodes().Drain(ctx, node)
	}
	s.twice("drain", drain, func(ctx context.Context, c *testcluster.Client) error {
		err := c.Nodes().CancelDrain(ctx, node)
		if client.StatusOf(err) == http.StatusPreconditionFailed {
			return policy(neon.SchedulingActive)(ctx, c) // it has ended before
		}
		return err
	}, 0, is(neon.SchedulingActive))
}
