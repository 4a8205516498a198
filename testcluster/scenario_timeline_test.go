package testcluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/fsm"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

func timelineStories() []scenario {
	b := testcluster.Builder{
		Pageservers: 3, Safekeepers: 3,
		Behaviour: simpageserver.Behaviour{ImportTime: 2 * time.Second, ImportFails: secondFails},
	}
	slow := testcluster.Builder{
		Pageservers: 2, Safekeepers: 3,
		Behaviour: simpageserver.Behaviour{DeleteTimeline: 3 * time.Second},
	}
	offloading := testcluster.Builder{
		Pageservers: 3, Maintenance: 200 * time.Millisecond,
		Behaviour: simpageserver.Behaviour{Offload: true, ArchivalStep: 100 * time.Millisecond},
	}
	taking := testcluster.Builder{
		Pageservers: 3, Safekeepers: 3, Behaviour: simpageserver.Behaviour{
			Takes: map[simpageserver.Route]time.Duration{
				simpageserver.RouteTimelineCreate: 3 * time.Second,
				simpageserver.RouteTimelineDelete: 3 * time.Second,
				simpageserver.RouteArchival:       3 * time.Second,
				simpageserver.RouteDetachAncestor: 3 * time.Second,
				simpageserver.RouteTenantDelete:   3 * time.Second,
				simpageserver.RouteActivateImport: time.Second,
			},
			ImportTime: 2 * time.Second,
		},
	}
	return []scenario{
		{name: "timeline import", builder: b, run: importStory},
		{name: "calls that go on without their leader", builder: taking, run: underWayStory},
		{
			name: "timeline deletion without a client", builder: slow,
			run: abandonedDeletionStory,
		},
		{name: "timelines offloaded and brought back", builder: offloading, run: offloadStory},
	}
}

// secondFails makes the import of the second timeline fail on one shard.
func secondFails(shard neon.ShardID, id neon.TimelineID) string {
	if id == timelineOf(1) && shard.Number == 1 {
		return "no bucket"
	}
	return ""
}

// beginImport starts the import of a timeline.
func (s *script) beginImport(tenant, n int) {
	s.Helper()
	req := neon.TimelineCreateRequest{Timeline: timelineOf(n), Import: &neon.TimelineImport{
		Location: json.RawMessage(`{"LocalFs":{"path":"/bucket"}}`), IdempotencyKey: fmt.Sprint(n),
	}}
	s.do("begin an import", func(ctx context.Context, c *testcluster.Client) error {
		_, err := c.Timelines().Create(ctx, idOf(tenant), req)
		return err
	})
}

// imported waits until the control plane has heard of the end of an import, and
// demands that it was that.
func (s *script) imported(tenant, n int, fails string) {
	s.Helper()
	var all []neon.ImportComplete
	s.eventually("the import ends", func(context.Context) error {
		if all = s.Hook().Imports(neon.TimelineRef{
			Tenant: idOf(tenant), Timeline: timelineOf(n),
		}); len(all) == 0 {
			return errors.New("the control plane has not heard of it")
		}
		return nil
	})
	for _, heard := range all {
		if got := heard.Error; (got == nil) != (fails == "") || got != nil && *got != fails {
			s.Errorf("step %q: the import of timeline %d ended with %v", s.step_, n, heard.Error)
		}
	}
}

func importStory(s *script) {
	two := []neon.ShardID{shardOf(0, 0, 2), shardOf(0, 1, 2)}
	s.create(0, 2, neon.Attached(1))
	s.step("begin")
	s.beginImport(0, 0)
	s.step("a shard moves meanwhile")
	s.move(two[0], s.home(two[0])%3+1, immediately)
	s.step("a pageserver restarts meanwhile")
	at := s.home(two[1])
	s.KillPageserver(at)
	s.pageserver(at)
	s.verdicts()
	s.step("the end")
	s.imported(0, 0, "")
	s.Fleet().Durable(timelineOf(0), two...)
	s.step("asked for once more")
	s.beginImport(0, 0)
	s.step("another one fails")
	s.beginImport(0, 1)
	s.imported(0, 1, `{"0102":"no bucket"}`)
	s.step("and is deleted")
	s.deleteTimeline(0, 1)
	s.step("deleted while it runs")
	s.beginImport(0, 2)
	s.step("now")
	s.deleteTimeline(0, 2)
	first := s.silent(0, 2)
	s.step("of a tenant that is deleted")
	s.create(1, 0, neon.Attached(0))
	s.beginImport(1, 3)
	s.deleteTenant(1)
	second := s.silent(1, 3)
	s.step("after that")
	s.pass(5 * time.Second)
	first()
	second()
	s.paidOff()
}

