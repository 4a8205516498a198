package reconciler

import (
	"sync"
	"time"

	"quorate/api/neon"
)

// moveLimits bound how long a move waits for its destination to be warm: at most
// total, in requests of request each. Nil is the usual time.
type moveLimits struct{ total, request *time.Duration }

// warmLimits are the limits of single moves; all others have the usual ones.
type warmLimits struct {
	total, request time.Duration // the usual ones

	mu sync.Mutex
	by map[neon.ShardID]moveLimits
}

func newWarmLimits(o Options) *warmLimits {
	return &warmLimits{
		total: o.WarmTimeout, request: o.WarmRequest, by: make(map[neon.ShardID]moveLimits),
	}
}

func (w *warmLimits) set(id neon.ShardID, l moveLimits) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.by[id] = l
}

// of are the limits of a shard's move.
func (w *warmLimits) of(id neon.ShardID) (total, request time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	total, request = w.total, w.request
	set := w.by[id]
	if set.total != nil {
		total = *set.total
	}
	if set.request != nil {
		request = *set.request
	}
	return total, request
}

// has reports whether a shard's move has limits of its own.
func (w *warmLimits) has(id neon.ShardID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.by[id]
	return ok
}

// forget ends the limits of a shard: it is where it should be.
func (w *warmLimits) forget(id neon.ShardID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.by, id)
}
