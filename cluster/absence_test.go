package cluster

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// spoken is what a server says, from INFO on.
type spoken struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *spoken) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

// take is what was said since it was last called.
func (s *spoken) take() (lines []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range strings.Lines(s.b.String()) {
		lines = append(lines, line)
	}
	s.b.Reset()
	return lines
}

// with counts the lines with a text.
func with(lines []string, text string) (n int) {
	for _, line := range lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// startSpoken starts a test cluster, and returns what each server says.
func startSpoken(t *testing.T, n int) (*trio, map[*node]*spoken) {
	tr := startMemory(t, n)
	said := make(map[*node]*spoken)
	for i, nd := range tr.nodes {
		_ = nd.kill()
		said[nd] = &spoken{}
		nd.cfg.Logger = slog.New(slog.NewTextHandler(said[nd], nil))
		tr.start(i)
	}
	tr.leader()
	return tr, said
}

// linesAMinute bounds what a server says in a minute about one member that is away.
const linesAMinute = 5

// TestADeadMemberIsFewLines: one warning, and one line when it is back.
func TestADeadMemberIsFewLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, said := startSpoken(t, 3)
		lead, dead := tr.leader(), tr.follower()
		time.Sleep(20 * time.Second)
		said[lead].take()
		tr.net.Kill(dead.cfg.RaftListen[:2])
		_ = dead.kill()
		for minute := range 5 {
			for range 60 {
				lead.mustPropose(t, "x")
				time.Sleep(time.Second)
			}
			lines := said[lead].take()
			warned := 0
			if minute == 0 {
				warned = 1
			}
			if len(lines) > linesAMinute || with(lines, "level=WARN") != warned ||
				with(lines, `level=WARN msg="a member is gone`) != warned {
				t.Errorf("minute %d: %d lines\n%s", minute, len(lines), strings.Join(lines, ""))
			}
			for _, nd := range tr.nodes {
				if lines := said[nd].take(); nd != lead && len(lines) > linesAMinute {
					t.Errorf("minute %d of another: %d lines\n%s", minute, len(lines),
						strings.Join(lines, ""))
				}
			}
		}
		tr.net.Host(dead.cfg.RaftListen[:2]) // it is there again
		tr.start(slices.Index(tr.nodes, dead))
		time.Sleep(time.Minute)
		lines := said[lead].take()
		if with(lines, `level=INFO msg="a member is back"`) != 1 || with(lines, "WARN") != 0 ||
			with(lines, "addr="+dead.cfg.RaftListen) != 1 || with(lines, "away=5m") != 1 {
			t.Errorf("when it is back:\n%s", strings.Join(lines, ""))
		}
		time.Sleep(5 * time.Minute)
		if lines := said[lead].take(); len(lines) > 0 {
			t.Errorf("afterwards:\n%s", strings.Join(lines, ""))
		}
	})
}

// TestAShortAbsenceIsNotToldOf: members are restarted.
func TestAShortAbsenceIsNotToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, said := startSpoken(t, 3)
		lead, other := tr.leader(), tr.follower()
		time.Sleep(20 * time.Second)
		said[lead].take()
		_ = other.kill()
		time.Sleep(absentAfter - 3*time.Second)
		tr.start(slices.Index(tr.nodes, other))
		time.Sleep(time.Minute)
		if lines := said[lead].take(); with(lines, "member") != 0 || with(lines, "WARN") != 0 {
			t.Errorf("%s", strings.Join(lines, ""))
		}
	})
}

// TestARemovedServerSaysSoOnce, is out of service, and asks for no votes.
func TestARemovedServerSaysSoOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, said := startSpoken(t, 3)
		lead, gone := tr.leader(), tr.follower()
		time.Sleep(20 * time.Second)
		if why := gone.OutOfService(); why != "" {
			t.Fatalf("out of service before: %s", why)
		}
		if err := lead.RemoveMember(context.Background(), gone.cfg.ID); err != nil {
			t.Fatal(err)
		}
		within(t, 5*time.Second, "it knows", func() bool {
			return strings.Contains(gone.OutOfService(), "removed from the cluster")
		})
		time.Sleep(10 * time.Second)
		lines := said[gone].take()
		if with(lines, "this server was removed from the cluster") != 1 ||
			with(lines, "level=WARN") != 1 {
			t.Errorf("it said:\n%s", strings.Join(lines, ""))
		}
		said[lead].take()
		term := lead.Status().Term
		time.Sleep(10 * time.Minute)
		for _, nd := range tr.nodes {
			if lines := said[nd].take(); len(lines) > linesAMinute {
				t.Errorf("%s said %d lines:\n%s", nd.cfg.ID, len(lines), strings.Join(lines, ""))
			}
			if nd != gone && nd.OutOfService() != "" {
				t.Errorf("%s is out of service: %s", nd.cfg.ID, nd.OutOfService())
			}
		}
		if lead.Status().Term != term || gone.candidacy.mayStand() {
			t.Error("it asks for votes")
		}
		// It learns it again after a restart.
		_ = gone.kill()
		gone = tr.start(slices.Index(tr.nodes, gone))
		within(t, 5*time.Second, "it knows", func() bool { return gone.OutOfService() != "" })
	})
}

func TestOnlyACommittedMembershipOfTheLeaderRemoves(t *testing.T) {
	var own uint64 = 5
	r := &removal{
		id: "c", members: func() (uint64, []string) { return own, []string{"a", "b", "c"} },
		log: discardLogger(), changed: func(bool) {},
	}
	for _, step := range []struct {
		what    string
		report  peerReport
		own     uint64
		removed bool
	}{
		{"a follower", peerReport{State: "Follower", MembersAt: 9, Members: []string{"a", "b"}}, 5, false},
		{"not committed", peerReport{State: "Leader"}, 5, false},
		{"older", peerReport{State: "Leader", MembersAt: 4, Members: []string{"a", "b"}}, 5, false},
		{"removed", peerReport{State: "Leader", MembersAt: 9, Members: []string{"a", "b"}}, 5, true},
		{"older again", peerReport{State: "Leader", MembersAt: 5, Members: []string{"c"}}, 5, true},
		{"added again", peerReport{State: "Leader", MembersAt: 12, Members: []string{"c"}}, 5, false},
		{"removed again", peerReport{State: "Leader", MembersAt: 15}, 5, true},
		{"added, by its own log", peerReport{State: "Leader", MembersAt: 15}, 16, false},
	} {
		own = step.own
		r.hear(step.report)
		if (r.reason() != "") != step.removed {
			t.Errorf("%s: %q", step.what, r.reason())
		}
	}
}
