package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

func TestOneVoterProposesAndReads(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *trio{
		"memory": func(t testing.TB) *trio { return startMemory(t, 1) },
		"tcp":    func(t testing.TB) *trio { return startTCP(t, 1, Timeouts{}) },
	} {
		t.Run(name, func(t *testing.T) {
			tr := start(t)
			nd := tr.leader()
			got, err := nd.Propose(context.Background(), []byte("a"))
			if err != nil || got != 1 {
				t.Fatalf("got %v, %v", got, err)
			}
			if err := nd.ReadBarrier(context.Background()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestAcknowledgedWritesAreSeenByTheNextReadOnEveryReplica(t *testing.T) {
	tr := startTCP(t, 3, Timeouts{})
	lead := tr.leader()
	ctx := context.Background()
	var slowest time.Duration
	for i := range 100 {
		row := seqRow(0, i)
		lead.mustPropose(t, row)
		for _, nd := range tr.nodes {
			began := time.Now()
			if err := nd.ReadBarrier(ctx); err != nil {
				t.Fatal(err)
			}
			slowest = max(slowest, time.Since(began))
			if nd.machine.count(row) != 1 {
				t.Fatalf("%s read %q %d times after its barrier", nd.ID(), row,
					nd.machine.count(row))
			}
		}
	}
	t.Logf("slowest barrier %v", slowest)
}

func TestWritesSurviveTheLeaderAndAreNeverAppliedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		tr.leader()
		var mu sync.Mutex
		acked := make(map[string]bool)
		nothing := make(map[string]bool)
		ctx, cancel := context.WithCancel(context.Background())
		nodes := []*Cluster{tr.nodes[0].Cluster, tr.nodes[1].Cluster, tr.nodes[2].Cluster}
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for seq := 0; ctx.Err() == nil; seq++ {
					row := seqRow(w, seq)
					_, err := nodes[seq%3].Propose(ctx, []byte(row))
					mu.Lock()
					switch {
					case err == nil:
						acked[row] = true
					case !errors.Is(err, ErrOutcomeUnknown):
						nothing[row] = true
					}
					mu.Unlock()
					time.Sleep(time.Millisecond)
				}
			})
		}
		time.Sleep(time.Second)
		dead := tr.leader()
		tr.net.Kill(dead.cfg.RaftListen[:2])
		_ = dead.kill()
		tr.leader()
		time.Sleep(time.Second)
		cancel()
		wg.Wait()
		lead := tr.leader()
		if err := lead.ReadBarrier(context.Background()); err != nil {
			t.Fatal(err)
		}
		rows := lead.machine.all()
		if twice := repeated(rows); len(twice) > 0 {
			t.Fatalf("applied twice: %v", twice)
		}
		have := make(map[string]bool)
		for _, r := range rows {
			have[r] = true
			if nothing[r] {
				t.Errorf("%q was applied though its proposal said nothing happened", r)
			}
		}
		for r := range acked {
			if !have[r] {
				t.Errorf("acknowledged %q is lost", r)
			}
		}
		if len(acked) < 1000 {
			t.Errorf("only %d writes were acknowledged", len(acked))
		}
	})
}

func TestProposeOnAFollowerSaysNothingHappened(t *testing.T) {
	tr := startMemory(t, 3)
	_, err := tr.follower().Propose(context.Background(), []byte("x"))
	if !errors.Is(err, ErrNotLeader) || errors.Is(err, ErrOutcomeUnknown) {
		t.Fatalf("got %v", err)
	}
}

// TestLeaderChangedMissesNothing: a waiter looks again only when told to.
func TestLeaderChangedMissesNothing(t *testing.T) {
	tr := startMemory(t, 3)
	await := func(nd *node, what string, ok func() bool) {
		t.Helper()
		limit := time.After(15 * time.Second)
		for {
			changed := nd.LeaderChanged()
			if ok() {
				return
			}
			select {
			case <-changed:
			case <-limit:
				t.Fatalf("%s does not hear of %s", nd.ID(), what)
			}
		}
	}
	for _, nd := range tr.nodes {
		await(nd, "a leader and its address", func() bool {
			l, ok := nd.Leader()
			return ok && l.HTTPAddr != ""
		})
	}
	dead, other := tr.leader(), tr.follower()
	id := dead.ID()
	if err := dead.kill(); err != nil {
		t.Fatal(err)
	}
	await(other, "the next leader", func() bool {
		l, ok := other.Leader()
		return ok && l.ID != id && l.HTTPAddr != ""
	})
	lead := tr.leader()
	handed := make(chan error, 1)
	go func() { handed <- lead.TransferLeadership(context.Background(), "") }()
	await(lead, "the end of its lead", func() bool { return !lead.IsLeader() })
	if err := <-handed; err != nil {
		t.Error(err)
	}
}

func TestAnotherAddressOfAServerIsTold(t *testing.T) {
	told := 0
	p := newPeers(nil, nil, nil, nil)
	p.moved = func() { told++ }
	for _, step := range []struct {
		http string
		want int
	}{{"", 0}, {"http://a", 1}, {"http://a", 1}, {"http://b", 2}} {
		if p.learn(greeting{ID: "a", HTTP: step.http}); told != step.want {
			t.Errorf("after %q it was told %d times, not %d", step.http, told, step.want)
		}
	}
}

