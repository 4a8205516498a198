package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/fsm"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

// apartStories have requests about one tenant, or one timeline, meet each other. Whatever
// they ask pageservers for takes its time, and leaders die, or hand over, inside it.
func apartStories() []scenario {
	takes := testcluster.Builder{Pageservers: 3, Behaviour: simpageserver.Behaviour{
		Takes: map[simpageserver.Route]time.Duration{
			simpageserver.RouteTenantDelete:   3 * time.Second,
			simpageserver.RouteTimeTravel:     3 * time.Second,
			simpageserver.RouteTimelineCreate: 2 * time.Second,
		},
	}}
	const own = "it has a leader die, and pageservers hang, at moments of its own"
	return []scenario{
		{name: "two deletions of a tenant", builder: takes, run: twoDeletionsStory, alone: own},
		{name: "deletion of a tenant handed on", builder: takes, run: handedOnStory, alone: own},
		{name: "time travel", builder: takes, run: travelStory, alone: own},
		{name: "timeline created and deleted", builder: takes, run: crossedStory, alone: own},
	}
}

// upgraded waits until all members know that all of them know the records that these stories
// are about. Until then there are none.
func (s *script) upgraded() {
	s.Helper()
	s.eventually("all know the newest level", func(ctx context.Context) error {
		all, err := states(ctx, s.Cluster)
		if err == nil && !slices.ContainsFunc(all,
			func(st *fsm.State) bool { return st.AgreedLevel() == fsm.Level }) {
			err = errors.New("it is not raised")
		}
		return err
	})
}

// inside kills the leader some time after the beginning of what follows.
func (s *script) inside(after time.Duration) {
	s.Helper()
	s.revive()
	if _, err := s.WaitLeader(s.within()); err != nil {
		s.Fatal(err)
	}
	s.killer.Go(func() {
		<-time.After(after)
		s.killLeader()
	})
}

// meanwhile does something at the same time, and returns what waits for its end.
func (s *script) meanwhile(f func()) (wait func()) {
	var wg sync.WaitGroup
	wg.Go(f)
	s.Cleanup(wg.Wait)
	return wg.Wait
}

// persist repeats a request until it succeeds, or says that nothing is there.
func (s *script) persist(what string, f func(context.Context, *testcluster.Client) error) {
	ctx := s.within()
	for {
		err := f(ctx, s.Client())
		if err == nil || client.StatusOf(err) == http.StatusNotFound {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			s.Errorf("step %q: %s: %v", s.step_, what, err)
			return
		}
	}
}

// again creates a tenant under the id of one that was deleted.
func (s *script) again(n int) {
	s.Helper()
	s.Oracle().Again(idOf(n))
	s.Ledger().Again(idOf(n))
	s.deleted = slices.DeleteFunc(s.deleted,
		func(id neon.TenantID) bool { return id == idOf(n) })
	s.create(n, 2, neon.Attached(1))
}

// twoDeletionsStory has the tenant created again as soon as one of two requests has been
// told that it is gone. The other one is under way still.
func twoDeletionsStory(s *script) {
	s.upgraded()
	two := []neon.ShardID{shardOf(0, 0, 2), shardOf(0, 1, 2)}
	s.create(0, 2, neon.Attached(1))
	for n := range 3 {
		s.timeline(0, n, -1, two...)
		s.step("twice")
		s.revive()
		if _, err := s.WaitLeader(s.within()); err != nil {
			s.Fatal(err)
		}
		s.rest()
		s.Oracle().Deleting(idOf(0))
		other := s.meanwhile(func() {
			<-time.After(time.Second)
			err := s.Client().Client.Tenants().Delete(s.within(), idOf(0))
			if status := client.StatusOf(err); err != nil && status != http.StatusNotFound {
				s.Errorf("the second deletion: %v", err)
			}
		})
		s.deleteTenant(0)
		s.again(0)
		other()
		s.step("after that")
		s.pass(5 * time.Second)
	}
	s.timeline(0, 9, -1, two...)
}

// handedOnStory has the leader die inside the removal, and the pageserver that is at it
// hang for a while. The next leader waits for that one.
func handedOnStory(s *script) {
	s.upgraded()
	two := []neon.ShardID{shardOf(0, 0, 2), shardOf(0, 1, 2)}
	s.create(0, 2, neon.Attached(1))
	for n := range 2 {
		s.timeline(0, n, -1, two...)
		s.step("delete")
		s.rest()
		s.Oracle().Deleting(idOf(0))
		s.inside(time.Second)
		awake := s.meanwhile(func() {
			<-time.After(900 * time.Millisecond)
			s.Fleet().Node(1).Pause()
			<-time.After(20 * time.Second)
			s.Fleet().Node(1).Resume()
		})
		s.persist("delete", func(ctx context.Context, c *testcluster.Client) error {
			return c.WithTryTimeout(4*time.Second).Tenants().Delete(ctx, idOf(0))
		})
		s.again(0)
		s.timeline(0, 5+n, -1, two...)
		awake()
		s.step("after that")
		s.pass(5 * time.Second)
		s.verdicts()
		s.rest()
	}
}

