package testcluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"quorate/api/neon"
	"quorate/testcluster"
)

// edge says that a timeline may be a branch of another one.
type edge struct{ child, parent neon.TimelineID }

// patchConfig changes one field of a configuration.
func (w *worker) patchConfig(ctx context.Context, c *testcluster.Client, t *simTenant) {
	var value any = w.number()
	if w.rng.IntN(3) == 0 {
		value = nil
	}
	field := []string{"gc_horizon", "image_creation_threshold"}[w.rng.IntN(2)]
	text, err := json.Marshal(map[string]any{field: value})
	if err != nil {
		w.Errorf("seed %d: %v", w.seed, err)
		return
	}
	var next []neon.TenantConfig
	for _, was := range t.configs {
		patched, err := was.Patch(text)
		if err != nil {
			w.Errorf("seed %d: %v", w.seed, err)
			return
		}
		if !slices.Contains(next, patched) {
			next = append(next, patched)
		}
	}
	t.configs = append(t.configs, next...)
	if w.named(ctx, c, func(ctx context.Context, c *testcluster.Client) error {
		return c.Tenants().PatchConfig(ctx, t.id, map[string]any{field: value})
	}) {
		t.configs = next
	}
}

// advise sends what leaves every promise as it is: wishes, advice and questions.
func (w *worker) advise(ctx context.Context, c *testcluster.Client, t *simTenant) {
	shards := w.shardsOf(t)
	shard := shards[w.rng.IntN(len(shards))]
	nodes := w.Fleet().Nodes()
	node := nodes[w.rng.IntN(len(nodes))].ID()
	switch w.rng.IntN(8) {
	case 0, 1:
		zone := ptr(testcluster.Zone(w.rng.IntN(3)))
		if w.rng.IntN(4) == 0 {
			zone = nil
		}
		_, err := c.Shards().SetPreferredAZs(ctx, neon.PreferredAZsRequest{shard: zone})
		w.count(err)
	case 2, 3:
		w.count(c.Shards().CancelReconcile(ctx, shard))
	case 4:
		w.count(c.Call(ctx, http.MethodPut,
			"/control/v1/tenant/"+shard.String()+"/migrate_secondary",
			neon.MigrateRequest{Node: node}, nil))
	case 5:
		w.count(c.Call(ctx, http.MethodPost,
			"/v1/tenant/"+t.id.String()+"/secondary/download?wait_ms=1000", nil, nil))
	case 6:
		w.count(c.Call(ctx, http.MethodPost, "/control/v1/metadata_health/update",
			neon.MetadataHealthUpdate{
				Healthy: neon.List[neon.ShardID]{}, Unhealthy: neon.List[neon.ShardID]{shard},
			}, nil))
	default:
		_, err := c.Tenants().Locate(ctx, t.id)
		w.count(err)
	}
}

// timelineCall does to a timeline what changes neither where it is nor what it holds.
func (w *worker) timelineCall(ctx context.Context, c *testcluster.Client, t *simTenant) {
	if len(t.timelines) == 0 {
		return
	}
	call := []struct {
		method, action string
		body           any
	}{
		{http.MethodPost, "block_gc", nil},
		{http.MethodPost, "unblock_gc", nil},
		{http.MethodPost, "lsn_lease", map[string]string{"lsn": "0/1500000"}},
		{http.MethodPost, "download_heatmap_layers", nil},
		{http.MethodPut, "mark_invisible", map[string]bool{"is_visible": true}},
	}[w.rng.IntN(5)]
	path := fmt.Sprintf("/v1/tenant/%s/timeline/%s/%s", t.id,
		t.timelines[w.rng.IntN(len(t.timelines))], call.action)
	w.count(c.Call(ctx, call.method, path, call.body, nil))
}

// detach makes a branch independent of its ancestor. Its elder siblings become its
// branches: on all shards if that was acknowledged, else on some.
func (w *worker) detach(ctx context.Context, c *testcluster.Client, t *simTenant) {
	if t.want != 0 || len(t.half) > 0 || len(t.edges) == 0 {
		return // shards that do not have the same timelines cannot agree
	}
	branch := t.edges[w.rng.IntN(len(t.edges))]
	var done neon.AncestorDetached
	path := fmt.Sprintf("/v1/tenant/%s/timeline/%s/detach_ancestor", t.id, branch.child)
	ok := w.count(c.Call(ctx, http.MethodPut, path, nil, &done))
	if !ok {
		for _, e := range t.edges {
			if e.parent == branch.parent && e.child != branch.child {
				done.Reparented = append(done.Reparented, e.child)
			}
		}
	}
	t.edges = slices.DeleteFunc(t.edges, func(e edge) bool {
		return ok && (e.child == branch.child || slices.Contains(done.Reparented, e.child))
	})
	for _, child := range done.Reparented {
		t.edges = append(t.edges, edge{child: child, parent: branch.child})
	}
}

// leaf is the newest timeline that has no branches, as far as is known.
func (t *simTenant) leaf() (id neon.TimelineID, ok bool) {
	for _, id := range slices.Backward(t.timelines) {
		if !slices.ContainsFunc(t.edges, func(e edge) bool { return e.parent == id }) {
			return id, true
		}
	}
	return id, false
}

// removed takes note of the end of a timeline.
func (t *simTenant) removed(id neon.TimelineID) {
	t.timelines = slices.DeleteFunc(t.timelines, func(o neon.TimelineID) bool { return o == id })
	t.edges = slices.DeleteFunc(t.edges, func(e edge) bool { return e.child == id })
	delete(t.located, id)
}
