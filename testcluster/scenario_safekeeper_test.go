package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"quorate/api/neon"
	"quorate/testcluster"
)

func safekeeperStories() []scenario {
	b := testcluster.Builder{Pageservers: 2, Safekeepers: 4}
	return []scenario{
		{name: "timelines on safekeepers", builder: b, run: onSafekeepersStory},
		{name: "safekeeper down", builder: b, run: safekeeperDownStory},
		{name: "safekeeper membership", builder: b, run: membershipStory},
		{name: "safekeeper gone for good", builder: b, run: safekeeperGoneStory},
		{name: "safekeepers of a deleted tenant", builder: b, run: tenantOffSafekeepersStory},
	}
}

// placed creates a timeline through any replica, and demands that every answer names
// the safekeepers that the first one named (I30).
func (s *script) placed(tenant, n int) (set []neon.NodeID) {
	s.Helper()
	version := neon.PgVersion(16)
	req := neon.TimelineCreateRequest{
		Timeline: timelineOf(n), Bootstrap: &neon.TimelineBootstrap{PgVersion: &version},
	}
	for range 2 {
		s.do("create a timeline", func(ctx context.Context, c *testcluster.Client) error {
			resp, err := c.Timelines().Create(ctx, idOf(tenant), req)
			if err != nil {
				return err
			}
			var got []neon.NodeID
			for _, k := range resp.Safekeepers.Safekeepers {
				got = append(got, k.ID)
			}
			if set != nil && !slices.Equal(got, set) {
				s.Errorf("timeline %d was put on %v and now on %v", n, set, got)
			}
			set = got
			return nil
		})
	}
	return set
}

func (s *script) stopSafekeeper(id neon.NodeID) { s.Safekeepers().Node(id).Kill() }

func (s *script) startSafekeeper(id neon.NodeID) {
	s.Helper()
	if err := s.Safekeepers().Node(id).Start(); err != nil {
		s.Fatalf("step %q: %v", s.step_, err)
	}
}

// paidOff waits until safekeepers owe nothing and no timeline is moved.
func (s *script) paidOff() {
	s.Helper()
	s.eventually("safekeepers are as the log says",
		func(ctx context.Context) error { return checkSafekeepers(ctx, s.Cluster) })
}

func checkSafekeepers(ctx context.Context, c *testcluster.Cluster) error {
	all, err := states(ctx, c)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("no controller runs")
	}
	return c.CheckSafekeepers(all[0])
}

func onSafekeepersStory(s *script) {
	s.create(0, 2, neon.Attached(1))
	s.step("create")
	s.placed(0, 0)
	s.step("another")
	s.placed(0, 1)
	s.step("with replies lost")
	for _, n := range s.Safekeepers().Nodes() {
		n.LoseReplies(1)
	}
	s.placed(0, 2)
	s.step("delete")
	s.deleteTimeline(0, 1)
	s.step("gone")
	s.paidOff()
}

func safekeeperDownStory(s *script) {
	s.create(0, 0, neon.Attached(0))
	s.stopSafekeeper(2)
	s.step("one is down")
	s.placed(0, 0)
	s.step("it comes back")
	s.startSafekeeper(2)
	s.paidOff()
	s.stopSafekeeper(1)
	s.step("another is down")
	s.deleteTimeline(0, 0)
	s.step("after that")
	s.placed(0, 1)
	s.step("it comes back as well")
	s.startSafekeeper(1)
	s.paidOff()
}

func tenantOffSafekeepersStory(s *script) {
	for n := range 2 {
		s.create(n, 2, neon.Attached(0))
		s.placed(n, 2*n)
		s.placed(n, 2*n+1)
	}
	s.stopSafekeeper(3)
	s.step("delete a timeline, then its tenant")
	s.deleteTimeline(0, 1)
	s.deleteTenant(0)
	s.step("the last safekeeper")
	s.startSafekeeper(3)
	s.paidOff()
}