// travel puts the data of a tenant back.
func (s *script) travel(n int) func(context.Context, *testcluster.Client) error {
	at := time.Now()
	return func(ctx context.Context, c *testcluster.Client) error {
		return c.Tenants().TravelRemoteStorage(ctx, idOf(n), at, at, 0, 2)
	}
}

func travelStory(s *script) {
	put := func(n int, p neon.Placement) {
		s.Helper()
		s.policy(n, neon.PolicyRequest{Placement: &p})
	}
	s.upgraded()
	s.create(0, 2, neon.Attached(0))
	s.step("beside policies")
	put(0, neon.Placement{})
	s.rest()
	ended := s.meanwhile(func() {
		s.persist("time travel", func(ctx context.Context, c *testcluster.Client) error {
			err := s.travel(0)(ctx, c)
			var e *client.StatusError
			if errors.As(err, &e) && strings.Contains(e.Msg, "We want tenant to be attached") {
				return nil // the next leader has ended it, and the tenant is attached again
			}
			return err
		})
	})
	s.pass(time.Second)
	put(0, neon.Attached(1))
	ended()
	s.rest()
	s.step("with the leader killed inside")
	put(0, neon.Placement{})
	s.rest()
	s.inside(time.Second)
	ended = s.meanwhile(func() {
		ctx, cancel := context.WithTimeout(s.within(), 2*time.Second)
		defer cancel()
		_ = s.travel(0)(ctx, s.Client()) // nobody repeats it
	})
	s.pass(1500 * time.Millisecond)
	put(0, neon.Attached(1)) // the next leader has to end it
	ended()
	s.rest()
	s.step("and repeated")
	put(0, neon.Placement{})
	s.rest()
	s.inside(4 * time.Second)
	s.persist("time travel", s.travel(0))
	put(0, neon.Attached(0))
	s.step("of a tenant that is nowhere")
	s.inside(time.Second)
	ended = s.meanwhile(func() { _ = s.travel(1)(s.within(), s.Client()) })
	s.pass(500 * time.Millisecond)
	s.create(1, 2, neon.Attached(0))
	ended()
}

// crossedStory has the leader die, or hand over, while a timeline is on one of two shards,
// and somebody else delete it. Both are told that they have succeeded.
func crossedStory(s *script) {
	s.upgraded()
	two := []neon.ShardID{shardOf(0, 0, 2), shardOf(0, 1, 2)}
	s.create(0, 2, neon.Attached(0))
	s.create(1, 0, neon.Attached(0))
	version := neon.PgVersion(16)
	for n, trouble := range []func(){
		func() {},
		func() { s.inside(2600 * time.Millisecond) },
		func() { s.handOver(time.Second) },
		func() { s.handOver(2100 * time.Millisecond) },
	} {
		s.step(fmt.Sprintf("crossing %d", n))
		s.revive()
		s.rest()
		trouble()
		created := s.meanwhile(func() {
			s.persist("create a timeline", func(ctx context.Context, c *testcluster.Client) error {
				_, err := c.Timelines().Create(ctx, idOf(0), neon.TimelineCreateRequest{
					Timeline:  timelineOf(n),
					Bootstrap: &neon.TimelineBootstrap{PgVersion: &version},
				})
				return err
			})
		})
		s.pass(2200 * time.Millisecond) // it is on the first shard
		s.persist("delete a timeline", func(ctx context.Context, c *testcluster.Client) error {
			return c.Timelines().Delete(ctx, idOf(0), timelineOf(n))
		})
		created()
		s.onAllOrNone(timelineOf(n), two...)
		s.step("delete what is left")
		s.deleteTimeline(0, n)
	}
}

// handOver makes another controller lead, after some time.
func (s *script) handOver(after time.Duration) {
	if s.Controllers() == 1 {
		return
	}
	s.killer.Go(func() {
		<-time.After(after)
		s.eventually("hand over", func(ctx context.Context) error {
			_, err := s.StepDown(ctx)
			return err
		})
	})
}

// onAllOrNone demands that all shards agree on whether they have a timeline.
func (s *script) onAllOrNone(id neon.TimelineID, shards ...neon.ShardID) {
	s.Helper()
	s.rest()
	on := 0
	for _, shard := range shards {
		w := httptest.NewRecorder()
		s.Fleet().Node(s.home(shard)).Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet,
			fmt.Sprintf("/v1/tenant/%s/timeline/%s", shard, id), nil))
		switch w.Code {
		case http.StatusOK:
			on++
		case http.StatusNotFound:
		default:
			s.Errorf("step %q: shard %s: %d %s", s.step_, shard, w.Code, w.Body)
		}
	}
	if on != 0 && on != len(shards) {
		s.Errorf("step %q: timeline %s is on %d of %d shards", s.step_, id, on, len(shards))
	}
}
