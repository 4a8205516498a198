package cluster

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"quorate/internal/wait"
)

// slow takes time for what it applies, as a machine does that replays a long log.
type slow struct {
	*ledger
	each time.Duration // for an entry
}

func (s *slow) Apply(batch []Entry) []any {
	time.Sleep(s.each * time.Duration(len(batch)))
	return s.ledger.Apply(batch)
}

func (f *founders) startSlow(i int, each time.Duration) {
	nd := f.nodes[i]
	nd.machine = &ledger{}
	nd.cfg.Logger = nil
	c, err := Open(context.Background(), nd.cfg, &slow{nd.machine, each})
	if err != nil {
		f.t.Fatal(err)
	}
	nd.Cluster = c
}

// TestARestartIsNoRemoval: a cluster that was founded alone and grew is restarted as a whole.
// While the leader replays its log it has, for the machine, the membership of the founding.
func TestARestartIsNoRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := lone(t)
		defer f.stopAll()
		for range 200 {
			f.nodes[0].mustPropose(t, "a")
		}
		for i := 1; i <= 2; i++ {
			f.newcomer(i, "h0:1")
			if err := f.nodes[0].AddMember(t.Context(), f.nodes[i].member()); err != nil {
				t.Fatal(err)
			}
		}
		pass(t, 10*time.Second)
		for i := range 3 {
			f.stop(i, false)
		}
		for i := range 3 {
			f.startSlow(i, 10*time.Millisecond) // two seconds in all
		}
		replayed := false
		for range 1000 {
			time.Sleep(10 * time.Millisecond)
			for _, nd := range f.nodes {
				replayed = replayed || nd.node.leads() && !nd.leadership.opened()
				if why := nd.removal.reason(); why != "" {
					t.Fatalf("%s: %s", nd.cfg.ID, why)
				}
			}
		}
		if !replayed {
			t.Error("no leader was seen that had not applied its log yet")
		}
	})
}

// TestAMemberAgainIsNotRemoved: that the server is a member again may be learnt from the log
// alone, when the leader that added it has died.
func TestAMemberAgainIsNotRemoved(t *testing.T) {
	at, ids := uint64(5), []string{"a", "b"}
	told := 0
	r := &removal{
		id: "b", log: discardLogger(), members: func() (uint64, []string) { return at, ids },
		changed: func(bool) { told++ },
	}
	r.hear(peerReport{ID: "a", State: "Leader", MembersAt: 8, Members: []string{"a"}})
	if r.reason() == "" {
		t.Error("a removal was not noticed")
	}
	at = 9
	r.look()
	if why := r.reason(); why != "" || told != 2 {
		t.Errorf("a member of entry 9: %q, told %d times", why, told)
	}
}

// A voter is gone for good, and the disk of another one hangs for a moment now and then. The
// majority writes, but with the one that is gone: so that must be removable, or there is no way
// out: no other server can get a vote either.
func TestAMemberThatIsGoneIsRemovedBesideOneThatIsUnwell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &founders{startMemory(t, 3)}
		lead := f.leader()
		others := f.followers(lead)
		unwell, gone := f.nodes[others[0]], f.nodes[others[1]]
		f.stop(others[1], false)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		defer func() { cancel(); <-ended }()
		go func() {
			defer close(ended)
			for wait.Sleep(ctx, 500*time.Millisecond) == nil {
				unwell.disk.Hang()
				_ = wait.Sleep(ctx, 900*time.Millisecond)
				unwell.disk.Resume()
			}
		}()
		pass(t, 10*time.Second)
		lead.mustPropose(t, "the majority writes")
		if err := lead.RemoveMember(t.Context(), gone.cfg.ID); err != nil {
			t.Errorf("while all writes are acknowledged: %v", err)
		}
	})
}
