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
