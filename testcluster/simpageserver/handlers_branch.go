package simpageserver

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"time"

	"quorate/api/neon"
)

// marks are what may be said about a timeline without changing its content.
type marks struct {
	archived, gcBlocked, invisible bool
}

// markTimeline is PUT …/mark_invisible, POST …/block_gc and …/unblock_gc: durable when
// it is answered, and harmless when repeated.
func (p *process) markTimeline(c *call) reply {
	change := func(m *marks) {}
	switch c.route {
	case RouteBlockGC:
		change = func(m *marks) { m.gcBlocked = true }
	case RouteUnblockGC:
		change = func(m *marks) { m.gcBlocked = false }
	case RouteMarkInvisible:
		change = func(m *marks) { m.invisible = true }
	}
	return p.onTimeline(c, func(_ time.Duration, core *core, s *slot, tl *timeline) reply {
		next := tl.marks
		change(&next)
		if next != tl.marks {
			tl.marks = next
			core.timelines.putIndex(c.shard, s, tl)
		}
		return ok(jsonNull)
	})
}

// mayArchive refuses to archive a timeline that others still need, and to bring
// one back whose ancestor is archived.
func (t *tenant) mayArchive(tl *timeline, archive bool) *failure {
	if archive == tl.arch.Dirty {
		return nil
	}
	for _, other := range t.timelines {
		child := other.meta.kind == branched && other.meta.ancestor == tl.id
		parent := tl.meta.kind == branched && tl.meta.ancestor == other.id
		switch {
		case archive && child && !other.arch.Dirty:
			return fail(http.StatusPreconditionFailed,
				"Precondition failed: Cannot archive timeline which has unarchived child timelines")
		case !archive && parent && other.arch.Dirty:
			return fail(http.StatusPreconditionFailed,
				"Precondition failed: ancestor timeline is archived")
		}
	}
	return nil
}

// detachAncestor is PUT …/detach_ancestor. Branches that left the ancestor no
// later become branches of the timeline. Repeated, it tells the same.
func (p *process) detachAncestor(c *call) reply {
	return p.onTimeline(c, func(_ time.Duration, core *core, s *slot, tl *timeline) reply {
		done := neon.AncestorDetached{}
		if tl.meta.kind != branched && !tl.detached {
			return fail(http.StatusConflict, "Conflict: no ancestors").reply()
		}
		if tl.meta.kind == branched {
			old, at := tl.meta.ancestor, tl.meta.start
			for _, other := range s.tenant.timelines {
				if other != tl && other.meta.kind == branched && other.meta.ancestor == old &&
					other.meta.start <= at {
					other.meta.ancestor = tl.id
					core.timelines.putIndex(c.shard, s, other)
				}
			}
			tl.meta = timelineMeta{version: tl.meta.version}
			tl.detached = true
			core.timelines.putIndex(c.shard, s, tl)
		}
		for _, other := range s.tenant.timelines {
			if other.meta.kind == branched && other.meta.ancestor == tl.id {
				done.Reparented = append(done.Reparented, other.id)
			}
		}
		return answer(http.StatusOK, done)
	})
}

// leaseLsn is POST …/lsn_lease. A lease is in memory only.
func (p *process) leaseLsn(c *call) reply {
	var req neon.LeaseRequest
	if err := json.Unmarshal(c.body, &req); err != nil {
		return failf(http.StatusBadRequest, "Json parse error: %v", err).reply()
	}
	return p.onTimeline(c, func(now time.Duration, _ *core, _ *slot, _ *timeline) reply {
		until := neon.Millis{Time: p.node.fleet.epoch.Add(now + leaseLength)}
		return answer(http.StatusOK, map[string]neon.Millis{"valid_until": until})
	})
}

// leaseLength is what pageservers grant when nothing is configured.
const leaseLength = 10 * time.Minute

// heatmapLayers is POST …/download_heatmap_layers, which only begins something.
func (p *process) heatmapLayers(c *call) reply {
	if _, err := url.ParseQuery(c.query); err != nil {
		return failf(http.StatusBadRequest, "query: %v", err).reply()
	}
	return p.onTimeline(c,
		func(time.Duration, *core, *slot, *timeline) reply { return ok(jsonNull) })
}

// scanRemote is GET /v1/tenant/{tenant}/scan_remote_storage.
func (p *process) scanRemote(c *call) reply {
	scan := neon.RemoteScan{Shards: []neon.RemoteShard{}}
	if !p.with(func(
		_ time.Duration, core *core,
	) {
		scan.Shards = core.store.scan(c.shard.Tenant)
	}) {
		return aborted
	}
	return answer(http.StatusOK, scan)
}

// scan lists the shards of a tenant that have an index, with the newest generation
// that wrote one.
func (s *Store) scan(t neon.TenantID) []neon.RemoteShard {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest := map[neon.ShardID]neon.Generation{}
	for id, r := range s.tenants[t] {
		for _, ix := range r.indices {
			newest[id.shard] = max(newest[id.shard], ix.gen)
		}
	}
	list := []neon.RemoteShard{}
	for shard, gen := range newest {
		list = append(list, neon.RemoteShard{Shard: shard, Generation: &gen})
	}
	slices.SortFunc(list,
		func(a, b neon.RemoteShard) int { return int(a.Shard.Number) - int(b.Shard.Number) })
	return list
}

// onTimeline runs f on a timeline of an active shard.
func (p *process) onTimeline(
	c *call, f func(now time.Duration, core *core, s *slot, tl *timeline) reply,
) reply {
	return p.whenActive(c.shard, func(now time.Duration, core *core, s *slot) reply {
		tl := core.timelines.find(now, c.shard, s, c.timeline)
		if tl == nil || tl.deleting {
			return failf(http.StatusNotFound, "NotFound: Timeline %s/%s was not found", c.shard,
				c.timeline).reply()
		}
		return f(now, core, s, tl)
	})
}
