package simpageserver

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"quorate/api/neon"
	"quorate/testcluster/simpageserver/archival"
)

// manifest lists the offloaded timelines of a shard, as one generation wrote it.
type manifest struct {
	gen       neon.Generation
	timelines map[neon.TimelineID]bool
}

// putManifest uploads the list of the offloaded timelines of a shard.
func (ts *timelines) putManifest(shard neon.ShardID, s *slot) {
	m := manifest{gen: s.gen, timelines: map[neon.TimelineID]bool{}}
	for _, tl := range s.tenant.timelines {
		if tl.arch.Manifest {
			m.timelines[tl.id] = true
		}
	}
	ts.store.putManifest(shard, m)
}

func (s *Store) putManifest(shard neon.ShardID, m manifest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.manifests[shard]
	at, ok := slices.BinarySearchFunc(all, m.gen,
		func(have manifest, g neon.Generation) int { return int(int64(have.gen) - int64(g)) })
	if ok {
		all[at] = m
	} else {
		s.manifests[shard] = slices.Insert(all, at, m)
	}
}

// offloaded are the timelines that an attach in a generation takes for offloaded.
func (s *Store) offloaded(
	shard neon.ShardID, gen neon.Generation,
) (found map[neon.TimelineID]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.manifests[shard] {
		if m.gen <= gen {
			found = m.timelines
		}
	}
	return found
}

// dropManifests removes the manifests of a shard, or, for an unsharded id, of the
// whole tenant. The caller holds the lock.
func (s *Store) dropManifests(shard neon.ShardID) {
	for id := range s.manifests {
		if id == shard || shard.IsUnsharded() && id.Tenant == shard.Tenant {
			delete(s.manifests, id)
		}
	}
}

// archived tells what an attach in a generation would find: whether the index says
// archived and whether the manifest says offloaded.
func (s *Store) archived(id remoteID, gen neon.Generation) (index, listed, ok bool) {
	listed = s.offloaded(id.shard, gen)[id.timeline]
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.tenants[id.shard.Tenant][id]
	if r == nil {
		return false, false, false
	}
	ix := r.selectable(gen)
	return ix != nil && ix.marks.archived, listed, ix != nil && !ix.deleted
}

// archivalTimeout is how long an archival request waits for its upload.
const archivalTimeout = 10 * time.Second

// archivalHandler archives and offloads timelines.
type archivalHandler struct{ *incarnation }

// archive is PUT …/archival_config: durable when it is answered, and harmless
// when repeated.
func (h *archivalHandler) archive(c *call) reply {
	var req neon.ArchivalRequest
	if err := json.Unmarshal(c.body, &req); err != nil {
		return failf(http.StatusBadRequest, "Json parse error: %v", err).reply()
	}
	change := archival.Change{Archive: req.State == neon.Archived}
	deadline := time.Now().Add(archivalTimeout)
	checked := false
	for {
		var pause time.Duration
		out := h.whenActive(c.shard, func(now time.Duration, core *core, s *slot) reply {
			pause = core.behave.ArchivalStep
			tl := core.timelines.findAny(now, c.shard, s, c.timeline)
			if tl == nil || tl.deleting || tl.imports.going {
				return failf(http.StatusNotFound, "NotFound: Timeline %s/%s was not found", c.shard,
					c.timeline).reply()
			}
			if f := s.tenant.mayArchive(tl, change.Archive); f != nil && !checked {
				return f.reply()
			}
			checked = true
			return core.timelines.archivalSteps(c.shard, s, tl, &change)
		})
		switch {
		case out.abort || out.status != http.StatusProcessing:
			return out
		case time.Now().After(deadline):
			return fail(http.StatusRequestTimeout, "Timed out waiting for upload queue flush").
				reply()
		case !h.sleep(max(pause, busyPoll)):
			return aborted
		}
	}
}

// archivalSteps takes one step of a change, or, when steps take no time, all that
// can be taken. StatusProcessing means that there is more to do.
func (ts *timelines) archivalSteps(
	shard neon.ShardID, s *slot, tl *timeline, change *archival.Change,
) reply {
	for {
		if tl.arch.Pending() {
			ts.putIndex(shard, s, tl)
		} else if f := ts.archivalStep(shard, s, tl,
			func(t *archival.Timeline) error { return change.Next(t) }); f != nil {
			return f.reply()
		}
		switch {
		case change.Done():
			return ok(jsonNull)
		case ts.behave.ArchivalStep > 0 || change.Waits(tl.arch) && !tl.arch.Pending():
			return reply{status: http.StatusProcessing}
		}
	}
}

// archivalStep takes one step and writes the manifest if it has changed.
func (ts *timelines) archivalStep(
	shard neon.ShardID, s *slot, tl *timeline, step func(*archival.Timeline) error,
) *failure {
	listed := tl.arch.Manifest
	err := step(&tl.arch)
	if tl.arch.Manifest != listed {
		ts.putManifest(shard, s)
	}
	switch {
	case errors.Is(err, archival.ErrClosed):
		return fail(http.StatusServiceUnavailable, "upload queue is shutting down")
	case errors.Is(err, archival.ErrBusy):
		return fail(http.StatusConflict, "Conflict: unoffload or offload is already in progress")
	case errors.Is(err, archival.ErrNotArchived):
		return fail(http.StatusPreconditionFailed, "Precondition failed: timeline is not archived")
	}
	return nil
}

