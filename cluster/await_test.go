package cluster

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
)

// Every kind of future that await is given can be ended from outside: what raft
// forgets when it shuts down would hold its waiter for ever.
func TestWhatRaftForgetsEndsWithRaft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		lead := tr.leader()
		down := make(chan struct{})
		for name, f := range map[string]raft.Future{
			"entry":   lead.node.raft().ApplyLog(raft.Log{Data: encodeFrame(nil)}, 0),
			"barrier": lead.node.raft().Barrier(0),
			"members": lead.node.raft().AddVoter(raft.ServerID(lead.ID()),
				raft.ServerAddress(lead.node.addr), 0, 0),
			"snapshot": lead.node.raft().Snapshot(),
		} {
			if !endWith(f, down) {
				t.Errorf("%s: %T cannot be ended", name, f)
			}
		}
	})
}

// A future that has its answer from the beginning needs no end.
func TestAnAnswerThatIsThereIsReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		if err := tr.follower().node.await(tr.follower().node.raft().Barrier(0)); !errors.Is(err,
			raft.ErrNotLeader) {
			t.Errorf("a follower's barrier: %v", err)
		}
	})
}
