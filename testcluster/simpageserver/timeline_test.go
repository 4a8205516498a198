package simpageserver

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"quorate/api/neon"
)

func timelinePath(shard neon.ShardID) string { return "/v1/tenant/" + shard.String() + "/timeline" }

func (w *world) timeline(n *Node, shard neon.ShardID, tl int) neon.TimelineInfo {
	w.t.Helper()
	var info neon.TimelineInfo
	text := w.want(201, n, "POST", timelinePath(shard),
		map[string]any{"new_timeline_id": timelineOf(tl), "pg_version": 16})
	if err := json.Unmarshal([]byte(text), &info); err != nil {
		w.t.Fatal(err)
	}
	return info
}

func TestTimelineLifeCycle(t *testing.T) {
	w := newWorld(t, Options{Behaviour: Behaviour{DeleteTimeline: 50 * time.Millisecond}})
	n := w.node(1)
	shard := shardOf(0)
	at := timelinePath(shard)
	w.want(404, n, "GET", at, nil)
	w.attach(n, shard)
	first := w.timeline(n, shard, 1)
	if again := w.timeline(n, shard, 1); again.Timeline != first.Timeline || again.PgVersion != 16 {
		t.Fatalf("repeated creation gave %+v", again)
	}
	w.want(409, n, "POST", at, map[string]any{"new_timeline_id": timelineOf(1), "pg_version": 15})
	branch := map[string]any{
		"new_timeline_id": timelineOf(2), "ancestor_timeline_id": timelineOf(1),
		"ancestor_start_lsn": first.LastRecordLsn,
	}
	var info neon.TimelineInfo
	if err := json.Unmarshal([]byte(w.want(201, n, "POST", at, branch)), &info); err != nil ||
		*info.Ancestor != timelineOf(1) || *info.AncestorLsn != first.LastRecordLsn {
		t.Fatalf("branch %+v, %v", info, err)
	}
	w.want(201, n, "POST", at, branch)
	w.want(406, n, "POST", at, map[string]any{
		"new_timeline_id": timelineOf(3), "ancestor_timeline_id": timelineOf(1),
		"ancestor_start_lsn": "F/0",
	})
	w.want(500, n, "POST", at,
		map[string]any{"new_timeline_id": timelineOf(3), "ancestor_timeline_id": timelineOf(9)})
	var list []neon.TimelineInfo
	if err := json.Unmarshal([]byte(w.want(200, n, "GET", at, nil)), &list); err != nil ||
		len(list) != 2 {
		t.Fatalf("list %+v, %v", list, err)
	}
	w.want(412, n, "DELETE", at+"/"+timelineOf(1).String(), nil)
	w.want(202, n, "DELETE", at+"/"+timelineOf(2).String(), nil)
	eventually(t, "deletion ends", func() bool {
		status, _ := w.call(n, "DELETE", at+"/"+timelineOf(2).String(), nil)
		return status == 404
	})
	if got := w.want(404, n, "GET", at+"/"+timelineOf(2).String(), nil); strings.Contains(got,
		"tenant "+shard.String()) {
		t.Fatalf("an absent timeline reads as an absent tenant: %s", got)
	}
	if got := w.want(412, n, "DELETE", timelinePath(shardOf(5))+"/"+timelineOf(2).String(),
		nil); !strings.Contains(got, "Requested tenant is missing") {
		t.Fatalf("delete on an absent tenant: %s", got)
	}
	w.silent()
}

func TestDeletionResumesWithTheNextOwner(t *testing.T) {
	w := newWorld(t, Options{Behaviour: Behaviour{DeleteTimeline: time.Hour}})
	a, b := w.node(1), w.node(2)
	w.attach(a, shardOf(0))
	w.timeline(a, shardOf(0), 1)
	w.want(202, a, "DELETE", timelinePath(shardOf(0))+"/"+timelineOf(1).String(), nil)
	b.SetBehaviour(Behaviour{})
	w.attach(b, shardOf(0))
	w.want(404, b, "GET", timelinePath(shardOf(0))+"/"+timelineOf(1).String(), nil)
	if keys := w.fleet.Store().Keys(shardOf(0).Tenant); len(keys) != 0 {
		t.Fatalf("left behind %q", keys)
	}
}

