package simpageserver

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"quorate/api/neon"
	"quorate/testcluster/simpageserver/archival"
)

// timelineMeta is what a timeline was created from; it also decides whether a
// repeated creation is the same one.
type timelineMeta struct {
	kind     timelineKind
	version  int // PostgreSQL's major version
	ancestor neon.TimelineID
	start    neon.Lsn // of a branch: where it leaves its ancestor
	key      string   // of an import: what makes two requests the same
}

type timelineKind uint8

const (
	bootstrapped timelineKind = iota
	branched
	imported
)

// tenant is the part of an attached shard that only matters once it has
// timelines.
type tenant struct {
	timelines []*timeline // ascending by id
	unlinked  []unlinked  // layers no index names any more, not yet given to the deletion queue
}

// timeline is one timeline in the memory of one pageserver.
type timeline struct {
	id       neon.TimelineID
	meta     timelineMeta
	layers   []layer // of the last index; replaced, never changed in place
	disk     neon.Lsn
	active   time.Duration // when it began to follow the log
	marks    marks
	detached bool // from an ancestor it once had
	imports  importing
	arch     archival.Timeline
	deleting bool
	gone     time.Duration // when a deletion is finished
}

// timelines works on the timelines of one pageserver's attached shards: what is in
// the memory of a slot, and what of it is in the store.
type timelines struct {
	store  *Store
	behave *Behaviour
	cutOff func() bool // reports whether the pageserver cannot be reached; nil is never
}

// bootstrapLsn is where the log of a new timeline without ancestor starts.
const bootstrapLsn neon.Lsn = 0x1500000

// lastRecord is the end of what the pageserver has of a timeline's log. After an
// attach it starts at the last upload and catches up at the replay rate.
func (ts *timelines) lastRecord(now time.Duration, tl *timeline) neon.Lsn {
	if !tl.usable() {
		return tl.disk
	}
	head := ts.store.head(tl.id, now)
	if ts.behave.ReplayRate > 0 {
		head = min(head, tl.disk+grown(ts.behave.ReplayRate, now-tl.active))
	}
	return max(head, tl.disk)
}

// load reads the timelines that an attach in a generation sees. Deletions that
// an earlier owner acknowledged go on.
func (ts *timelines) load(active time.Duration, shard neon.ShardID, gen neon.Generation) *tenant {
	found := ts.store.load(shard, gen)
	if len(found) == 0 {
		return nil
	}
	t := &tenant{}
	listed := ts.store.offloaded(shard, gen)
	for id, ix := range found {
		t.timelines = append(t.timelines, &timeline{
			id: id, meta: ix.meta, layers: ix.layers, disk: ix.disk, active: active,
			marks: ix.marks, detached: ix.detached, imports: importing{going: ix.importing},
			arch: archival.Attached(ix.marks.archived, listed[id]), deleting: ix.deleted,
			gone: active + ts.behave.DeleteTimeline,
		})
	}
	slices.SortFunc(t.timelines, func(a, b *timeline) int { return compareTimelines(a.id, b.id) })
	return t
}

func compareTimelines(a, b neon.TimelineID) int { return slices.Compare(a[:], b[:]) }

// remaining finishes the deletions whose time has come and lists what is left.
func (ts *timelines) remaining(now time.Duration, shard neon.ShardID, s *slot) []*timeline {
	if s.tenant == nil {
		return nil
	}
	kept, listed := s.tenant.timelines[:0], false
	for _, tl := range s.tenant.timelines {
		if tl.deleting && now >= tl.gone {
			ts.store.deleteTimeline(remoteID{shard, tl.id}, s.gen)
			listed = listed || tl.arch.Manifest
			continue
		}
		kept = append(kept, tl)
	}
	clear(s.tenant.timelines[len(kept):])
	s.tenant.timelines = kept
	if listed {
		ts.putManifest(shard, s)
	}
	return kept
}

// usable reports whether requests may see a timeline: not while it is imported, and
// not while it is offloaded.
func (tl *timeline) usable() bool { return !tl.imports.going && tl.arch.Loaded }

// find finds a timeline that can be used.
func (ts *timelines) find(
	now time.Duration, shard neon.ShardID, s *slot, id neon.TimelineID,
) *timeline {
	if tl := ts.findAny(now, shard, s, id); tl != nil && tl.usable() {
		return tl
	}
	return nil
}

func (ts *timelines) findAny(
	now time.Duration, shard neon.ShardID, s *slot, id neon.TimelineID,
) *timeline {
	tls := ts.remaining(now, shard, s)
	at, ok := slices.BinarySearchFunc(tls, id,
		func(tl *timeline, id neon.TimelineID) int { return compareTimelines(tl.id, id) })
	if !ok {
		return nil
	}
	return tls[at]
}

