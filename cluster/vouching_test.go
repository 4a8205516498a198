package cluster

import (
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/cluster/clustertest"
)

// A leader whose state is wrong, and not known to be, saves no snapshot. A member that is
// behind the log would get the wrong state from it, and the two would be the majority.
func TestAWrongStateIsNotSavedForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &trio{t: t, net: clustertest.NewNetwork()}
		defer tr.close()
		for i := range 3 {
			nd := &node{cfg: memoryConfig(tr.net, 3, i), disk: clustertest.NewMemoryDisk()}
			nd.cfg.Disk, nd.cfg.TrailingLogs = nd.disk, 1
			tr.nodes = append(tr.nodes, nd)
			tr.start(i)
		}
		lead := tr.leader()
		away := slices.Index(tr.nodes, tr.follower())
		_ = tr.nodes[away].kill()
		right := tr.follower()
		var acked []string
		for k := range 50 {
			lead.mustPropose(t, seqRow(1, k))
			acked = append(acked, seqRow(1, k))
		}
		if err := lead.node.raft().Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		lead.mustPropose(t, "last")
		acked = append(acked, "last")
		time.Sleep(2 * time.Second)
		lead.spoil()
		err := lead.SnapshotTo(t.Context(), io.Discard)
		if err == nil || !strings.Contains(err.Error(), right.cfg.ID+" has another state") ||
			!strings.Contains(err.Error(), "start the missing members") {
			t.Errorf("a wrong state was saved, or the way out is missing: %v", err)
		}
		tr.start(away)
		time.Sleep(20 * time.Second)
		if right.Status().Mended != 0 || lead.Status().Mended != 1 {
			t.Errorf("the right one was mended %d times, the wrong one %d times",
				right.Status().Mended, lead.Status().Mended)
		}
		tr.demandEqual(t, acked)
		if err := lead.node.raft().Snapshot().Error(); err != nil {
			t.Error(err)
		}
	})
}

// A replica whose state is not saved says whose can be.
func TestARefusalToSaveNamesThoseWhoAreRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		lead := tr.leader()
		for k := range 50 {
			lead.mustPropose(t, seqRow(1, k))
		}
		wrong := tr.follower()
		if err := wrong.ReadBarrier(t.Context()); err != nil {
			t.Fatal(err)
		}
		pass(t, time.Second)
		for _, nd := range tr.nodes { // nobody has a state to mend it by
			for range maxSending {
				nd.fsm.sending <- struct{}{}
			}
		}
		wrong.spoil()
		err := wrong.SnapshotTo(t.Context(), io.Discard)
		if err == nil || !strings.Contains(err.Error(), ": save it there") ||
			!strings.Contains(err.Error(), lead.cfg.ID) {
			t.Errorf("a wrong state was saved, or the way out is missing: %v", err)
		}
	})
}

// While nobody can be asked, a snapshot is saved all the same.
func TestASnapshotIsSavedWhenNobodyCanBeAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		lead := tr.leader()
		lead.mustPropose(t, "a")
		for _, nd := range tr.nodes {
			if nd != lead {
				_ = nd.kill()
			}
		}
		begun := time.Now()
		if err := lead.node.raft().Snapshot().Error(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took > 2*vouchLimit {
			t.Errorf("it took %v", took)
		}
	})
}
