package leadership

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api"
	"quorate/api/neon"
	"quorate/cluster"
	"quorate/fsm"
	"quorate/internal/wait"
)

// member is a Raft member that a test turns into a leader, or tells of one.
type member struct {
	changed wait.Broadcast

	mu          sync.Mutex
	leader      cluster.LeaderInfo
	transferErr error
}

func (m *member) ID() string { return "self" }

func (m *member) IsLeader() bool { info, _ := m.Leader(); return info.ID == "self" }

func (m *member) Leader() (cluster.LeaderInfo, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leader, m.leader.ID != ""
}

func (m *member) LeaderChanged() <-chan struct{} { return m.changed.Changed() }

func (m *member) Leaderless() string {
	if m.leader.ID != "" {
		return ""
	}
	return "nobody leads"
}

func (m *member) TransferLeadership(context.Context, string) error { return m.transferErr }

// follow makes the member know another leader.
func (m *member) follow(id, address string) {
	m.mu.Lock()
	m.leader = cluster.LeaderInfo{ID: id, HTTPAddr: address}
	m.mu.Unlock()
	m.changed.Notify()
}

// next is a successor that a test names.
type next struct {
	changed wait.Broadcast

	mu            sync.Mutex
	name, address string
	expected      bool
}

func (n *next) Current() (name, address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.name, n.address
}

func (n *next) Expected() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.expected
}

func (n *next) Changed() <-chan struct{} { return n.changed.Changed() }

func (n *next) set(name, address string, expected bool) {
	n.mu.Lock()
	n.name, n.address, n.expected = name, address, expected
	n.mu.Unlock()
	n.changed.Notify()
}

// logged is a log that names leaders and where they are.
type logged struct {
	changed wait.Broadcast

	mu    sync.Mutex
	state fsm.State
}

func (l *logged) State() *fsm.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.state
	return &s
}

func (l *logged) Changed() <-chan struct{} { return l.changed.Changed() }

func (l *logged) lead(id, address string) {
	l.mu.Lock()
	l.state.Leader = fsm.Leader{ServerID: id, Address: address}
	l.mu.Unlock()
	l.changed.Notify()
}

// scene runs a test in virtual time, in which the log says that "b" has led at
// http://logged.
func scene(
	t *testing.T, give func(context.Context) error, test func(*testing.T, *member, *Leadership),
) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m, log := &member{}, &logged{}
		log.lead("b", "http://logged/")
		l := New(Options{
			Cluster: m, Log: log, Give: give,
			Logger: slog.New(slog.DiscardHandler),
		})
		test(t, m, l)
		l.Wait()
	})
}

func TestLeaderIsAwaitedUntilItsAddressIsKnown(t *testing.T) {
	scene(t, nil, func(t *testing.T, m *member, l *Leadership) {
		time.AfterFunc(time.Second, func() { m.follow("a", "") })
		time.AfterFunc(3*time.Second, func() { m.follow("a", "http://a/") })
		begun := time.Now()
		address, self, err := l.Leader(t.Context())
		if address != "http://a" || self || err != nil {
			t.Errorf("%q, self %v, %v", address, self, err)
		}
		if took := time.Since(begun); took != 3*time.Second {
			t.Errorf("the answer came after %s", took)
		}
	})
}

func TestLogTellsTheAddressOfALeaderThatHasLedBefore(t *testing.T) {
	scene(t, nil, func(t *testing.T, m *member, l *Leadership) {
		m.follow("b", "")
		if address, _, err := l.Leader(t.Context()); address != "http://logged" || err != nil {
			t.Errorf("%q, %v", address, err)
		}
	})
}

func TestLeaderIsFoundOnceTheLogNamesItsAddress(t *testing.T) {
	scene(t, nil, func(t *testing.T, m *member, l *Leadership) {
		m.follow("c", "")
		time.AfterFunc(time.Second, func() { l.log.(*logged).lead("c", "http://c/") })
		begun := time.Now()
		if address, _, err := l.Leader(t.Context()); address != "http://c" || err != nil ||
			time.Since(begun) != time.Second {
			t.Errorf("%q, %v after %s", address, err, time.Since(begun))
		}
	})
}