// safekeeperGoneStory loses a safekeeper for good. What it owes is waited for until an operator
// says so, and its id does not come back.
func safekeeperGoneStory(s *script) {
	s.create(0, 0, neon.Attached(0))
	s.create(1, 0, neon.Attached(0))
	s.step("create")
	set := s.placed(0, 0)
	s.placed(0, 1)
	s.placed(1, 2)
	lost := set[0]
	s.step("one is lost")
	s.stopSafekeeper(lost)
	s.do("decommission it", func(ctx context.Context, c *testcluster.Client) error {
		return c.Safekeepers().SetScheduling(ctx, lost, neon.SafekeeperDecomissioned)
	})
	s.step("timelines leave it")
	var rest []neon.NodeID
	for id := neon.NodeID(1); id <= 4; id++ {
		if id != lost {
			rest = append(rest, id)
		}
	}
	s.migrateSafekeepers(0, 0, rest...)
	s.deleteTimeline(0, 1)
	s.deleteTenant(1)
	s.step("it is gone")
	settle := func(ctx context.Context, c *testcluster.Client) error {
		return c.Safekeepers().Settle(ctx, lost)
	}
	s.do("declare it gone", settle)
	s.paidOff()
	s.step("it comes back")
	s.startSafekeeper(lost)
	s.do("declare it gone again", settle)
	err := s.Client().Safekeepers().SetScheduling(s.within(), lost, neon.SafekeeperActive)
	if err == nil {
		s.Errorf("a safekeeper that is gone is used again")
	}
	s.paidOff()
}

// walLines are the timelines of the end of a story, without what may differ.
func walLines(s *script, tenant neon.TenantID) string {
	all, err := states(s.within(), s.Cluster)
	if err != nil {
		s.Fatal(err)
	}
	text := ""
	for tl := range all[0].TenantTimelines(tenant) {
		text += fmt.Sprintf("  timeline %s on %d safekeepers settled %v\n", tl.ID, len(tl.Set),
			tl.MigrationDone())
	}
	return text
}

func (s *script) migrateSafekeepers(tenant, n int, set ...neon.NodeID) {
	s.Helper()
	s.do("move a timeline to other safekeepers",
		func(ctx context.Context, c *testcluster.Client) error {
			return c.Timelines().MigrateSafekeepers(ctx, idOf(tenant), timelineOf(n), set)
		})
}

// wal extends the log on some members of a timeline.
func (s *script) wal(tenant, n int, term uint64, on ...neon.NodeID) {
	s.Safekeepers().Append(neon.TimelineRef{Tenant: idOf(tenant), Timeline: timelineOf(n)}, term,
		1024, on...)
}

// membershipStory moves a timeline around, over a member that is behind, and takes a
// move back that cannot succeed.
func membershipStory(s *script) {
	s.create(0, 0, neon.Attached(0))
	s.step("create")
	first := s.placed(0, 0)
	s.wal(0, 0, 1, first...)
	var spare neon.NodeID
	for id := neon.NodeID(1); id <= 4; id++ {
		if !slices.Contains(first, id) {
			spare = id
		}
	}
	s.wal(0, 0, 2, first[1:]...) // the first one is behind
	s.step("replace one")
	s.migrateSafekeepers(0, 0, first[1], first[2], spare)
	s.step("and back")
	s.wal(0, 0, 3, first[1], spare)
	s.migrateSafekeepers(0, 0, first...)
	s.paidOff()
	s.stopSafekeeper(spare)
	s.step("to one that is down")
	err := s.Client().Timelines().MigrateSafekeepers(s.within(), idOf(0), timelineOf(0),
		[]neon.NodeID{first[0], first[1], spare})
	if err == nil {
		s.Errorf("moved to a safekeeper that is down")
	}
	s.step("taken back")
	s.do("abort", func(ctx context.Context, c *testcluster.Client) error {
		return c.Timelines().AbortSafekeepers(ctx, idOf(0), timelineOf(0))
	})
	s.startSafekeeper(spare)
	s.paidOff()
}
