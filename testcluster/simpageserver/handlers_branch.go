package simpageserver

import (
	"encoding/json"
	"net/http"
	"time"

	"quorate/api/neon"
)

// marks are what may be said about a timeline without changing its content.
type marks struct {
	archived, gcBlocked, invisible bool
}

// mark is PUT …/mark_invisible, POST …/block_gc and …/unblock_gc: durable when
// it is answered, and harmless when repeated.
func (h *timelineHandler) mark(c *call) reply {
	change := func(m *marks) {}
	switch c.route {
	case RouteBlockGC:
		change = func(m *marks) { m.gcBlocked = true }
	case RouteUnblockGC:
		change = func(m *marks) { m.gcBlocked = false }
	case RouteMarkInvisible:
		change = func(m *marks) { m.invisible = true }
	}
	return h.onTimeline(c, func(_ time.Duration, core *core, s *slot, tl *timeline) reply {
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
func (h *timelineHandler) detachAncestor(c *call) reply {
	return h.onTimeline(c, func(_ time.Duration, core *core, s *slot, tl *timeline) reply {
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
func (h *timelineHandler) leaseLsn(c *call) reply {
	var req neon.LeaseRequest
	if err := json.Unmarshal(c.body, &req); err != nil {
		return failf(http.StatusBadRequest, "Json parse error: %v", err).reply()
	}
	return h.onTimeline(c, func(now time.Duration, _ *core, _ *slot, _ *timeline) reply {
		until := neon.Millis{Time: h.host.epoch.Add(now + leaseLength)}
		return answer(http.StatusOK, map[string]neon.Millis{"valid_until": until})
	})
}

// leaseLength is what pageservers grant when nothing is configured.
const leaseLength = 10 * time.Minute