func TestReplicaThatRetiresMeanwhileNamesItsSuccessor(t *testing.T) {
	scene(t, nil, func(t *testing.T, m *member, l *Leadership) {
		m.follow("a", "") // its address is not known
		forwarded, stop := l.While(t.Context(), "http://a")
		defer stop()
		after := &next{expected: true}
		time.AfterFunc(time.Second, func() { l.Retire(after) })
		time.AfterFunc(2*time.Second, func() { after.set("n", "http://n/", true) })
		if address, _, err := l.Leader(t.Context()); address != "http://n" || err != nil {
			t.Errorf("%q, %v", address, err)
		}
		if !errors.Is(context.Cause(forwarded), errLeaderGone) {
			t.Errorf("the request to the leader of before: %v", context.Cause(forwarded))
		}
	})
}

func TestLeaderIsThisReplicaOnceItLeads(t *testing.T) {
	scene(t, nil, func(t *testing.T, m *member, l *Leadership) {
		m.follow("self", "")
		if _, self, err := l.Leader(t.Context()); !self || err != nil || !l.IsLeader() {
			t.Errorf("self %v, leads %v, %v", self, l.IsLeader(), err)
		}
	})
}

func TestNoLeaderInTimeIsUnavailable(t *testing.T) {
	scene(t, nil, func(t *testing.T, _ *member, l *Leadership) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := l.Leader(ctx); neon.CodeOf(err) != neon.Unavailable {
			t.Errorf("without a leader: %v", err)
		}
	})
}

func TestRetiredReplicaNamesItsSuccessor(t *testing.T) {
	scene(t, nil, func(t *testing.T, m *member, l *Leadership) {
		m.follow("self", "")
		after := &next{}
		l.Retire(after)
		if l.IsLeader() {
			t.Error("it still leads")
		}
		if _, _, err := l.Leader(t.Context()); !errors.Is(err, api.ErrSteppedDown) {
			t.Errorf("without a successor: %v", err)
		}
		after.set("", "", true)
		time.AfterFunc(time.Second, func() { after.set("n", "http://n/", true) })
		if address, self, err := l.Leader(t.Context()); address != "http://n" || self || err != nil {
			t.Errorf("%q, self %v, %v", address, self, err)
		}
	})
}

func TestForwardedRequestEndsWhenItsLeaderLeadsNoMore(t *testing.T) {
	scene(t, nil, func(t *testing.T, m *member, l *Leadership) {
		m.follow("a", "http://a")
		ofA, stopA := l.While(t.Context(), "http://a")
		defer stopA()
		time.Sleep(time.Minute)
		if ofA.Err() != nil {
			t.Fatalf("it ended under its leader: %v", context.Cause(ofA))
		}
		m.follow("b", "http://b")
		ofB, stopB := l.While(t.Context(), "http://b")
		defer stopB()
		synctest.Wait()
		if !errors.Is(context.Cause(ofA), errLeaderGone) || ofB.Err() != nil {
			t.Errorf("the request to the old leader: %v, to the new one: %v",
				context.Cause(ofA), context.Cause(ofB))
		}
	})
}

func TestRequestWithoutALeaderEndsAtOnce(t *testing.T) {
	scene(t, nil, func(t *testing.T, _ *member, l *Leadership) {
		ctx, stop := l.While(t.Context(), "http://gone")
		defer stop()
		if !errors.Is(context.Cause(ctx), errLeaderGone) {
			t.Errorf("cause %v", context.Cause(ctx))
		}
	})
}

func TestTransferTellsWhetherAnotherReplicaCanLead(t *testing.T) {
	for transferErr, want := range map[error]neon.Code{
		cluster.ErrPeerUnreachable: neon.Unavailable, errors.New("odd"): neon.Unavailable,
	} {
		scene(t, nil, func(t *testing.T, m *member, l *Leadership) {
			m.follow("self", "")
			m.transferErr = transferErr
			if _, err := l.StepDown(t.Context()); neon.CodeOf(err) != want ||
				!errors.Is(err, transferErr) {
				t.Errorf("%v became %v", transferErr, err)
			}
		})
	}
	scene(t, nil, func(t *testing.T, m *member, l *Leadership) {
		m.follow("self", "")
		m.transferErr = cluster.ErrNotLeader // another one leads already
		if _, err := l.StepDown(t.Context()); err != nil {
			t.Errorf("stepping down without leading: %v", err)
		}
	})
}
