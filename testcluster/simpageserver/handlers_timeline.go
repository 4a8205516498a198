package simpageserver

import (
	"encoding/json"
	"net/http"
	"time"

	"quorate/api/neon"
)

// timelineHandler answers what is about timelines.
type timelineHandler struct {
	*incarnation
	imports *importHandler
}

// timelineJSON holds every field that the pageservers' own clients require.
type timelineJSON struct {
	Tenant            neon.ShardID     `json:"tenant_id"`
	Timeline          neon.TimelineID  `json:"timeline_id"`
	Ancestor          *neon.TimelineID `json:"ancestor_timeline_id"`
	AncestorLsn       *neon.Lsn        `json:"ancestor_lsn"`
	LastRecord        neon.Lsn         `json:"last_record_lsn"`
	PrevRecord        neon.Lsn         `json:"prev_record_lsn"`
	GCCutoff          neon.Lsn         `json:"applied_gc_cutoff_lsn"`
	MinReadable       neon.Lsn         `json:"min_readable_lsn"`
	DiskConsistent    neon.Lsn         `json:"disk_consistent_lsn"`
	RemoteConsistent  neon.Lsn         `json:"remote_consistent_lsn"`
	RemoteVisible     neon.Lsn         `json:"remote_consistent_lsn_visible"`
	InitDB            neon.Lsn         `json:"initdb_lsn"`
	LogicalSize       uint64           `json:"current_logical_size"`
	LogicalAccurate   bool             `json:"current_logical_size_is_accurate"`
	DirectoryCounts   []uint64         `json:"directory_entries_counts"`
	PhysicalSize      uint64           `json:"current_physical_size"`
	NonIncremental    *uint64          `json:"current_logical_size_non_incremental"`
	PitrHistory       uint64           `json:"pitr_history_size"`
	WithinPitr        bool             `json:"within_ancestor_pitr"`
	LayerSum          uint64           `json:"timeline_dir_layer_file_size_sum"`
	WALSource         *string          `json:"wal_source_connstr"`
	LastReceived      *neon.Lsn        `json:"last_received_msg_lsn"`
	LastReceivedAt    *int64           `json:"last_received_msg_ts"`
	PgVersion         int              `json:"pg_version"`
	State             string           `json:"state"`
	WALReceiver       string           `json:"walreceiver_status"`
	Archived          bool             `json:"is_archived"`
	RelSizeMigration  string           `json:"rel_size_migration"`
	RelSizeMigratedAt *neon.Lsn        `json:"rel_size_migrated_at"`
	Invisible         bool             `json:"is_invisible"`
}

func (ts *timelines) describe(now time.Duration, shard neon.ShardID, tl *timeline) timelineJSON {
	last := ts.lastRecord(now, tl)
	j := timelineJSON{
		Tenant: shard, Timeline: tl.id, LastRecord: last, PrevRecord: last, DiskConsistent: tl.disk,
		RemoteConsistent: tl.disk, RemoteVisible: tl.disk, InitDB: bootstrapLsn,
		GCCutoff:    bootstrapLsn,
		MinReadable: bootstrapLsn, PgVersion: tl.meta.version, State: "Active",
		DirectoryCounts:  []uint64{},
		RelSizeMigration: "legacy", LogicalAccurate: true,
	}
	if tl.meta.kind == branched {
		ancestor, at := tl.meta.ancestor, tl.meta.start
		j.Ancestor, j.AncestorLsn = &ancestor, &at
	}
	j.Archived, j.Invisible = tl.marks.archived, tl.marks.invisible
	if tl.deleting || tl.arch.Stopping {
		j.State = "Stopping"
	}
	for _, l := range tl.layers {
		j.LayerSum += uint64(l.size)
	}
	j.PhysicalSize = j.LayerSum
	if shard.Number == 0 {
		j.LogicalSize = j.LayerSum
	}
	return j
}

// decodeCreation reads the body of a timeline creation.
func decodeCreation(body []byte) (req timelineCreation, f *failure) {
	var wire neon.TimelineCreateRequest
	if len(body) == 0 {
		return req, fail(http.StatusBadRequest, "missing request body")
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		return req, failf(http.StatusBadRequest, "Json parse error: %v", err)
	}
	req = timelineCreation{id: wire.Timeline, meta: timelineMeta{version: defaultPgVersion}}
	switch {
	case wire.Import != nil:
		req.meta.kind, req.meta.key = imported, wire.Import.IdempotencyKey
	case wire.Branch != nil:
		req.meta.kind, req.meta.ancestor = branched, wire.Branch.Ancestor
		if wire.Branch.StartLsn != nil {
			req.meta.start, req.hasStart = *wire.Branch.StartLsn, true
		}
	case wire.Bootstrap != nil && wire.Bootstrap.PgVersion != nil:
		req.meta.version = int(*wire.Bootstrap.PgVersion)
	}
	return req, nil
}

