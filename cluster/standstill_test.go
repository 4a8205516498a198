package cluster

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const checkLimit = time.Second

// stuckMachine holds each Apply until its channel is closed.
type stuckMachine struct {
	Machine
	until chan struct{}
}

func (m stuckMachine) Apply(batch []Entry) []any {
	<-m.until
	return m.Machine.Apply(batch)
}

// TestNoServerThatWorksStandsStill asks a leader, followers, and one that has lost its
// majority, at rest and under work. A server whose disk hangs waits for it.
func TestNoServerThatWorksStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		check := func(when string) {
			t.Helper()
			for range 2 { // the first one has nothing to compare with
				for _, nd := range tr.nodes {
					if nd.Cluster == nil {
						continue
					}
					if err := nd.CheckProgress(checkLimit); err != nil {
						t.Errorf("%s: %s: %v", when, nd.cfg.ID, err)
					}
				}
			}
		}
		check("at the start")
		lead := tr.leader()
		check("with a leader")
		lead.mustPropose(t, "a")
		check("after a write")
		hung := tr.follower()
		hung.disk.Hang()
		lead.mustPropose(t, "b")
		time.Sleep(5 * time.Second)
		check("with a disk that hangs")
		hung.disk.Resume()
		for _, nd := range tr.nodes[1:] {
			_ = nd.kill()
		}
		time.Sleep(10 * time.Second)
		check("without a majority")
	})
}

func TestACallOfTheMachineThatDoesNotReturnIsAStandstill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 1)
		_ = tr.nodes[0].kill()
		until := make(chan struct{})
		c, err := Open(context.Background(), tr.nodes[0].cfg, stuckMachine{&ledger{}, until})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close(context.Background()) }()
		eventually(t, "a leader", c.IsLeader)
		first := c.CheckProgress(checkLimit)
		done := make(chan error, 1)
		go func() {
			_, err := c.Propose(context.Background(), []byte("a"))
			done <- err
		}()
		synctest.Wait()
		time.Sleep(time.Second)
		_ = c.CheckProgress(checkLimit)
		if err := c.CheckProgress(checkLimit); first != nil || !errors.Is(err, errStandstill) ||
			!strings.Contains(err.Error(), "state machine") {
			t.Errorf("first %v, then %v", first, err)
		}
		close(until)
		<-done
		if err := c.CheckProgress(checkLimit); err != nil {
			t.Errorf("after the call has returned: %v", err)
		}
	})
}

// TestAMainLoopThatDoesNothingIsAStandstill: unless the disk is to blame, or a snapshot
// is under way.
func TestAMainLoopThatDoesNothingIsAStandstill(t *testing.T) {
	var did activity
	term, turns, arrives, fit := uint64(1), false, false, true
	s := &standstill{
		fit: func() bool { return fit }, now: func() activity { return did },
		term: func() uint64 { return term },
		turn: func(time.Duration) bool {
			if arrives {
				did.bytes++
			}
			return turns
		},
	}
	if err := s.check(checkLimit); !errors.Is(err, errStandstill) {
		t.Errorf("a loop that does nothing: %v", err)
	}
	arrives = true
	if err := s.check(checkLimit); err != nil {
		t.Errorf("a snapshot arrives: %v", err)
	}
	arrives, turns = false, true
	if err := s.check(checkLimit); err != nil {
		t.Errorf("a loop that turns: %v", err)
	}
	turns, fit = false, false
	if err := s.check(checkLimit); err != nil {
		t.Errorf("a disk that hangs: %v", err)
	}
	term, fit = 0, true
	if err := s.check(checkLimit); err != nil {
		t.Errorf("before the first term: %v", err)
	}
}

func TestSnapshotsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 1)
		lead := tr.leader()
		lead.mustPropose(t, "a")
		before := lead.fsm.activity().bytes
		if err := lead.node.raft().Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		written := lead.fsm.activity().bytes
		if written <= before {
			t.Errorf("%d bytes before, %d after a snapshot was written", before, written)
		}
		r := countedReader{io.NopCloser(strings.NewReader("abc")), &lead.fsm.moved}
		if _, err := io.ReadAll(r); err != nil || lead.fsm.activity().bytes != written+3 {
			t.Errorf("%d bytes, %v", lead.fsm.activity().bytes, err)
		}
	})
}