func TestRunWhileLeaderNeverOverlapsAndSeesEarlierTerms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		var mu sync.Mutex
		running := make(map[string]int)
		lastTerm := uint64(0)
		runs := 0
		for _, nd := range tr.nodes {
			c := nd.Cluster
			wg.Go(func() {
				_ = c.RunWhileLeader(ctx, func(lctx context.Context, term uint64) error {
					mu.Lock()
					running[c.ID()]++
					runs++
					if running[c.ID()] != 1 {
						t.Errorf("%s runs twice at once", c.ID())
					}
					if term < lastTerm {
						t.Errorf("term fell from %d to %d", lastTerm, term)
					}
					lastTerm = term
					mu.Unlock()
					<-lctx.Done()
					if ctx.Err() == nil && !errors.Is(context.Cause(lctx), ErrLeadershipLost) {
						t.Errorf("cause is %v", context.Cause(lctx))
					}
					// the successor must not wait for us, we must be joined
					time.Sleep(50 * time.Millisecond)
					mu.Lock()
					running[c.ID()]--
					mu.Unlock()
					return nil
				})
			})
		}
		for range 5 {
			if err := tr.leader().TransferLeadership(ctx, ""); err != nil {
				t.Fatal(err)
			}
			time.Sleep(200 * time.Millisecond)
		}
		cancel()
		wg.Wait()
		if runs < 6 {
			t.Errorf("only %d runs", runs)
		}
	})
}

func TestHandOverLosesNoWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		tr.leader()
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		nodes := []*Cluster{tr.nodes[0].Cluster, tr.nodes[1].Cluster, tr.nodes[2].Cluster}
		for w := range 4 {
			wg.Go(func() {
				for seq := 0; ctx.Err() == nil; seq++ {
					for _, c := range nodes {
						if _, err := c.Propose(ctx, []byte(seqRow(w, seq))); errors.Is(err,
							ErrOutcomeUnknown) && ctx.Err() == nil {
							t.Errorf("hand-over left an unknown outcome: %v", err)
						}
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
		for range 10 {
			time.Sleep(100 * time.Millisecond)
			if err := tr.leader().TransferLeadership(ctx, ""); err != nil {
				t.Fatal(err)
			}
		}
		cancel()
		wg.Wait()
	})
}

func TestMinorityLeaderServesNoReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		old := tr.leader()
		tr.net.Partition([]string{"h" + old.ID()[1:]})
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if err := old.ReadBarrier(ctx); err == nil {
			t.Fatal("a leader without a majority confirmed a read")
		}
		var next *node
		eventually(t, "a leader on the other side", func() bool {
			for _, nd := range tr.nodes {
				if nd != old && nd.IsLeader() && nd.reads.verifyLead(context.Background()) == nil {
					next = nd
				}
			}
			return next != nil
		})
		next.mustPropose(t, "new")
		tr.net.Heal()
		if err := old.ReadBarrier(context.Background()); err != nil {
			t.Fatal(err)
		}
		if old.machine.count("new") != 1 {
			t.Fatal("the old leader read past an acknowledged write")
		}
	})
}

func TestCommandsOfAnySizeUpToTheLimit(t *testing.T) {
	// 24 MB through one disk may take a while
	tr := startTCP(t, 3, Timeouts{Heartbeat: 2 * time.Second})
	lead := tr.leader()
	if _, err := lead.Propose(context.Background(),
		bigCommand(MaxCommand+1, 0)); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("got %v", err)
	}
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			if _, err := lead.Propose(context.Background(),
				bigCommand(MaxCommand, uint64(i))); err != nil {
				t.Errorf("propose: %v", err)
			}
		})
	}
	wg.Wait()
	for _, nd := range tr.nodes {
		if err := nd.ReadBarrier(context.Background()); err != nil {
			t.Fatal(err)
		}
		if n := len(nd.machine.all()); n != 24 {
			t.Errorf("%s has %d commands", nd.ID(), n)
		}
	}
}

// While one write is under way, what comes in meanwhile goes into the next ones together.
func TestProposalsShareEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 1)
		lead := tr.leader()
		lead.mustPropose(t, "before")
		before := lead.AppliedIndex()
		hang(lead)
		var wg sync.WaitGroup
		const n = 512
		for i := range n {
			wg.Go(func() { lead.mustPropose(t, fmt.Sprint(i)) })
		}
		synctest.Wait()
		resume(lead)
		wg.Wait()
		if entries := lead.AppliedIndex() - before; entries > n/4 {
			t.Errorf("%d commands took %d entries", n, entries)
		}
	})
}

// A proposal that was given up keeps its place in the queue until it is taken
// out; a proposal after it must not wait for that longer than its own limit.
func TestProposersWaitNoLongerThanTheyWantTo(t *testing.T) {
	lead := startTCP(t, 1, Timeouts{}).leader()
	lead.machine.mu.Lock() // nothing is applied any more
	defer lead.machine.mu.Unlock()
	limit := time.After(20 * time.Second)
	for range 3 {
		returned := make(chan error, maxProposals)
		for range maxProposals {
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
				_, err := lead.Propose(ctx, bigCommand(MaxCommand/64, 0))
				returned <- err
			}()
		}
		for i := range maxProposals {
			select {
			case err := <-returned:
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
			case <-limit:
				t.Fatalf("%d of %d wait on", maxProposals-i, maxProposals)
			}
		}
	}
}

func TestOnlyAnswersBeforeSubmissionSayThatNothingHappened(t *testing.T) {
	for _, err := range []error{
		raft.ErrNotLeader, raft.ErrLeadershipTransferInProgress, raft.ErrEnqueueTimeout,
	} {
		if got := submitError(err); !errors.Is(got, ErrNotLeader) ||
			errors.Is(got, ErrOutcomeUnknown) {
			t.Errorf("%v became %v", err, got)
		}
	}
	for _, err := range []error{
		raft.ErrLeadershipLost, raft.ErrRaftShutdown, raft.ErrAbortedByRestore, ErrDisk,
		errors.New("new"),
	} {
		if got := submitError(err); !errors.Is(got, ErrOutcomeUnknown) ||
			errors.Is(got, ErrNotLeader) {
			t.Errorf("%v became %v", err, got)
		}
	}
}
