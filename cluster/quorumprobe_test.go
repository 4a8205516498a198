package cluster

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A disk that all three share is slow for all: none would lead better.
func TestALeaderWhoseDiskEverybodySharesWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		lead := tr.leader()
		lead.mustPropose(t, "before")
		term, ctx := lead.Status().Term, lead.leadership.current().ctx
		hang(tr.nodes...)
		wrote := make(chan error, 1)
		go func() {
			_, err := lead.Propose(context.Background(), []byte("meanwhile"))
			wrote <- err
		}()
		time.Sleep(lead.node.timeouts.Store + 50*time.Millisecond)
		if ctx.Err() != nil {
			t.Fatalf("it gave way: %v", context.Cause(ctx))
		}
		// A majority that can write in the same instant could take over.
		resume(lead)
		synctest.Wait()
		resume(tr.nodes...)
		if err := <-wrote; err != nil {
			t.Fatalf("the write that was under way: %v", err)
		}
		lead.mustPropose(t, "after")
		if lead.Status().Term != term {
			t.Fatalf("there was an election: term %d became %d", term, lead.Status().Term)
		}
	})
}

// Whatever the others can do, a leader that cannot write stops within a second,
// wherever in the pause between two test writes its disk begins to hang.
func TestALeaderThatCannotWriteStopsWithinASecond(t *testing.T) {
	for _, writing := range []bool{false, true} {
		for after := time.Duration(
			0); after < 200*time.Millisecond; after += 20 * time.Millisecond {
			synctest.Test(t, func(t *testing.T) {
				tr := startMemory(t, 3)
				lead := tr.leader()
				ctx := lead.leadership.current().ctx
				time.Sleep(after)
				began := time.Now()
				hang(tr.nodes...)
				defer resume(tr.nodes...)
				if writing {
					_, err := lead.Propose(t.Context(), []byte("x"))
					if !errors.Is(err, ErrOutcomeUnknown) && !errors.Is(err, ErrNotLeader) {
						t.Fatalf("a write on a disk that hangs returned %v", err)
					}
				}
				<-ctx.Done()
				if took := time.Since(began); took > time.Second {
					t.Errorf("hanging %v later, it led for another %v (writing: %v)", after, took,
						writing)
				}
			})
		}
	}
}

// One follower shares the leader's trouble: the other one could be elected, but
// would have no server to commit with.
func TestALeaderKeepsTheLeadWhenTheOthersAreNoMajority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		lead := tr.leader()
		well := tr.follower()
		term, ctx := lead.Status().Term, lead.leadership.current().ctx
		for _, nd := range tr.nodes {
			if nd != well {
				hang(nd)
			}
		}
		wrote := make(chan error, 1)
		go func() {
			_, err := lead.Propose(context.Background(), []byte("meanwhile"))
			wrote <- err
		}()
		time.Sleep(lead.node.timeouts.Store + 50*time.Millisecond)
		if ctx.Err() != nil {
			t.Fatalf("it gave way: %v", context.Cause(ctx))
		}
		// A majority that can write in the same instant could take over.
		resume(lead)
		synctest.Wait()
		resume(tr.nodes...)
		if err := <-wrote; err != nil {
			t.Fatalf("the write that was under way: %v", err)
		}
		if lead.Status().Term != term {
			t.Fatalf("there was an election: term %d became %d", term, lead.Status().Term)
		}
	})
}

func TestATestWriteOfADiskThatHangsEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		nd := tr.follower()
		if err := nd.node.store.ProveWritable(t.Context()); err != nil {
			t.Fatalf("a healthy disk: %v", err)
		}
		hang(nd)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := nd.node.store.ProveWritable(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		resume(nd)
		eventually(t, "it writes again",
			func() bool { return nd.node.store.ProveWritable(t.Context()) == nil })
	})
}

func hang(nodes ...*node) {
	for _, nd := range nodes {
		nd.disk.Hang()
	}
}

func resume(nodes ...*node) {
	for _, nd := range nodes {
		nd.disk.Resume()
	}
}
