package testcluster_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/client"
	"quorate/testcluster"
	"quorate/testcluster/spoil"
)

// foundWithin bounds how long a state that differs may go unnoticed: two reports, and
// what it takes to ask all replicas.
const foundWithin = 3 * time.Second

// spoiled are controllers of which the test spoils some.
type spoiled struct {
	*testing.T
	*testcluster.Cluster
	ctx context.Context
}

// wrong reports whether a controller answers what only a spoiled state says.
func (s *spoiled) wrong(i int) (bool, error) {
	_, err := s.ClientOf(i).WithTryTimeout(5*time.Second).Nodes().Get(s.ctx, spoil.Node)
	if client.StatusOf(err) == http.StatusNotFound {
		return false, nil
	}
	return err == nil, err
}

// outOfService reports whether a controller says that it is.
func (s *spoiled) outOfService(i int) bool {
	err := s.ClientOf(i).Cluster().Ready(s.ctx)
	return client.StatusOf(err) == http.StatusServiceUnavailable &&
		strings.Contains(err.Error(), "out of service: its state at index")
}

func (s *spoiled) must(what string, err error) {
	s.Helper()
	if err != nil {
		s.Fatalf("%s: %v", what, err)
	}
}

// until waits for a condition.
func (s *spoiled) until(limit time.Duration, what string, condition func() bool) {
	s.Helper()
	begun := time.Now()
	for !condition() {
		if time.Since(begun) > limit {
			s.Fatalf("not within %s: %s", limit, what)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-s.ctx.Done():
			s.Fatalf("%s: %v", what, s.ctx.Err())
		}
	}
	s.Logf("%s: after %s", what, time.Since(begun).Round(time.Millisecond))
}

// spoil alters the state of a controller, and demands that it shows.
func (s *spoiled) spoil(i int) {
	s.Helper()
	s.must("spoil", s.SpoilState(i))
	if wrong, err := s.wrong(i); !wrong {
		s.Fatalf("the spoiled controller %d does not show it: %v", i, err)
	}
}

// found reports whether a controller has said in its log that it is out of service.
func (s *spoiled) found(i int) bool {
	return strings.Contains(s.Log(i), "ERROR this replica is out of service")
}

// victim picks the leader or a follower.
func (s *spoiled) victim(leads bool) (i int) {
	s.Helper()
	i, err := s.WaitLeader(s.ctx)
	if err == nil && !leads {
		i, err = s.Follower(s.ctx)
	}
	s.must("pick a controller", err)
	return i
}

// demandSilence demands that a controller that was found answers nothing from its own
// state and does not lead, until it is back in service.
func (s *spoiled) demandSilence(bad int) {
	s.Helper()
	asked := 0
	for ; s.outOfService(bad); asked++ {
		if wrong, _ := s.wrong(bad); wrong { // there may be no leader for a moment
			s.Fatal("a wrong answer after it was found")
		}
		// It may have come back into service since it was asked, and lead rightly.
		if now, ok := s.Leader(s.ctx); ok && now == bad && s.outOfService(bad) {
			s.Fatal("it leads")
		}
		<-time.After(5 * time.Millisecond)
	}
	s.Logf("asked %d times while it was out of service", asked)
}

// atPeace demands that all are in service soon, and that none is wrong then.
func (s *spoiled) atPeace() {
	s.Helper()
	s.until(30*time.Second, "all in service and right", func() bool {
		for i := range s.Controllers() {
			wrong, err := s.wrong(i)
			if wrong || err != nil || s.ClientOf(i).Cluster().Ready(s.ctx) != nil {
				return false
			}
		}
		return true
	})
	atRest(s.T, s.ctx, s.Cluster)
}

// TestASpoiledReplicaAnswersNothingOnceItIsFound, whether it follows or leads: the
// leader answers for it, it does not lead, is not ready, says why, and gets the state of
// the others.
func TestASpoiledReplicaAnswersNothingOnceItIsFound(t *testing.T) {
	for name, leads := range map[string]bool{"follower": false, "leader": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := startSpoiled(t, testcluster.Builder{Mode: testcluster.Virtual})
				bad := s.victim(leads)
				s.spoil(bad)
				// It may be back in service at the next report, in the same instant.
				s.until(foundWithin, "found", func() bool { return s.found(bad) })
				s.demandSilence(bad)
				s.atPeace()
				s.must("equal states", checkReplicas(s.ctx, s.Cluster))
			})
		})
	}
}

