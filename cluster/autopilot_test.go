package cluster

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestVotesAreGivenOnlyWhereTheyHelp(t *testing.T) {
	for _, tc := range []struct {
		census
		always, promotes, removes bool
	}{
		{census{voters: 1, live: 1, ready: 1}, true, false, false},
		{census{voters: 1, live: 1, ready: 2}, true, true, false},
		{census{voters: 2, live: 2, ready: 1}, true, true, false},
		{census{voters: 3, live: 3}, true, false, false},
		{census{voters: 3, live: 3, ready: 1}, true, false, false},
		{census{voters: 3, live: 3, ready: 2}, true, true, false},
		{census{voters: 3, live: 3, ready: 2}, false, false, false}, // votes were not asked for
		{census{voters: 4, live: 4, ready: 1}, true, true, false},
		// Three, one of which is gone: a learner takes its place.
		{census{voters: 3, live: 2, gone: 1}, false, false, false},
		{census{voters: 3, live: 2, gone: 1, ready: 1}, false, true, false},
		{census{voters: 4, live: 3, gone: 1}, false, false, true},
		{census{voters: 4, live: 3, gone: 1, ready: 1}, false, false, true},
		{census{voters: 5, live: 4, gone: 1}, false, false, true},
		{census{voters: 5, live: 3, gone: 2}, false, false, true},
		{census{voters: 4, live: 2, gone: 1}, false, false, true}, // the other is not gone for long
		{census{voters: 5, live: 2, gone: 3}, false, false, false},
	} {
		if got := tc.census.promotes(tc.always); got != tc.promotes {
			t.Errorf("%+v always %v: promotes %v", tc.census, tc.always, got)
		}
		if got := tc.census.removes(); got != tc.removes {
			t.Errorf("%+v: removes %v", tc.census, got)
		}
	}
}

// grown is a cluster of so many voters that removes who is gone for a minute.
func grown(t *testing.T, voters int) *founders {
	f := newFounders(t)
	for i := range f.nodes {
		f.nodes[i].cfg.RemoveAfter = time.Minute
		f.start(i)
	}
	lead := f.leader()
	for i := 3; i < voters; i++ {
		late := f.empty(i, "h0:1", "h1:1", "h2:1")
		late.cfg.RemoveAfter = time.Minute
		f.start(i)
		if err := lead.AddMember(t.Context(), late.member()); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// stopFollower kills a follower and returns its id.
func (f *founders) stopFollower() string {
	lead := f.leader()
	for i, nd := range f.nodes {
		if nd != lead && nd.Cluster != nil {
			f.stop(i, false)
			return nd.cfg.ID
		}
	}
	f.t.Fatal("no follower is left")
	return ""
}

func TestMembersThatAreGoneAreRemovedDownToThree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := grown(t, 5)
		defer f.stopAll()
		for left := 4; left >= 3; left-- {
			id := f.stopFollower()
			pass(t, 50*time.Second)
			if got := f.memberIDs(); !slices.Contains(got, id) {
				t.Errorf("%s was removed early", id)
			}
			pass(t, 15*time.Second)
			if got := f.memberIDs(); len(got) != left || slices.Contains(got, id) {
				t.Errorf("without %s the voters are %v", id, got)
			}
		}
		f.stopFollower()
		pass(t, 10*time.Minute)
		if got := f.memberIDs(); len(got) != 3 {
			t.Errorf("the voters are %v", got)
		}
		f.leader().mustPropose(t, "a")
	})
}

func TestAMemberThatComesBackInTimeStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := grown(t, 4)
		defer f.stopAll()
		for range 3 {
			id := f.stopFollower()
			pass(t, 40*time.Second)
			f.start(slices.IndexFunc(f.nodes, func(nd *node) bool { return nd.cfg.ID == id }))
			pass(t, 40*time.Second)
		}
		if got := f.memberIDs(); len(got) != 4 {
			t.Errorf("the voters are %v", got)
		}
	})
}

func TestAStandbyTakesThePlaceOfAMemberThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := grown(t, 3)
		defer f.stopAll()
		late := f.newcomer(3, "h0:1", "h1:1", "h2:1")
		if err := f.leader().AddStandby(t.Context(), late.member()); err != nil {
			t.Fatal(err)
		}
		pass(t, 2*time.Minute)
		if got := f.memberIDs(); len(got) != 3 {
			t.Errorf("while all are there the voters are %v", got)
		}
		gone := ""
		for gone == "" || gone == "n3" {
			gone = f.stopFollower()
		}
		pass(t, 2*time.Minute)
		got := f.memberIDs()
		if len(got) != 3 || slices.Contains(got, gone) || !slices.Contains(got, "n3") {
			t.Errorf("after %s was gone the voters are %v", gone, got)
		}
	})
}

// While the leader was frozen, perhaps with all others, nobody was missed.
func TestAFrozenLeaderHoldsNoAbsenceAgainstMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		lead, other := tr.leader(), tr.follower()
		a := &autopilot{node: lead.node, peers: lead.peers, removeAfter: time.Minute}
		id := other.cfg.ID
		_ = other.kill()
		pass(t, 2*missedAfter)
		for range 50 {
			a.look()
			pass(t, time.Second)
		}
		if a.gone(id) {
			t.Error("gone before its time")
		}
		pass(t, time.Minute) // no look meanwhile
		if a.look(); a.gone(id) {
			t.Error("a pause between two looks counts as absence")
		}
		for range 60 {
			pass(t, time.Second)
			a.look()
		}
		if !a.gone(id) {
			t.Error("it is never gone")
		}
	})
}