// timelineCreation is a decoded request to create a timeline. A branch without
// a start takes the ancestor's last record.
type timelineCreation struct {
	id       neon.TimelineID
	meta     timelineMeta
	hasStart bool
}

// create makes a timeline and uploads its first index, so that it is durable
// when it returns. The same request again returns the same timeline.
func (ts *timelines) create(
	now time.Duration, shard neon.ShardID, s *slot, req timelineCreation,
) (*timeline, *failure) {
	if req.meta.kind == branched {
		from := ts.findAny(now, shard, s, req.meta.ancestor)
		if from != nil && (from.arch.Dirty || !from.arch.Loaded) {
			return nil, failf(http.StatusNotAcceptable, "ancestor timeline %s is archived",
				req.meta.ancestor)
		}
		if from == nil || from.deleting || !from.usable() {
			return nil, failf(http.StatusInternalServerError,
				"Cannot branch off timeline %s: not found", req.meta.ancestor)
		}
		last := ts.lastRecord(now, from)
		if !req.hasStart {
			req.meta.start = last
		}
		if req.meta.start > last {
			return nil, failf(http.StatusNotAcceptable,
				"invalid branch start lsn: %s is past the last record %s", req.meta.start, last)
		}
		req.meta.version = from.meta.version
	}
	if tl := ts.findAny(now, shard, s, req.id); tl != nil {
		if tl.deleting || tl.meta != req.meta || !tl.arch.Loaded {
			return nil, failf(http.StatusConflict,
				"Conflict: timeline %s already exists with different parameters", req.id)
		}
		ts.upload(now, shard, s, tl)
		return tl, nil
	}
	start := bootstrapLsn
	if req.meta.kind == branched {
		start = req.meta.start
	}
	ts.store.beginLog(req.id, start, now)
	tl := &timeline{
		id: req.id, meta: req.meta, disk: start, active: now,
		imports: importing{going: req.meta.kind == imported}, arch: archival.New(),
	}
	if s.tenant == nil {
		s.tenant = &tenant{}
	}
	s.tenant.timelines = append(s.tenant.timelines, tl)
	slices.SortFunc(s.tenant.timelines,
		func(a, b *timeline) int { return compareTimelines(a.id, b.id) })
	ts.putIndex(shard, s, tl)
	return tl, nil
}

// remove marks a timeline deleted, durably. The rest happens in the background;
// done tells that there is nothing left.
func (ts *timelines) remove(
	now time.Duration, shard neon.ShardID, s *slot, id neon.TimelineID,
) (done bool, f *failure) {
	tl := ts.findAny(now, shard, s, id)
	if tl == nil {
		return true, nil
	}
	if tl.deleting {
		return false, nil
	}
	if tl.arch.Taken != archival.Free {
		return false, fail(http.StatusConflict,
			"Conflict: timeline deletion or offload is already in progress")
	}
	for _, child := range s.tenant.timelines {
		if child.meta.kind == branched && child.meta.ancestor == id {
			return false, fail(http.StatusPreconditionFailed,
				"Precondition failed: Cannot delete timeline which has child timelines")
		}
	}
	tl.deleting, tl.gone = true, now+ts.behave.DeleteTimeline
	ts.putIndex(shard, s, tl)
	return false, nil
}

func (ts *timelines) putIndex(shard neon.ShardID, s *slot, tl *timeline, added ...layer) {
	tl.marks.archived = tl.arch.Dirty
	if tl.arch.Loaded {
		defer tl.arch.Upload()
	}
	ts.store.putIndex(remoteID{shard, tl.id}, indexPart{
		gen: s.gen, meta: tl.meta, disk: tl.disk, layers: tl.layers, marks: tl.marks,
		detached: tl.detached, importing: tl.imports.going, deleted: tl.deleting,
		cutOff: ts.cutOff != nil && ts.cutOff(),
	}, added...)
}

// reached tells which of the wanted positions a shard has: all, some timelines
// behind, or none of the timelines known.
func (ts *timelines) reached(
	now time.Duration, shard neon.ShardID, s *slot, want map[neon.TimelineID]neon.Lsn,
) (all, any bool) {
	all = true
	for id, lsn := range want {
		tl := ts.find(now, shard, s, id)
		if tl == nil {
			continue
		}
		any = true
		if cmp.Less(ts.lastRecord(now, tl), lsn) {
			all = false
		}
	}
	return all, any
}