// TestTwoThatDifferAnswerNothing while one of three is away, so that it is not known
// which of them is right. Both states stay as they are.
func TestTwoThatDifferAnswerNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startSpoiled(t, testcluster.Builder{Mode: testcluster.Virtual})
		away := s.victim(false)
		s.must("kill a follower", s.Kill(away))
		bad := s.victim(false)
		s.spoil(bad)
		lead := s.victim(true)
		s.until(foundWithin, "found", func() bool {
			return s.outOfService(bad) && s.outOfService(lead)
		})
		for begun := time.Now(); time.Since(begun) < 10*time.Second; {
			for _, i := range []int{bad, lead} {
				if wrong, err := s.wrong(i); wrong || err == nil {
					t.Fatalf("controller %d answers: wrong %v", i, wrong)
				}
				if !s.outOfService(i) {
					t.Fatalf("controller %d is back in service", i)
				}
			}
			<-time.After(50 * time.Millisecond)
		}
		s.must("restart", s.Restart(s.ctx, away))
		s.atPeace()
		s.must("equal states", checkReplicas(s.ctx, s.Cluster))
	})
}

// TestTheLeaderDiesWhileAReplicaIsSpoiled, or is the spoiled one, at many moments. It
// comes back three seconds later. The cluster finds who is wrong as soon as it has three
// opinions again.
func TestTheLeaderDiesWhileAReplicaIsSpoiled(t *testing.T) {
	for name, leads := range map[string]bool{"follower": false, "leader": true} {
		t.Run(name, func(t *testing.T) {
			for pause := time.Duration(0); pause < 3*time.Second; pause += 300 * time.Millisecond {
				synctest.Test(t, func(t *testing.T) {
					s := startSpoiled(t, testcluster.Builder{Mode: testcluster.Virtual})
					s.spoil(s.victim(leads))
					<-time.After(pause)
					killed, err := s.KillLeader(s.ctx)
					s.must("kill the leader", err)
					<-time.After(3 * time.Second)
					s.must("restart it", s.Restart(s.ctx, killed))
					s.atPeace()
					s.must("equal states", checkReplicas(s.ctx, s.Cluster))
				})
			}
		})
	}
}

func startSpoiled(t *testing.T, b testcluster.Builder) *spoiled {
	b.Controllers, b.Pageservers, b.Zones, b.Hook = 3, 4, 2, true
	s := &spoiled{T: t, ctx: within(t, 10*time.Minute)}
	s.Cluster = testcluster.Run(t, b)
	create(t, s.ctx, s.Cluster, 4, 2, 1)
	atRest(t, s.ctx, s.Cluster)
	return s
}

// TestSpoiledProcessesAreMended spoils a process that follows, then the one that leads,
// and kills the leader as soon as that was found.
func TestSpoiledProcessesAreMended(t *testing.T) {
	s := startSpoiled(t, testcluster.Builder{
		Mode: testcluster.Processes, Binary: build(t, "./testcontroller"), DiskFaults: true,
	})
	for _, leads := range []bool{false, true} {
		bad := s.victim(leads)
		before := s.replaced(bad)
		s.must("spoil", s.SpoilState(bad))
		s.until(20*time.Second, "found", func() bool { return s.replaced(bad) > before })
		killed, err := s.KillLeader(s.ctx)
		s.must("kill the leader", err)
		if leads && killed == bad {
			t.Error("it leads after it was found")
		}
		s.demandSilence(bad)
		s.must("restart it", s.Restart(s.ctx, killed))
		s.atPeace()
		for i := range s.Controllers() {
			s.demandEqual(i)
		}
	}
}

// replaced is how often a process got the state of another.
func (s *spoiled) replaced(i int) (n int) {
	s.Helper()
	for line := range strings.Lines(textAt(s.T, s.ctx, s.URL(i)+"metrics")) {
		if count, ok := strings.CutPrefix(line, "storage_controller_raft_states_replaced "); ok {
			n, _ = strconv.Atoi(strings.TrimSpace(count))
			return n
		}
	}
	s.Fatal("no series says how often the state was replaced")
	return 0
}

// demandEqual demands that a controller says that all states are equal.
func (s *spoiled) demandEqual(i int) {
	s.Helper()
	s.until(10*time.Second, "all equal", func() bool {
		view, err := s.ClientOf(i).Cluster().Members(s.ctx)
		equal := 0
		for _, m := range view.Members {
			if m.Equality == "equal" {
				equal++
			}
		}
		return err == nil && equal == s.Controllers()
	})
}
