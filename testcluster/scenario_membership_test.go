package testcluster_test

import (
	"context"
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/testcluster"
)

// migrationPlaces are where a move of a timeline between safekeepers can be held, in
// the order in which it passes them. Until commitPlace it can be taken back.
var migrationPlaces = []string{
	"sk-migration-after-step-3", "sk-migration-after-step-4", "sk-migration-after-step-5",
	"sk-migration-after-step-7",
	commitPlace, "sk-migration-step-9-after-set-membership", "sk-migration-step-9-mid-exclude",
	"sk-migration-step-9-after-exclude", "sk-migration-after-step-9",
}

const commitPlace = "sk-migration-after-step-8"

// ending is what comes to a move that is held.
type ending struct {
	dies   bool // the leader
	aborts bool // the client that asked for it
}

func heldMembershipStories() []scenario {
	b := testcluster.Builder{Pageservers: 2, Safekeepers: 5, Failpoints: true}
	var all []scenario
	for name, e := range map[string]ending{
		"safekeeper membership failing at each place":                {},
		"safekeeper membership with the leader killed at each place": {dies: true},
		"safekeeper membership aborted at each place":                {aborts: true},
		"safekeeper membership aborted after the leader was killed at each place": {
			dies: true, aborts: true,
		},
	} {
		all = append(all,
			scenario{name: name, builder: b, run: func(s *script) { heldMembershipStory(s, e) }})
	}
	return all
}

// at sets what happens at a place in every controller that runs.
func (s *script) at(place, actions string) {
	s.Helper()
	for i := range s.Controllers() {
		if !s.Running(i) {
			continue
		}
		if err := s.ClientOf(i).Debug().SetFailpoint(s.within(), place, actions); err != nil {
			s.Fatalf("step %q: %s: %v", s.step_, place, err)
		}
	}
}

// wherever is the configuration of a timeline in the log.
func (s *script) wherever(tenant, n int) (tl fsm.Timeline) {
	s.Helper()
	all, err := states(s.within(), s.Cluster)
	if err != nil {
		s.Fatal(err)
	}
	tl, ok := all[0].Timeline(idOf(tenant), timelineOf(n))
	if !ok {
		s.Fatalf("step %q: timeline %d is on no safekeepers", s.step_, n)
	}
	return tl
}

// heldMembershipStory replaces two of three safekeepers of a timeline, once for each
// place. There the move fails or is held; what is asked for afterwards has to come
// true, from wherever the move was left.
func heldMembershipStory(s *script, e ending) {
	s.create(0, 0, neon.Attached(0))
	now := s.placed(0, 0)
	for i, place := range migrationPlaces {
		s.step(place)
		s.revive()
		s.wal(0, 0, uint64(i+1), now...)
		next := []neon.NodeID{now[0]}
		for id := neon.NodeID(1); id <= 5; id++ {
			if !slices.Contains(now, id) {
				next = append(next, id)
			}
		}
		s.migrateHeld(place, next, e)
		s.afterHeld(place, e, now, next)
		if now = s.wherever(0, 0).Set; !e.aborts && !slices.Equal(now, next) {
			s.Errorf("at %s: the timeline is on %v, not on %v", place, now, next)
		}
		s.paidOff()
	}
}

// migrateHeld asks the leader for a move that does not get beyond a place, and lets
// the leader die there where that is the story. It returns when no leader carries out
// that request any more.
func (s *script) migrateHeld(place string, to []neon.NodeID, e ending) {
	s.Helper()
	action := "return"
	if e.dies {
		action = "pause"
	}
	leader, err := s.WaitLeader(s.within())
	if err != nil {
		s.Fatal(err)
	}
	s.at(place, action)
	answered := make(chan error, 1)
	ctx, client := s.within(), s.ClientOf(leader)
	go func() {
		answered <- client.Timelines().MigrateSafekeepers(ctx, idOf(0), timelineOf(0),
			to)
	}()
	if e.dies {
		s.pass(maxMoment)
		if s.kill == never && len(answered) > 0 {
			s.Errorf("the request was not held at %s: %v", place, <-answered)
		}
		s.revive()
		s.killLeader()
	}
	if err := <-answered; err == nil {
		s.Errorf("the request got beyond %s", place)
	}
	s.revive()
	s.at(place, "off")
}

// afterHeld asks for what should become of a move.
func (s *script) afterHeld(place string, e ending, from, to []neon.NodeID) {
	s.Helper()
	if !e.aborts {
		s.migrateSafekeepers(0, 0, to...)
		return
	}
	before := s.wherever(0, 0)
	s.do("abort", func(ctx context.Context, c *testcluster.Client) error {
		return c.Timelines().AbortSafekeepers(ctx, idOf(0), timelineOf(0))
	})
	tl := s.wherever(0, 0)
	stays, moved := slices.Equal(tl.Set, from), slices.Equal(tl.Set, to)
	switch committed := slices.Index(migrationPlaces,
		place) >= slices.Index(migrationPlaces, commitPlace); {
	case tl.Joint() || !stays && !moved:
		s.Errorf("after an abort at %s the timeline is on %v and %v", place, tl.Set, tl.NewSet)
	case !before.Joint() && !slices.Equal(before.Set, tl.Set):
		s.Errorf("an abort at %s took back what was committed: %v, now %v", place, before.Set,
			tl.Set)
	case s.kill == never && !e.dies && stays == committed:
		s.Errorf(
			"after an abort at %s the timeline is on %v; it was on %v, and should have gone to %v",
			place, tl.Set, from, to)
	}
}