func TestLogGrowsAndANewOwnerCatchesUp(t *testing.T) {
	w := newWorld(t, Options{
		Store: NewStore(StoreOptions{WALRate: 1 << 20}), Behaviour: Behaviour{ReplayRate: 8 << 20},
	})
	a, b := w.node(1), w.node(2)
	shard := shardOf(0)
	w.attach(a, shard)
	first := w.timeline(a, shard, 1)
	eventually(t, "growth", func() bool {
		var list []neon.TimelineInfo
		if err := json.Unmarshal([]byte(w.want(200, a, "GET", timelinePath(shard), nil)),
			&list); err != nil {
			t.Fatal(err)
		}
		return list[0].LastRecordLsn > first.LastRecordLsn+64<<10
	})
	target := w.fleet.Store().head(timelineOf(1), time.Since(w.fleet.epoch))
	w.attach(b, shard)
	wait := neon.WaitLSNRequest{
		Timelines: map[neon.TimelineID]neon.Lsn{timelineOf(1): target}, Timeout: 5 * time.Second,
	}
	at := "/v1/tenant/" + shard.String() + "/wait_lsn"
	w.want(200, b, "POST", at, wait)
	wait.Timelines[timelineOf(1)], wait.Timeout = target<<8, time.Millisecond
	w.want(202, b, "POST", at, wait)
	wait.Timelines = map[neon.TimelineID]neon.Lsn{timelineOf(7): 1}
	if got := w.want(404, b, "POST", at, wait); got != "null" {
		t.Fatalf("unknown timelines: %s", got)
	}
	w.want(404, b, "POST", "/v1/tenant/"+shardOf(3).String()+"/wait_lsn", wait)
	w.silent()
}

// growLayers uploads until the shard's timeline has at least n layers.
func (w *world) growLayers(n *Node, shard neon.ShardID, layers int) {
	w.t.Helper()
	eventually(w.t, "layers", func() bool {
		if err := n.Upload(shard); err != nil {
			w.t.Fatal(err)
		}
		have := 0
		if err := n.host.act(shard, func(
			_ time.Duration, _ *core, s *slot,
		) {
			have = len(s.tenant.timelines[0].layers)
		}); err != nil {
			w.t.Fatal(err)
		}
		return have >= layers
	})
}

func TestObjectNamesCarryGenerations(t *testing.T) {
	w := newWorld(t, Options{Store: NewStore(StoreOptions{WALRate: 1 << 20})})
	n := w.node(1)
	shard := shardOf(0)
	w.attach(n, shard)
	w.timeline(n, shard, 1)
	w.growLayers(n, shard, 1)
	if err := n.Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	w.ready(n)
	w.growLayers(n, shard, 2)
	dir := "tenants/" + shard.String() + "/timelines/" + timelineOf(1).String() + "/"
	count := map[string]int{}
	for _, k := range w.fleet.Store().Keys(shard.Tenant) {
		name, found := strings.CutPrefix(k, dir)
		if !found {
			t.Fatalf("key %s", k)
		}
		kind, _, _ := strings.Cut(name, ".json")
		if strings.HasPrefix(name, "0000") {
			kind = "layer"
		}
		count[kind+name[len(name)-9:]]++
	}
	if count["index_part-00000001"] != 1 || count["index_part-00000002"] != 1 ||
		count["layer-00000001"] != 1 || count["layer-00000002"] == 0 {
		t.Fatalf("objects %v", count)
	}
}