// underWayStory makes calls that take long, and that a dead leader leaves running. Its
// successor is asked for the same by a client that knows nothing of it, and that must not
// hear of it.
func underWayStory(s *script) {
	s.noConflict = true
	two := []neon.ShardID{shardOf(0, 0, 2), shardOf(0, 1, 2)}
	s.create(0, 2, neon.Attached(0))
	s.step("create")
	s.timeline(0, 0, -1, two...)
	s.step("branch")
	s.timeline(0, 1, 0, two...)
	s.step("archive")
	s.archive(1, neon.Archived, two...)
	s.step("bring back")
	s.archive(1, neon.Unarchived, two...)
	s.step("detach")
	s.do("detach from the ancestor", func(ctx context.Context, c *testcluster.Client) error {
		var done neon.AncestorDetached
		return c.Call(ctx, "PUT", fmt.Sprintf("/v1/tenant/%s/timeline/%s/detach_ancestor",
			idOf(0), timelineOf(1)), nil, &done)
	})
	s.step("import")
	s.beginImport(0, 2)
	s.imported(0, 2, "")
	s.step("delete a timeline")
	s.deleteTimeline(0, 1)
	s.step("delete the tenant")
	s.deleteTenant(0)
	s.paidOff()
}

// silent tells what checks later that the control plane heard no more of an import,
// which may have ended while no leader was there to delete it.
func (s *script) silent(tenant, n int) (check func()) {
	ref := neon.TimelineRef{Tenant: idOf(tenant), Timeline: timelineOf(n)}
	before := len(s.Hook().Imports(ref))
	return func() {
		if all := s.Hook().Imports(ref); len(all) > before {
			s.Errorf("the control plane heard of the end of a deleted import: %+v", all[before:])
		}
	}
}

// abandonedDeletionStory deletes a timeline for a client that goes away at once.
func abandonedDeletionStory(s *script) {
	two := []neon.ShardID{shardOf(0, 0, 2), shardOf(0, 1, 2)}
	ref := neon.TimelineRef{Tenant: idOf(0), Timeline: timelineOf(1)}
	s.create(0, 2, neon.Attached(0))
	s.timeline(0, 0, -1, two...)
	s.timeline(0, 1, 0, two...)
	s.step("refused")
	s.do("an ancestor is not deleted", func(ctx context.Context, c *testcluster.Client) error {
		err := c.Timelines().Delete(ctx, idOf(0), timelineOf(0))
		if err == nil {
			s.Error("a timeline with a branch was deleted")
		}
		if client.StatusOf(err) == 500 {
			return nil
		}
		return err
	})
	s.step("asked for")
	s.Fleet().Removing(ref.Timeline, ref.Tenant)
	s.eventually("it is recorded", func(ctx context.Context) error {
		short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		_ = s.Client().Timelines().Delete(short, ref.Tenant, ref.Timeline) // whatever comes of it
		all, err := states(ctx, s.Cluster)
		if err != nil {
			return err
		}
		if _, ok := all[0].TimelineDelete(ref); !ok {
			return errors.New("it is not")
		}
		return nil
	})
	s.step("nobody asks again")
	s.eventually("it is deleted all the same",
		func(ctx context.Context) error { return checkTimelineWork(ctx, s.Cluster) })
	s.Fleet().Removed(ref.Timeline, ref.Tenant)
	s.step("the id is free again")
	s.timeline(0, 2, 0, two...)
	s.paidOff()
}

