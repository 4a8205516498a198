package cluster

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"quorate/cluster/clustertest"
)

// The log is bounded in bytes, on the leader and on followers, although the entries are
// far too few for raft's own bound; and a restarted member, which is behind the logs of
// the others, catches up.
func TestTheLogIsBoundedInBytes(t *testing.T) {
	const limit = 1 << 20
	synctest.Test(t, func(t *testing.T) {
		tr := &trio{t: t, net: clustertest.NewNetwork()}
		defer tr.close()
		var appended, committed, applied, snapshots, snapshotBytes atomic.Int64
		for i := range 3 {
			nd := &node{cfg: memoryConfig(tr.net, 3, i), disk: clustertest.NewMemoryDisk()}
			nd.cfg.Disk, nd.cfg.LogBytes = nd.disk, limit
			nd.cfg.Observer = Observer{
				Appended:  func(time.Duration, int) { appended.Add(1) },
				Committed: func(time.Duration) { committed.Add(1) },
				Applied:   func(_ time.Duration, n int) { applied.Add(int64(n)) },
				SnapshotTaken: func(_ time.Duration, n int64) {
					snapshots.Add(1)
					snapshotBytes.Store(n)
				},
			}
			tr.nodes = append(tr.nodes, nd)
			tr.start(i)
		}
		lead := tr.leader()
		away := slices.Index(tr.nodes, tr.follower())
		_ = tr.nodes[away].kill()
		const writes = 200
		row := strings.Repeat("x", limit/16)
		largest := int64(0)
		for range writes {
			lead.mustPropose(t, row)
			synctest.Wait()
			largest = max(largest, lead.Status().LogBytes)
		}
		// Some writes may come while the snapshot is taken and its state is compared.
		if largest > limit+4*limit/16 {
			t.Errorf("the log had %d bytes, the bound is %d", largest, limit)
		}
		time.Sleep(time.Second)
		for _, nd := range tr.nodes {
			if nd.Cluster != nil && nd.Status().LogBytes > limit {
				t.Errorf("%s has a log of %d bytes", nd.ID(), nd.Status().LogBytes)
			}
		}
		if n := committed.Load(); n < writes {
			t.Errorf("%d commits observed", n)
		}
		if appended.Load() < 2*writes || applied.Load() < 2*writes-8 {
			t.Errorf("%d appends, %d commands observed", appended.Load(), applied.Load())
		}
		if n := snapshots.Load(); n < 2*writes/16/2 || snapshotBytes.Load() < writes*limit/16/2 {
			t.Errorf("%d snapshots, of %d bytes", n, snapshotBytes.Load())
		}
		if lead.Status().LeaderChanges == 0 {
			t.Error("no change of the leader was counted")
		}
		tr.start(away)
		eventually(t, "the one that was away catches up", func() bool {
			return tr.nodes[away].AppliedIndex() == lead.AppliedIndex()
		})
	})
}

// A server that starts applies little of the log again: there is a snapshot that is not far
// behind, though there are too few entries for raft's own bound. And snapshots do not come one
// after the other.
func TestLittleOfTheLogIsBehindTheNewestSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &trio{t: t, net: clustertest.NewNetwork()}
		defer tr.close()
		var snapshots atomic.Int64
		for i := range 3 {
			nd := &node{cfg: memoryConfig(tr.net, 3, i), disk: clustertest.NewMemoryDisk()}
			nd.cfg.Disk = nd.disk
			nd.cfg.Observer.SnapshotTaken = func(time.Duration, int64) { snapshots.Add(1) }
			tr.nodes = append(tr.nodes, nd)
			tr.start(i)
		}
		lead, began := tr.leader(), time.Now()
		row := strings.Repeat("x", replayBytes/16)
		for range 400 {
			lead.mustPropose(t, row)
			time.Sleep(250 * time.Millisecond)
		}
		if n, most := snapshots.Load(), int64(3*(time.Since(began)/replayPause+1)); n > most {
			t.Errorf("%d snapshots, more than %d", n, most)
		}
		time.Sleep(3 * replayRest)
		for _, nd := range tr.nodes {
			list, err := nd.node.store.Snapshots().List()
			if err != nil || len(list) == 0 {
				t.Fatalf("%s has no snapshot: %v", nd.ID(), err)
			}
			if behind := nd.node.store.BytesAfter(list[0].Index); behind >
				max(replayBytes, list[0].Size) {
				t.Errorf("%s has %d bytes behind its newest snapshot, of %d bytes", nd.ID(),
					behind, list[0].Size)
			}
		}
	})
}

// A server that starts applies no long work again: there is a snapshot behind it, though its
// entries are few and short.
func TestLittleOfTheWorkIsBehindTheNewestSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &trio{t: t, net: clustertest.NewNetwork()}
		defer tr.close()
		for i := range 3 {
			nd := &node{cfg: memoryConfig(tr.net, 3, i), disk: clustertest.NewMemoryDisk()}
			nd.cfg.Disk = nd.disk
			tr.nodes = append(tr.nodes, nd)
			tr.start(i)
		}
		lead := tr.leader()
		for range 20 {
			lead.mustPropose(t, slowRow)
		}
		time.Sleep(replayPause + 3*replayRest)
		for _, nd := range tr.nodes {
			list, err := nd.node.store.Snapshots().List()
			if err != nil || len(list) == 0 || list[0].Index+5 < lead.AppliedIndex() {
				t.Errorf("%s has the snapshots %v: %v", nd.ID(), list, err)
			}
		}
	})
}