func TestDeletionQueueWaitsForValidation(t *testing.T) {
	w := newWorld(t, Options{Store: NewStore(StoreOptions{WALRate: 1 << 20})})
	a, b := w.node(1), w.node(2)
	shard := shardOf(0)
	w.attach(a, shard)
	w.timeline(a, shard, 1)
	w.growLayers(a, shard, 3)
	w.auth.grant(shard, 2) // a is stale now, although it was not told
	if err := a.Compact(shard); err != nil {
		t.Fatal(err)
	}
	before := len(w.fleet.Store().Keys(shard.Tenant))
	if err := a.FlushDeletions(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := len(w.fleet.Store().Keys(shard.Tenant)); after != before {
		t.Fatalf("a stale owner deleted %d objects", before-after)
	}
	w.attach(b, shard)
	w.growLayers(b, shard, 2)
	if err := b.Compact(shard); err != nil {
		t.Fatal(err)
	}
	w.want(200, b, "PUT", "/v1/deletion_queue/flush?execute=true", nil)
	if err := b.host.act(shard, func(_ time.Duration, c *core, _ *slot) {
		if len(c.deletions.lists) != 0 {
			t.Error("the queue is not empty")
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := w.fleet.CheckQuiescent(); err == nil {
		t.Error("two attachments pass for quiescent")
	}
	w.put(a, shard, neon.Detached, 0)
	if err := w.fleet.CheckQuiescent(); err != nil {
		t.Error(err)
	}
	w.silent()
}

func TestMaintenanceRunsByItself(t *testing.T) {
	w := newWorld(t, Options{Store: NewStore(StoreOptions{WALRate: 1 << 20})})
	n := w.node(1, func(o *NodeOptions) { o.Maintenance = 10 * time.Millisecond })
	shard := shardOf(0)
	w.attach(n, shard)
	w.timeline(n, shard, 1)
	eventually(t, "compaction with deletions", func() bool {
		for _, e := range w.fleet.Oracle().History() {
			if e.Kind == EventValidated && e.Note == "yes" {
				return true
			}
		}
		return false
	})
	w.silent()
	if lost := w.fleet.Store().missing(shard, 1); len(lost) != 0 {
		t.Fatalf("layers missing in %v", lost)
	}
}

func TestDeletionListsSurviveARestartOnlyIfNobodyCameBetween(t *testing.T) {
	for name, between := range map[string]bool{"same owner": false, "another owner": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Options{Store: NewStore(StoreOptions{WALRate: 1 << 20})})
			n := w.node(1)
			shard := shardOf(0)
			w.attach(n, shard)
			w.timeline(n, shard, 1)
			w.growLayers(n, shard, 3)
			if err := n.Compact(shard); err != nil {
				t.Fatal(err)
			}
			if between {
				w.auth.grant(shard, 2)
				w.auth.grant(shard, 1)
			}
			if err := n.Restart(context.Background()); err != nil {
				t.Fatal(err)
			}
			w.ready(n)
			n.host.mu.Lock()
			defer n.host.mu.Unlock()
			if kept := len(n.host.core.deletions.lists) == 1; kept == between {
				t.Fatalf("lists %+v", n.host.core.deletions.lists)
			}
		})
	}
}

func TestSecondaryProgress(t *testing.T) {
	w := newWorld(t, Options{Store: NewStore(StoreOptions{ShardBytes: 1000, ShardLayers: 10})})
	a, b := w.node(1), w.node(2)
	shard := shardOf(0)
	at := "/v1/tenant/" + shard.String()
	progress := func(method, path string, status int) (p neon.SecondaryProgress) {
		t.Helper()
		if err := json.Unmarshal([]byte(w.want(status, b, method, at+path, nil)), &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	w.want(404, b, "GET", at+"/secondary/status", nil)
	w.put(b, shard, neon.Secondary, 0)
	if p := progress("POST", "/secondary/download?wait_ms=0", 200); p.HeatmapMtime != nil ||
		p.LayersTotal != 0 {
		t.Fatalf("without a heatmap %+v", p)
	}
	w.want(404, a, "POST", at+"/heatmap_upload", nil)
	w.attach(a, shard)
	b.SetBehaviour(Behaviour{DownloadRate: -1})
	w.want(200, a, "POST", at+"/heatmap_upload", nil)
	if p := progress("POST", "/secondary/download?wait_ms=10", 202); p.HeatmapMtime == nil ||
		p.LayersDownloaded != 0 || p.LayersTotal != 10 || p.BytesTotal != 1000 {
		t.Fatalf("stalled %+v", p)
	}
	b.SetBehaviour(Behaviour{DownloadRate: 5000})
	if p := progress("POST", "/secondary/download?wait_ms=5000", 200); p.LayersDownloaded != 10 ||
		p.BytesDownloaded != 1000 {
		t.Fatalf("complete %+v", p)
	}
	w.want(404, a, "GET", at+"/secondary/status", nil)
	g := w.auth.grant(shard, 2)
	w.put(b, shard, neon.AttachedSingle, g)
	w.put(a, shard, neon.Secondary, 0)
	var p neon.SecondaryProgress
	if err := json.Unmarshal([]byte(w.want(200, a, "GET", at+"/secondary/status", nil)),
		&p); err != nil || p.LayersDownloaded != 10 {
		t.Fatalf("a demoted owner is not warm: %+v, %v", p, err)
	}
	w.silent()
}

func TestProgressRegressesOnALargerHeatmap(t *testing.T) {
	store := NewStore(StoreOptions{})
	c := newCore(1, store, nil)
	c.behave.DownloadRate = 100
	s := &slot{mode: modeSecondary}
	shard := shardOf(0)
	store.putHeatmap(shard, 10*time.Second, 1000, 10)
	for _, step := range []struct {
		at   time.Duration
		done uint64
	}{{15 * time.Second, 500}, {20 * time.Second, 1000}, {60 * time.Second, 1000}} {
		if p := c.heatmaps.progress(step.at, shard, s); p.bytesDone != step.done {
			t.Errorf("at %s: %+v, want %d bytes", step.at, p, step.done)
		}
	}
	store.putHeatmap(shard, 60*time.Second, 3000, 30)
	for _, step := range []struct {
		at   time.Duration
		done uint64
		full bool
	}{
		{60 * time.Second, 1000, false}, {70 * time.Second, 2000, false},
		{80 * time.Second, 3000, true},
	} {
		if p := c.heatmaps.progress(step.at, shard, s); p.bytesDone != step.done ||
			p.complete() != step.full {
			t.Errorf("at %s: %+v, want %d bytes", step.at, p, step.done)
		}
	}
}

func TestHeatmapPeriodPublishesByItself(t *testing.T) {
	w := newWorld(t, Options{})
	n := w.node(1)
	g := w.auth.grant(shardOf(0), 1)
	w.want(200, n, "PUT", locationPath(shardOf(0)), strings.Replace(conf(neon.AttachedSingle, g),
		`"tenant_conf":{}`, `"tenant_conf":{"heatmap_period":"1m"}`, 1))
	if _, ok := w.fleet.Store().heatmap(shardOf(0), time.Since(w.fleet.epoch)); !ok {
		t.Fatal("no heatmap although a period is set")
	}
	w.attach(n, shardOf(1))
	if _, ok := w.fleet.Store().heatmap(shardOf(1), time.Since(w.fleet.epoch)); ok {
		t.Fatal("a heatmap although no period is set")
	}
}

func TestTenantDeleteByPrefix(t *testing.T) {
	w := newWorld(t, Options{})
	n := w.node(1)
	tenant := shardOf(0).Tenant
	for _, shard := range neon.ShardIDs(tenant, 2) {
		w.attach(n, shard)
		w.timeline(n, shard, 1)
	}
	if keys := w.fleet.Store().Keys(tenant); len(keys) != 2 {
		t.Fatalf("objects %q", keys)
	}
	for _, shard := range neon.ShardIDs(tenant, 2) {
		w.put(n, shard, neon.Detached, 0)
	}
	w.want(200, n, "DELETE", "/v1/tenant/"+tenant.String(), nil)
	w.want(200, n, "DELETE", "/v1/tenant/"+tenant.String(), nil)
	if keys := w.fleet.Store().Keys(tenant); len(keys) != 0 {
		t.Fatalf("left behind %q", keys)
	}
	w.silent()
}

func TestModeChangeInPlaceKeepsTheTenant(t *testing.T) {
	w := newWorld(t, Options{})
	n := w.node(1)
	g := w.attach(n, shardOf(0))
	n.SetBehaviour(Behaviour{Activation: time.Hour})
	w.put(n, shardOf(0), neon.AttachedStale, g)
	if v, _ := n.Location(shardOf(0)); v.State != Active || v.Mode != neon.AttachedStale {
		t.Fatalf("after a change of mode %+v", v)
	}
}

func TestNewerIndicesAreInvisible(t *testing.T) {
	w := newWorld(t, Options{})
	a, b := w.node(1), w.node(2)
	shard := shardOf(0)
	w.attach(a, shard)
	w.timeline(a, shard, 1)
	w.attach(b, shard)
	w.timeline(b, shard, 2)
	store := w.fleet.Store()
	if seen := store.load(shard, 1); len(seen) != 1 {
		t.Errorf("generation 1 sees %d timelines", len(seen))
	}
	if seen := store.load(shard, 7); len(seen) != 2 {
		t.Errorf("generation 7 sees %d timelines", len(seen))
	}
}

func TestOnlySingleDeletesAndStaleDoesNotCompact(t *testing.T) {
	w := newWorld(t, Options{Store: NewStore(StoreOptions{WALRate: 1 << 20})})
	n := w.node(1)
	shard := shardOf(0)
	g := w.attach(n, shard)
	w.timeline(n, shard, 1)
	w.growLayers(n, shard, 3)
	objects := func() int { return len(w.fleet.Store().Keys(shard.Tenant)) }
	compact := func() {
		t.Helper()
		if err := n.Compact(shard); err != nil {
			t.Fatal(err)
		}
		if err := n.FlushDeletions(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	before := objects()
	w.put(n, shard, neon.AttachedStale, g)
	if compact(); objects() != before {
		t.Fatalf("stale: %d objects, had %d", objects(), before)
	}
	w.put(n, shard, neon.AttachedMulti, g)
	if compact(); objects() != before+1 {
		t.Fatalf("multi: %d objects, had %d", objects(), before)
	}
	w.put(n, shard, neon.AttachedSingle, g)
	if compact(); objects() != 2 {
		t.Fatalf("single: %d objects, want the index and one layer", objects())
	}
	w.silent()
}