// archive archives a timeline or brings it back, and demands that it is that, on all
// shards, for the nodes that own them.
func (s *script) archive(n int, state neon.ArchivalState, shards ...neon.ShardID) {
	s.Helper()
	s.do("change what is archived", func(ctx context.Context, c *testcluster.Client) error {
		var null any
		path := fmt.Sprintf("/v1/tenant/%s/timeline/%s/archival_config", shards[0].Tenant,
			timelineOf(n))
		return c.Call(ctx, "PUT", path, neon.ArchivalRequest{State: state}, &null)
	})
	s.isArchived(n, state, shards...)
}

func (s *script) isArchived(n int, state neon.ArchivalState, shards ...neon.ShardID) {
	s.Helper()
	if err := s.Fleet().CheckArchived(timelineOf(n), state == neon.Archived,
		shards...); err != nil {
		s.Errorf("step %q: %v", s.step_, err)
	}
}

// offloadedTimelines waits until the first shard has offloaded so many timelines.
func (s *script) offloadedTimelines(want int) {
	s.Helper()
	s.eventually("timelines are offloaded", func(ctx context.Context) error {
		var got struct{ Timelines, Offloaded []any }
		err := s.Client().Call(ctx, "GET", "/v1/tenant/"+idOf(0).String()+"/timeline_and_offloaded",
			nil, &got)
		if err == nil && len(got.Offloaded) != want {
			err = fmt.Errorf("%d timelines are offloaded, want %d", len(got.Offloaded), want)
		}
		return err
	})
}

// offloadStory archives timelines on pageservers that offload by themselves, and
// brings them back at all moments of that.
func offloadStory(s *script) {
	two := []neon.ShardID{shardOf(0, 0, 2), shardOf(0, 1, 2)}
	s.create(0, 2, neon.Attached(1))
	s.timeline(0, 0, -1, two...)
	s.timeline(0, 1, 0, two...)
	s.timeline(0, 2, 0, two...)
	s.step("archive")
	s.archive(1, neon.Archived, two...)
	s.offloadedTimelines(1)
	s.step("archive it once more")
	s.archive(1, neon.Archived, two...)
	s.step("a shard moves")
	s.move(two[1], s.home(two[1])%3+1, immediately)
	s.rest()
	s.isArchived(1, neon.Archived, two...)
	s.step("bring it back")
	s.archive(1, neon.Unarchived, two...)
	for n := range 8 {
		s.step("to and fro")
		s.archive(1, neon.Archived, two...)
		s.pass(time.Duration(n) * 77 * time.Millisecond)
		s.archive(1, neon.Unarchived, two...)
	}
	s.step("delete one that is offloaded")
	s.archive(2, neon.Archived, two...)
	s.offloadedTimelines(1)
	s.deleteTimeline(0, 2)
	s.step("rest")
	s.rest()
	s.isArchived(1, neon.Unarchived, two...)
}

// checkTimelineWork demands that no import and no deletion is under way, but of
// tenants that are not attached: these wait until they are.
func checkTimelineWork(ctx context.Context, c *testcluster.Cluster) error {
	all, err := states(ctx, c)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range all {
		attached := func(id neon.TenantID) bool {
			t, _ := s.Tenant(id)
			return t.Policy.Kind == neon.PlaceAttached
		}
		for i := range s.Imports() {
			if !i.Finished && attached(i.Tenant) {
				errs = append(errs,
					fmt.Errorf("timeline %s is still being imported: %+v", i.Ref(), i.Shards))
			}
		}
		for d := range s.TimelineDeletes() {
			if attached(d.Tenant) {
				errs = append(errs, fmt.Errorf("timeline %s is still being deleted", d.Ref()))
			}
		}
	}
	return errors.Join(errs...)
}

// importLines are the imports of a tenant at the end of a story.
func importLines(s *fsm.State, id neon.TenantID) string {
	text := ""
	for i := range s.Imports() {
		if i.Tenant == id {
			text += fmt.Sprintf("  import of %s finished %v\n", i.Timeline, i.Finished)
		}
	}
	return text
}
