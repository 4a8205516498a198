package reconciler

import (
	"sync"
	"time"

	"quorate/api/neon"
)

// WarmLimits bound how long a move waits for its destination to be warm: at most
// Total, in requests of Request each. Nil is the usual time. With a Total of zero
// there is one request.
type WarmLimits struct{ Total, Request *time.Duration }

// warmLimits are the limits of single moves; all others have the usual ones.
type warmLimits struct {
	total, request time.Duration // the usual ones

	mu sync.Mutex
	by map[neon.ShardID]WarmLimits
}

func newWarmLimits(o Options) *warmLimits {
	return &warmLimits{
		total: o.WarmTimeout, request: o.WarmRequest, by: make(map[neon.ShardID]WarmLimits),
	}
}

func (w *warmLimits) set(id neon.ShardID, l WarmLimits) {
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
	if set.Total != nil {
		total = *set.Total
	}
	if set.Request != nil {
		request = *set.Request
	}
	return total, request
}

// forget ends the limits of a shard: it is where it should be.
func (w *warmLimits) forget(id neon.ShardID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.by, id)
}
