package simpageserver

import (
	"slices"
	"time"

	"quorate/api/neon"
)

// unlinked is a layer that the newest index no longer names.
type unlinked struct {
	timeline neon.TimelineID
	layer    layer
}

// deletionList is a batch of the deletion queue: layers of one shard that one
// generation unlinked. It is on disk. Invariant: it is executed only once the
// controller has said that gen is the shard's newest.
type deletionList struct {
	shard  neon.ShardID
	gen    neon.Generation
	layers []unlinked
}

// upload writes the log since the last upload as one layer and publishes an
// index that names it. Every attached mode does it, stale ones too: a stale
// owner's objects carry its own generation.
func (c *core) upload(now time.Duration, shard neon.ShardID, s *slot, tl *timeline) {
	last := c.lastRecord(now, tl)
	if tl.deleting || last <= tl.disk {
		return
	}
	l := layer{
		owner: ownerOf(shard), lo: tl.disk, hi: last, gen: s.gen,
		size: uint32(min(uint64(last-tl.disk), 1<<31)),
	}
	tl.layers = append(slices.Clip(tl.layers), l)
	tl.disk = last
	c.putIndex(shard, s, tl, l)
}

// compact replaces the layers of a timeline by one, publishes the index and
// leaves the old layers to the deletion queue. Stale locations do not compact.
func (c *core) compact(shard neon.ShardID, s *slot, tl *timeline) {
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
	c.putIndex(shard, s, tl, merged)
	for _, l := range old {
		if l.owner != ownerOf(shard) {
			continue // an ancestor's: other shards may name it
		}
		s.tenant.unlinked = append(s.tenant.unlinked, unlinked{tl.id, l})
	}
}

// uploadAll uploads every timeline of a shard.
func (c *core) uploadAll(now time.Duration, shard neon.ShardID, s *slot) {
	for _, tl := range c.settle(now, shard, s) {
		c.upload(now, shard, s, tl)
	}
}

// enqueueDeletions moves what attached-single shards unlinked to lists. Multi
// keeps it in memory until it becomes single, stale never deletes.
func (c *core) enqueueDeletions(shard neon.ShardID, s *slot) {
	if s.tenant == nil || s.mode != modeSingle || len(s.tenant.unlinked) == 0 {
		return
	}
	c.lists = append(c.lists, deletionList{shard: shard, gen: s.gen, layers: s.tenant.unlinked})
	s.tenant.unlinked = nil
}

// recoverLists decides after a re-attach what becomes of lists written before:
// when the new generation follows directly on a list's, nobody else can have
// owned the shard in between and the list is carried over; otherwise it is
// dropped, and its objects leak.
func (c *core) recoverLists() {
	kept := c.lists[:0]
	for _, d := range c.lists {
		s := c.slots[d.shard]
		if s == nil || !s.mode.attached() || s.gen != d.gen+1 {
			continue
		}
		d.gen = s.gen
		kept = append(kept, d)
	}
	c.lists = kept
}

// takeLists hands out at most n lists for validation, removing them.
func (c *core) takeLists(n int) []deletionList {
	n = min(n, len(c.lists))
	taken := slices.Clone(c.lists[:n])
	c.lists = slices.Delete(c.lists, 0, n)
	return taken
}

// maintain does one round of background work on one shard.
func (c *core) maintain(now time.Duration, shard neon.ShardID, s *slot) {
	if s.busy || s.broken || !s.mode.attached() || now < s.since || s.tenant == nil {
		return
	}
	for _, tl := range c.settle(now, shard, s) {
		c.upload(now, shard, s, tl)
		if len(tl.layers) >= compactAt && tl.usable() {
			c.compact(shard, s, tl)
		}
	}
	if s.mode != modeStale && hasHeatmapPeriod(s.conf) {
		c.uploadHeatmap(now, shard, s)
	}
	c.enqueueDeletions(shard, s)
}

// compactAt is the number of layers at which background compaction sets in.
const compactAt = 4
