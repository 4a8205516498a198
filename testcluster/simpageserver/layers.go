package simpageserver

import (
	"slices"
	"time"

	"quorate/api/neon"
)

// upload writes the log since the last upload as one layer and publishes an
// index that names it. Every attached mode does it, stale ones too: a stale
// owner's objects carry its own generation.
func (ts *timelines) upload(now time.Duration, shard neon.ShardID, s *slot, tl *timeline) {
	last := ts.lastRecord(now, tl)
	if tl.deleting || last <= tl.disk || ts.behave.NoUploads {
		return
	}
	l := layer{
		owner: ownerOf(shard), lo: tl.disk, hi: last, gen: s.gen,
		size: uint32(min(uint64(last-tl.disk), 1<<31)),
	}
	tl.layers = append(slices.Clip(tl.layers), l)
	tl.disk = last
	ts.putIndex(shard, s, tl, l)
}

// compact replaces the layers of a timeline by one, publishes the index and
// leaves the old layers to the deletion queue. Stale locations do not compact.
func (ts *timelines) compact(shard neon.ShardID, s *slot, tl *timeline) {
	if s.mode == modeStale || tl.deleting || len(tl.layers) < 2 {
		return
	}
	old := tl.layers
	var size uint64
	for _, l := range old {
		size += uint64(l.size)
	}
	merged := layer{
		owner: ownerOf(shard), lo: old[0].lo, hi: tl.disk, gen: s.gen,
		size: uint32(min(size, 1<<31)),
	}
	tl.layers = []layer{merged}
	ts.putIndex(shard, s, tl, merged)
	for _, l := range old {
		if l.owner != ownerOf(shard) {
			continue // an ancestor's: other shards may name it
		}
		s.tenant.unlinked = append(s.tenant.unlinked, unlinked{tl.id, l})
	}
}

// uploadAll uploads every timeline of a shard.
func (ts *timelines) uploadAll(now time.Duration, shard neon.ShardID, s *slot) {
	for _, tl := range ts.remaining(now, shard, s) {
		ts.upload(now, shard, s, tl)
	}
}
