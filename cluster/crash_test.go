package cluster

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

func TestDeathOfTheLeaderIsNoticedAtOnce(t *testing.T) {
	for _, writing := range []bool{false, true} {
		t.Run(fmt.Sprintf("writing=%v", writing), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var gaps []time.Duration
				for range 20 {
					tr := startMemory(t, 3)
					old := tr.leader()
					time.Sleep(2 * time.Second)
					if writing {
						for i := range 50 {
							go func() {
								_, _ = old.Propose(context.Background(),
									[]byte(seqRow(0, i)))
							}()
						}
					}
					began := time.Now()
					tr.net.Kill("h" + old.ID()[1:])
					eventually(t, "a write elsewhere", func() bool {
						for _, nd := range tr.nodes {
							if nd != old {
								if _, err := nd.Propose(context.Background(),
									[]byte("x")); err == nil {
									return true
								}
							}
						}
						return false
					})
					gaps = append(gaps, time.Since(began))
					tr.close()
				}
				slices.Sort(gaps)
				t.Logf("median %v, max %v", gaps[len(gaps)/2], gaps[len(gaps)-1])
				if gaps[len(gaps)-1] > 200*time.Millisecond {
					t.Errorf("took up to %v with a timeout of 500 ms", gaps[len(gaps)-1])
				}
			})
		})
	}
}

func TestALoneSuspicionDoesNotElect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		lead := tr.leader()
		time.Sleep(time.Second)
		term := lead.Status().Term
		f := tr.follower()
		// Only this follower believes it: the other one must stop it.
		s := suspicion{id: lead.ID(), addr: "h9:9", term: term}
		f.crash.investigate(context.Background(), s)
		time.Sleep(2 * time.Second)
		if lead.Status().Term != term || !lead.IsLeader() {
			t.Fatal("one follower's suspicion deposed a living leader")
		}
		if f.crash.count() != 0 {
			t.Fatal("it stood for election")
		}
	})
}

func TestDetectorLeavesLeadersAndOldNewsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		lead := tr.leader()
		f := tr.follower()
		for _, s := range []suspicion{
			{id: lead.ID(), addr: "h9:9", term: lead.Status().Term + 1},
			{id: "n9", addr: "h9:9", term: lead.Status().Term},
		} {
			f.crash.campaign(s)
			lead.crash.campaign(s)
		}
		if f.crash.count()+lead.crash.count() != 0 {
			t.Fatal("stood for election without cause")
		}
	})
}

// TestSilentLeaderIsReplacedAfterOneTimeout: whatever the moment is at which it falls silent,
// it takes one time-out, and not up to three as raft's own do.
func TestSilentLeaderIsReplacedAfterOneTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gaps []time.Duration
		for i := range 40 {
			tr := startMemory(t, 3)
			old := tr.leader()
			time.Sleep(settled + time.Second + time.Duration(i)*7*time.Millisecond)
			if i%2 == 0 {
				time.Sleep(steadyAfter + quietAfter)
			}
			began := time.Now()
			tr.net.Partition([]string{"h" + old.ID()[1:]})
			for !slices.ContainsFunc(tr.nodes,
				func(nd *node) bool { return nd != old && nd.IsLeader() }) {
				time.Sleep(time.Millisecond)
			}
			gaps = append(gaps, time.Since(began))
			tr.close()
		}
		timeout := Timeouts{}.withDefaults().Heartbeat
		slices.Sort(gaps)
		t.Logf("%v to %v, median %v", gaps[0], gaps[len(gaps)-1], gaps[len(gaps)/2])
		if most := gaps[len(gaps)-1]; most > timeout*3/2 {
			t.Errorf("took up to %v, the time-out is %v", most, timeout)
		}
	})
}

// TestANewLeaderIsLeftToRaft: leaders that stall do not follow each other at once.
func TestANewLeaderIsLeftToRaft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		old := tr.leader()
		time.Sleep(settled / 2)
		tr.net.Partition([]string{"h" + old.ID()[1:]})
		time.Sleep(10 * time.Second)
		for _, nd := range tr.nodes {
			if nd.crash.count() > 0 {
				t.Errorf("%s stood against a leader that was new", nd.ID())
			}
		}
		if lead := tr.leader(); lead == old {
			t.Error("nobody else leads")
		}
	})
}

// TestASilentLeaderThatIsHeardAgainStays: also if it is heard in the last moment.
func TestASilentLeaderThatIsHeardAgainStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		lead, f := tr.leader(), tr.follower()
		time.Sleep(settled + time.Second)
		s, silent := f.silence.suspect()
		if s.id != lead.ID() || silent > time.Second {
			t.Fatalf("it suspects %+v after %v", s, silent)
		}
		f.crash.stand(context.Background(), s)
		f.crash.campaign(s)
		if a := f.crash.testify(witnessQuestion{Leader: s.id, Term: s.term}); a.Proved {
			t.Error("it testifies to the silence of a leader that it hears")
		}
		time.Sleep(2 * time.Second)
		if !lead.IsLeader() || f.crash.count() != 0 {
			t.Error("a leader that was heard again was deposed")
		}
	})
}

// TestALeaderThatOneFollowerDoesNotHearStays: the other one hears it.
func TestALeaderThatOneFollowerDoesNotHearStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		lead, deaf := tr.leader(), tr.follower()
		time.Sleep(settled + time.Second)
		term := lead.Status().Term
		tr.net.Cut("h"+lead.ID()[1:], "h"+deaf.ID()[1:])
		time.Sleep(10 * time.Second)
		if !lead.IsLeader() || lead.Status().Term != term || deaf.crash.count() != 0 {
			t.Errorf("it leads: %v, in term %d after %d", lead.IsLeader(), lead.Status().Term, term)
		}
	})
}

func TestFrozenLeaderIsReplacedByTheTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		old := tr.leader()
		time.Sleep(time.Second)
		tr.net.Partition([]string{"h" + old.ID()[1:]})
		began := time.Now()
		eventually(t, "another leader", func() bool {
			for _, nd := range tr.nodes {
				if nd != old && nd.IsLeader() {
					return true
				}
			}
			return false
		})
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("took %v", took)
		}
		eventually(t, "the old leader knows", func() bool { return !old.IsLeader() })
		tr.net.Heal()
		if tr.leader(); old.node.raft().State() == raft.Leader {
			t.Error("the old leader came back")
		}
	})
}

// The child process of the kill test is one server with a real disk.
