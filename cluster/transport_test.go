package cluster

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"quorate/cluster/clustertest"
)

// A member that was away has everything soon after it is back, however long it was away: the
// leader does not learn by trying that it is there.
func TestAMemberThatIsBackCatchesUpAtOnce(t *testing.T) {
	const soon = 60 * time.Millisecond
	for _, away := range []time.Duration{300 * time.Millisecond, time.Minute} {
		t.Run(away.String(), func(t *testing.T) {
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
				i := slices.Index(tr.nodes, tr.follower())
				_ = tr.nodes[i].kill()
				lead.mustPropose(t, "while it is away")
				time.Sleep(away)
				tr.start(i)
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := tr.nodes[i].ReadBarrier(ctx); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took > soon {
					t.Errorf("it had everything after %s", took)
				}
			})
		})
	}
}
