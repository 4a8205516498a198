package reconciler

import (
	"slices"
	"sync"

	"quorate/api/neon"
)

// report is what is counted and reported of reconciles beyond single passes.
type report struct {
	mu sync.Mutex

	// unnotified are shards whose reconcile waits only for compute to be told: until
	// that was tried it is not known how it ends.
	unnotified map[neon.ShardID]struct{}

	// away are nodes that went offline with a location of a shard. When one is back it
	// is looked at again, and that counts as a reconcile even if nothing has to be
	// changed.
	away map[neon.ShardID][]neon.NodeID

	// failing are shards whose passes failed since they were last in order.
	failing map[neon.ShardID]failing
	passes  uint64 // that failed
}

type failing struct {
	// last are numbers of the newest passes among the failed ones, newest first.
	last [toleratedFailures]uint64
	err  error
}

// toleratedFailures is how many failures in a row are not told to a client that
// waits for everything: what fails once is often well a moment later.
const toleratedFailures = 3

func newReport() *report {
	return &report{
		unnotified: make(map[neon.ShardID]struct{}), away: make(map[neon.ShardID][]neon.NodeID),
		failing: make(map[neon.ShardID]failing),
	}
}

// notifying keeps the end of a reconcile open until compute was told.
func (r *report) notifying(id neon.ShardID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unnotified[id] = struct{}{}
}

// taken ends that, and reports whether there was such a reconcile: it goes on, or it
// has failed to tell compute.
func (r *report) taken(id neon.ShardID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, open := r.unnotified[id]
	delete(r.unnotified, id)
	return open
}

// wentAway says that a node with a location of a shard went offline.
func (r *report) wentAway(id neon.ShardID, n neon.NodeID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.away[id], n) {
		r.away[id] = append(r.away[id], n)
	}
}

// inOrder says that a shard is as it should be, and reports whether it was looked at on
// a node that had been away.
func (r *report) inOrder(id neon.ShardID, away func(neon.NodeID) bool) (looked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.failing, id)
	before := r.away[id]
	if len(before) == 0 {
		return false
	}
	left := slices.DeleteFunc(slices.Clone(before), func(n neon.NodeID) bool { return !away(n) })
	if r.away[id] = left; len(left) == 0 {
		delete(r.away, id)
	}
	return len(left) < len(before)
}

// failed says that a pass has failed.
func (r *report) failed(id neon.ShardID, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.passes++
	f := r.failing[id]
	copy(f.last[1:], f.last[:])
	f.last[0], f.err = r.passes, err
	r.failing[id] = f
}

// has reports whether the end of a shard's next pass is to be told.
func (r *report) has(id neon.ShardID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, open := r.unnotified[id]
	_, failed := r.failing[id]
	return open || failed || len(r.away[id]) > 0
}

// forget drops a shard that is no more.
func (r *report) forget(id neon.ShardID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.unnotified, id)
	delete(r.away, id)
	delete(r.failing, id)
}

// mark is a moment to ask failedSince about.
func (r *report) mark() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.passes
}

// failedSince is a shard whose newest passes all failed, that many of them, 1 to
// toleratedFailures, after a mark; its error is nil when there is none.
func (r *report) failedSince(mark uint64, times int) (id neon.ShardID, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var first uint64
	for shard, f := range r.failing {
		if f.last[times-1] > mark && (first == 0 || f.last[0] < first) {
			first, id, err = f.last[0], shard, f.err
		}
	}
	return id, err
}
