package reconciler

import (
	"cmp"
	"time"

	"quorate/internal/neon"
)

// Patience is how long a move waits for its destination to be warm: at most Warm in
// all, in requests of Request each. Zero is the usual time.
type Patience struct{ Warm, Request time.Duration }

// SetPatience is for the move of a shard that is about to be asked for. It holds
// until the shard is where it should be, or this replica leads no more.
func (r *Reconciler) SetPatience(id neon.ShardID, p Patience) {
	if t := r.current.Load(); t != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.patiences[id] = p
	}
}

// patienceFor is the patience with a shard, the usual one unless somebody has set
// another.
func (t *term) patienceFor(id neon.ShardID) Patience {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.patiences[id]
	return Patience{Warm: cmp.Or(p.Warm, t.Options.WarmTimeout), Request: cmp.Or(p.Request, t.Options.WarmRequest)}
}

// arrived ends the patience with a shard.
func (t *term) arrived(id neon.ShardID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.patiences, id)
}
