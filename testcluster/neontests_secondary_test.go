package testcluster_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

// TestSlowSecondaryDownloads has the steps of test_slow_secondary_downloads. It puts a
// tenant to Secondary whose secondary is cold, and demands to see how it gets warm.
func TestSlowSecondaryDownloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{T: t, Cluster: testcluster.Run(t, testcluster.Builder{
			Mode: testcluster.Virtual, Seed: 1, Pageservers: 2,
			Store:     simpageserver.StoreOptions{ShardBytes: 64 << 20, ShardLayers: 16},
			Behaviour: simpageserver.Behaviour{DownloadRate: 1 << 20},
		})}
		s.create(0, 0, neon.Attached(1))
		s.timeline(0, 0, -1, shardOf(0, 0, 0))
		attached := s.home(shardOf(0, 0, 0))
		s.onNode(attached, http.MethodPost, "/v1/tenant/"+idOf(0).String()+"/heatmap_upload", nil)
		s.do("location_config", func(ctx context.Context, c *testcluster.Client) error {
			_, err := c.Tenants().PutLocation(ctx, idOf(0), neon.LocationConfig{
				Mode: neon.Secondary, SecondaryConf: &neon.SecondaryConf{Warm: true},
			})
			return err
		})
		download := func(wait time.Duration) (p neon.SecondaryProgress) {
			s.do("download", func(ctx context.Context, c *testcluster.Client) error {
				return c.Call(ctx, http.MethodPost, fmt.Sprintf(
					"/v1/tenant/%s/secondary/download?wait_ms=%d", idOf(0), wait.Milliseconds()),
					nil, &p)
			})
			return p
		}
		partial := func(p neon.SecondaryProgress) {
			t.Helper()
			if p.HeatmapMtime == nil || p.LayersDownloaded == 0 || p.BytesDownloaded == 0 ||
				p.LayersTotal <= p.LayersDownloaded || p.BytesTotal <= p.BytesDownloaded {
				t.Fatalf("progress is %+v", p)
			}
		}
		first := download(4 * time.Second)
		partial(first)
		second := download(time.Second)
		partial(second)
		if second.LayersDownloaded < first.LayersDownloaded ||
			second.BytesDownloaded < first.BytesDownloaded ||
			second.LayersTotal != first.LayersTotal || second.BytesTotal != first.BytesTotal {
			t.Errorf("progress was %+v and is %+v", first, second)
		}
		for _, n := range s.Fleet().Nodes() {
			n.SetBehaviour(simpageserver.Behaviour{})
		}
		third := download(20 * time.Second)
		if third.HeatmapMtime == nil || third.LayersTotal != third.LayersDownloaded ||
			third.BytesTotal != third.BytesDownloaded {
			t.Errorf("in the end progress is %+v", third)
		}
		warm := s.state(attached, shardOf(0, 0, 0))
		if warm != simpageserver.Warm {
			t.Errorf("the copy that was warm is %q", warm)
		}
		s.pass(6 * time.Minute)
		s.onlyOn(shardOf(0, 0, 0), attached)
	})
}

// onlyOn demands that a shard has one location, on a node.
func (s *script) onlyOn(shard neon.ShardID, want neon.NodeID) {
	s.Helper()
	s.do("describe", func(ctx context.Context, c *testcluster.Client) error {
		d, err := c.Tenants().Describe(ctx, shard.Tenant)
		if client.StatusOf(err) == http.StatusNotFound {
			s.Fatal(err)
		}
		for _, sh := range d.Shards {
			if sh.Shard == shard && (sh.Attached != nil || len(sh.Secondary) != 1 ||
				sh.Secondary[0] != want) {
				s.Errorf("%s is attached on %v with secondaries on %v", shard, sh.Attached,
					sh.Secondary)
			}
		}
		return err
	})
	for _, n := range s.Fleet().Nodes() {
		if at, there := n.Location(shard); there != (n.ID() == want) {
			s.Errorf("%s on node %s: %+v", shard, n.ID(), at)
		}
	}
}
