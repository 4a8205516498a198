package simpageserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"quorate/api/neon"
)

// activeWait is how long a call on a tenant waits for it to become active.
const activeWait = 5 * time.Second

// whenActive runs f on an attached shard as soon as it is active. A shard that is
// there but does not get ready is 503, never 404: the caller must not believe
// that it is free.
func (p *process) whenActive(
	shard neon.ShardID, f func(now time.Duration, c *core, s *slot) reply,
) reply {
	deadline := time.Now().Add(activeWait)
	for {
		var out *reply
		var wait time.Duration
		alive := p.with(func(now time.Duration, c *core) {
			s, left, refused := c.access(now, shard)
			wait = left
			switch {
			case refused != nil:
				r := refused.reply()
				out = &r
			case s != nil:
				r := f(now, c, s)
				out = &r
			}
		})
		switch {
		case !alive:
			return aborted
		case out != nil:
			return *out
		}
		left := time.Until(deadline)
		if left <= 0 {
			return failf(http.StatusServiceUnavailable,
				"Timed out waiting for tenant %s to become active", shard).reply()
		}
		if wait < 0 {
			wait = busyPoll
		}
		if !p.sleep(min(wait, left)) {
			return aborted
		}
	}
}

// busyPoll is how often waiting calls look again.
const busyPoll = 20 * time.Millisecond

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

// defaultPgVersion is what pageservers create when nobody says.
const defaultPgVersion = 16

// createTimeline is POST /v1/tenant/{shard}/timeline.
func (p *process) createTimeline(c *call) reply {
	req, f := decodeCreation(c.body)
	if f != nil {
		return f.reply()
	}
	return p.whenActive(c.shard, func(now time.Duration, core *core, s *slot) reply {
		tl, f := core.timelines.create(now, c.shard, s, req)
		if f != nil {
			return f.reply()
		}
		p.startImports(c.shard, s)
		return answer(http.StatusCreated, core.timelines.describe(now, c.shard, tl))
	})
}

// timelines is GET …/timeline and GET …/timeline/{timeline}.
func (p *process) timelines(c *call) reply {
	return p.whenActive(c.shard, func(now time.Duration, core *core, s *slot) reply {
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

// deleteTimeline is DELETE …/timeline/{timeline}: 202 while it goes, then 404.
func (p *process) deleteTimeline(c *call) reply {
	out := p.whenActive(c.shard, func(now time.Duration, core *core, s *slot) reply {
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
		if missing := p.with(func(_ time.Duration, core *core) {
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
func (p *process) checkpoint(c *call) reply {
	return p.whenActive(c.shard, func(now time.Duration, core *core, s *slot) reply {
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
func (p *process) waitLsn(c *call) reply {
	var req neon.WaitLSNRequest
	if err := json.Unmarshal(c.body, &req); err != nil {
		return failf(http.StatusBadRequest, "Json parse error: %v", err).reply()
	}
	deadline := time.Now().Add(req.Timeout)
	for {
		var all, some bool
		out := p.whenActive(c.shard, func(now time.Duration, core *core, s *slot) reply {
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
		case !p.sleep(min(busyPoll, left)):
			return aborted
		}
	}
}

// secondary is POST …/secondary/download?wait_ms and GET …/secondary/status.
func (p *process) secondary(c *call) reply {
	q, err := url.ParseQuery(c.query)
	if err != nil {
		return failf(http.StatusBadRequest, "query: %v", err).reply()
	}
	wait := 24 * time.Hour
	if text := q.Get("wait_ms"); text != "" {
		ms, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return failf(http.StatusBadRequest, "wait_ms: %v", err).reply()
		}
		wait = time.Duration(ms) * time.Millisecond
	}
	deadline := time.Now().Add(wait)
	for {
		var f *failure
		var d downloadProgress
		if !p.with(func(now time.Duration, core *core) {
			var s *slot
			if s, f = core.secondaryOf(c.shard); f == nil {
				d = core.heatmaps.progress(now, c.shard, s)
			}
		}) {
			return aborted
		}
		left := time.Until(deadline)
		switch {
		case f != nil:
			return f.reply()
		case c.route == RouteSecondaryStatus || d.complete():
			return answer(http.StatusOK, p.progressJSON(d))
		case left <= 0 || c.late():
			return answer(http.StatusAccepted, p.progressJSON(d))
		case !p.sleep(min(busyPoll, left)):
			return aborted
		}
	}
}

func (p *process) progressJSON(d downloadProgress) neon.SecondaryProgress {
	j := neon.SecondaryProgress{
		LayersDownloaded: d.layersDone, LayersTotal: d.layersTotal,
		BytesDownloaded: d.bytesDone, BytesTotal: d.bytesTotal,
	}
	if d.hasHeatmap {
		j.HeatmapMtime = &neon.Millis{Time: p.node.fleet.epoch.Add(d.mtime)}
	}
	return j
}

// heatmapUpload is POST …/heatmap_upload.
func (p *process) heatmapUpload(c *call) reply {
	return p.whenActive(c.shard, func(now time.Duration, core *core, s *slot) reply {
		core.heatmaps.upload(now, c.shard, s)
		return ok(jsonNull)
	})
}

// utilization is GET /v1/utilization.
func (p *process) utilization() reply {
	var u neon.Utilization
	if !p.with(func(
		now time.Duration, core *core,
	) {
		u = core.utilization(p.node.fleet.epoch.Add(now))
	}) {
		return aborted
	}
	return answer(http.StatusOK, u)
}

// flushDeletions is PUT /v1/deletion_queue/flush: it validates and executes.
func (p *process) flushDeletions() reply {
	if err := p.deletions(p.ctx); err != nil {
		return fail(http.StatusInternalServerError, fmt.Sprint(err)).reply()
	}
	return ok(jsonNull)
}