// defaultPgVersion is what pageservers create when the request does not say.
const defaultPgVersion = 16

// create is POST /v1/tenant/{shard}/timeline.
func (h *timelineHandler) create(c *call) reply {
	req, f := decodeCreation(c.body)
	if f != nil {
		return f.reply()
	}
	return h.whenActive(c.shard, func(now time.Duration, core *core, s *slot) reply {
		if h.passed(c, core, req.id) {
			return aborted
		}
		tl, f := core.timelines.create(now, c.shard, s, req)
		if f != nil {
			return f.reply()
		}
		h.imports.startTasks(c.shard, s)
		return answer(http.StatusCreated, core.timelines.describe(now, c.shard, tl))
	})
}

// passed reports whether a call for a timeline that is created and deleted at the same time
// is one of which no controller can know any more. It comes to nothing.
func (h *timelineHandler) passed(c *call, core *core, id neon.TimelineID) bool {
	unseen := c.unseen() || c.late() && core.behave.Takes[c.route] == 0
	return unseen && h.host.oracle.Crossings.has(id)
}

// list is GET …/timeline and GET …/timeline/{timeline}.
func (h *timelineHandler) list(c *call) reply {
	return h.whenActive(c.shard, func(now time.Duration, core *core, s *slot) reply {
		if c.route == RouteTimelineGet {
			tl := core.timelines.find(now, c.shard, s, c.timeline)
			if tl == nil {
				return failf(http.StatusNotFound, "NotFound: Timeline %s/%s was not found", c.shard,
					c.timeline).reply()
			}
			return answer(http.StatusOK, core.timelines.describe(now, c.shard, tl))
		}
		list := []timelineJSON{}
		for _, tl := range core.timelines.remaining(now, c.shard, s) {
			if !tl.usable() {
				continue
			}
			list = append(list, core.timelines.describe(now, c.shard, tl))
		}
		return answer(http.StatusOK, list)
	})
}

// remove is DELETE …/timeline/{timeline}: 202 while it goes, then 404.
func (h *timelineHandler) remove(c *call) reply {
	out := h.whenActive(c.shard, func(now time.Duration, core *core, s *slot) reply {
		if h.passed(c, core, c.timeline) {
			return aborted
		}
		done, f := core.timelines.remove(now, c.shard, s, c.timeline)
		switch {
		case f != nil:
			return f.reply()
		case done:
			return failf(http.StatusNotFound, "NotFound: timeline %s", c.timeline).reply()
		}
		return reply{status: http.StatusAccepted, body: jsonNull}
	})
	if out.status == http.StatusNotFound {
		if missing := h.with(func(_ time.Duration, core *core) {
			if s := core.slots[c.shard]; s == nil || s.mode == modeSecondary {
				out = fail(http.StatusPreconditionFailed,
					"Precondition failed: Requested tenant is missing").reply()
			}
		}); !missing {
			return aborted
		}
	}
	return out
}

// checkpoint is PUT …/timeline/{timeline}/checkpoint: it uploads everything.
func (h *timelineHandler) checkpoint(c *call) reply {
	return h.whenActive(c.shard, func(now time.Duration, core *core, s *slot) reply {
		tl := core.timelines.find(now, c.shard, s, c.timeline)
		if tl == nil {
			return failf(http.StatusNotFound, "NotFound: Timeline %s/%s was not found", c.shard,
				c.timeline).reply()
		}
		core.timelines.upload(now, c.shard, s, tl)
		return ok(jsonNull)
	})
}

// waitLsn is POST …/wait_lsn.
func (h *timelineHandler) waitLsn(c *call) reply {
	var req neon.WaitLSNRequest
	if err := json.Unmarshal(c.body, &req); err != nil {
		return failf(http.StatusBadRequest, "Json parse error: %v", err).reply()
	}
	deadline := time.Now().Add(req.Timeout)
	for {
		var all, some bool
		out := h.whenActive(c.shard, func(now time.Duration, core *core, s *slot) reply {
			all, some = core.timelines.reached(now, c.shard, s, req.Timelines)
			return ok(jsonNull)
		})
		switch left := time.Until(deadline); {
		case out.abort || out.status != http.StatusOK:
			return out
		case !some:
			return reply{status: http.StatusNotFound, body: jsonNull}
		case all:
			return out
		case left <= 0 || c.late():
			return reply{status: http.StatusAccepted, body: jsonNull}
		case !h.sleep(min(busyPoll, left)):
			return aborted
		}
	}
}