// run takes a timeline out of memory, step by step. It gives up when the
// attachment ends.
func (h *archivalHandler) run(shard neon.ShardID, mine *timeline) (f *failure) {
	var o archival.Offload
	for !o.Done() {
		var pause time.Duration
		going := false
		if !h.with(func(now time.Duration, c *core) {
			s := c.slots[shard]
			if s == nil || s.busy || !s.mode.attached() || mine.deleting ||
				c.timelines.findAny(now, shard, s, mine.id) != mine {
				return
			}
			going = true
			for {
				if o.Waits(mine.arch) {
					c.timelines.putIndex(shard, s, mine)
				} else {
					f = c.timelines.archivalStep(shard, s, mine, func(
						t *archival.Timeline,
					) error {
						return o.Next(t, c.behave.OffloadOrder)
					})
				}
				if pause = c.behave.ArchivalStep; pause > 0 || o.Done() {
					return
				}
			}
		}) || !going || !h.sleep(pause) {
			return f
		}
	}
	return f
}

// autoOffload starts to offload what background work finds archived. The caller
// holds the core.
func (h *archivalHandler) autoOffload(c *core, shard neon.ShardID, s *slot) {
	if !c.behave.Offload || s.busy || s.broken || !s.mode.attached() || s.mode == modeStale ||
		s.tenant == nil {
		return
	}
	for _, tl := range s.tenant.timelines {
		if tl.deleting || tl.imports.going || !tl.arch.Candidate() || s.tenant.hasLoadedChild(tl) {
			continue
		}
		h.start(func() {
			_ = h.run(shard, tl) // a request has been faster
		})
	}
}

func (t *tenant) hasLoadedChild(tl *timeline) bool {
	return slices.ContainsFunc(t.timelines, func(other *timeline) bool {
		return other.arch.Loaded && other.meta.kind == branched && other.meta.ancestor == tl.id
	})
}

// offload is PUT …/offload.
func (h *archivalHandler) offload(c *call) reply {
	var mine *timeline
	out := h.onTimeline(c, func(_ time.Duration, _ *core, s *slot, tl *timeline) reply {
		if s.tenant.hasLoadedChild(tl) {
			return fail(http.StatusPreconditionFailed,
				"Precondition failed: timeline has attached children").reply()
		}
		mine = tl
		return ok(jsonNull)
	})
	if mine == nil {
		return out
	}
	if f := h.run(c.shard, mine); f != nil {
		return f.reply()
	}
	return out
}

// CheckArchived demands of a fleet at rest that a timeline is archived, or in use, on
// all shards: in remote storage, as the newest owner finds it, and in its memory. An
// archived one may be offloaded.
func (f *Fleet) CheckArchived(tl neon.TimelineID, archived bool, shards ...neon.ShardID) error {
	var c findings
	for _, shard := range shards {
		gen, _ := f.opt.Oracle.newest(shard)
		index, listed, there := f.opt.Store.archived(remoteID{shard, tl}, gen)
		if !there || index != archived || listed && !archived {
			c.add("timeline %s of shard %s: there %v, archived %v, offloaded %v in generation %d",
				tl, shard, there, index, listed, gen)
		}
		for _, n := range f.Nodes() {
			_ = n.host.act(shard, func(now time.Duration, core *core, s *slot) {
				t := core.timelines.findAny(now, shard, s, tl)
				if s.gen == gen && (t == nil || t.arch.Stopping || t.arch.Dirty != archived ||
					!archived && !t.arch.Active()) {
					c.add("timeline %s of shard %s is stranded on node %s: %+v", tl, shard,
						n.opt.ID, t)
				}
			})
		}
	}
	return c.err()
}

// checkStranded is I31.
func (f *Fleet) checkStranded(c *findings) {
	for _, n := range f.Nodes() {
		n.host.mu.Lock()
		for shard, s := range n.host.core.slots {
			if n.proc == nil || s.busy || !s.mode.attached() || s.tenant == nil {
				continue
			}
			for _, tl := range s.tenant.timelines {
				if tl.arch.Stopping || tl.arch.Manifest && !tl.arch.Index {
					c.add("I31: timeline %s of shard %s on node %s is stranded: %+v", tl.id, shard,
						n.opt.ID, tl.arch)
				}
			}
		}
		n.host.mu.Unlock()
	}
}

// list is GET …/timeline_and_offloaded.
func (h *archivalHandler) list(c *call) reply {
	type offloadedJSON struct {
		Tenant   neon.ShardID     `json:"tenant_id"`
		Timeline neon.TimelineID  `json:"timeline_id"`
		Ancestor *neon.TimelineID `json:"ancestor_timeline_id"`
		Retain   *neon.Lsn        `json:"ancestor_retain_lsn"`
		Archived string           `json:"archived_at"`
	}
	return h.whenActive(c.shard, func(now time.Duration, core *core, s *slot) reply {
		all := struct {
			Timelines []timelineJSON  `json:"timelines"`
			Offloaded []offloadedJSON `json:"offloaded"`
		}{[]timelineJSON{}, []offloadedJSON{}}
		for _, tl := range core.timelines.remaining(now, c.shard, s) {
			switch {
			case tl.usable():
				all.Timelines = append(all.Timelines, core.timelines.describe(now, c.shard, tl))
			case !tl.arch.Loaded:
				o := offloadedJSON{
					Tenant: c.shard, Timeline: tl.id,
					Archived: h.host.epoch.UTC().Format(time.RFC3339),
				}
				if tl.meta.kind == branched {
					o.Ancestor, o.Retain = &tl.meta.ancestor, &tl.meta.start
				}
				all.Offloaded = append(all.Offloaded, o)
			}
		}
		return answer(http.StatusOK, all)
	})
}
