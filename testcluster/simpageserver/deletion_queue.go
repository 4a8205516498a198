package simpageserver

import (
	"slices"

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

// deletionQueue is the deletion queue of one pageserver. It is on disk.
type deletionQueue struct{ lists []deletionList }

// enqueue moves what an attached-single shard unlinked to a list. Multi keeps it in
// memory until it becomes single, stale never deletes.
func (q *deletionQueue) enqueue(shard neon.ShardID, s *slot) {
	if s.tenant == nil || s.mode != modeSingle || len(s.tenant.unlinked) == 0 {
		return
	}
	q.lists = append(q.lists, deletionList{shard: shard, gen: s.gen, layers: s.tenant.unlinked})
	s.tenant.unlinked = nil
}

// recover decides after a re-attach what becomes of lists written before. When the
// new generation follows directly on a list's, no other pageserver can have owned
// the shard in between, and the list is carried over. Otherwise it is dropped, and
// its objects leak.
func (q *deletionQueue) recover(slots map[neon.ShardID]*slot) {
	kept := q.lists[:0]
	for _, d := range q.lists {
		s := slots[d.shard]
		if s == nil || !s.mode.attached() || s.gen != d.gen+1 {
			continue
		}
		d.gen = s.gen
		kept = append(kept, d)
	}
	q.lists = kept
}

// take hands out at most n lists for validation, removing them.
func (q *deletionQueue) take(n int) []deletionList {
	n = min(n, len(q.lists))
	taken := slices.Clone(q.lists[:n])
	q.lists = slices.Delete(q.lists, 0, n)
	return taken
}

// putBack returns lists that could not be validated.
func (q *deletionQueue) putBack(lists []deletionList) { q.lists = append(q.lists, lists...) }
