package testcluster_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"quorate/api/neon"
	"quorate/testcluster"
)

// TestReAttachWithAnEmptyDiskClearsWhatWasObserved: with --handle-ps-local-disk-loss
// nothing is shown on the pageserver from then on, and without it everything there is
// unknown. Either way its attachments and secondaries are configured again.
func TestReAttachWithAnEmptyDiskClearsWhatWasObserved(t *testing.T) {
	const lost = 1 // the pageserver
	for _, believed := range []bool{false, true} {
		t.Run(fmt.Sprint(believed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{T: t, Cluster: testcluster.Run(t, testcluster.Builder{
					Mode: testcluster.Virtual, Pageservers: 3, Seed: 1, DiskLoss: believed,
				})}
				s.create(0, 4, neon.Attached(1))
				s.rest()
				node := s.Fleet().Node(lost)
				modes := map[neon.LocationMode]int{}
				for _, l := range node.Locations() {
					modes[l.Mode]++
				}
				if modes[neon.AttachedSingle] == 0 || modes[neon.Secondary] == 0 {
					t.Fatalf("the pageserver has %v", modes)
				}
				node.Kill()
				node.WipeDisk()
				// In its name, since it can be listed as soon as it runs.
				s.do("re-attach", func(ctx context.Context, c *testcluster.Client) error {
					_, err := c.Upcalls().ReAttach(ctx,
						neon.ReAttachRequest{Node: lost, EmptyLocalDisk: new(true)})
					return err
				})
				shown := 0
				s.do("look", func(ctx context.Context, c *testcluster.Client) error {
					shards, err := c.Debug().Shards(ctx)
					for _, sh := range shards {
						if l, ok := sh.Observed.Locations[lost]; ok && l.Config != nil {
							t.Errorf("%s is shown as %s", sh.Shard, l.Config.Mode)
						} else if ok {
							shown++
						}
					}
					return err
				})
				if believed && shown > 0 ||
					!believed && shown < modes[neon.AttachedSingle]+modes[neon.Secondary] {
					t.Errorf("%d locations are shown on it", shown)
				}
				s.pageserver(lost)
				s.verdicts()
				s.rest()
				for _, l := range node.Locations() {
					modes[l.Mode]--
				}
				if modes[neon.AttachedSingle] != 0 || modes[neon.Secondary] != 0 {
					t.Errorf("not configured again: %v", modes)
				}
			})
		})
	}
}
