package reconciler

import (
	"time"

	"quorate/api/neon"
)

// Patience is how long a move waits for its destination to be warm: at most Warm in
// all, in requests of Request each. Nil is the usual time; with a Warm of zero there
// is one request.
type Patience struct{ Warm, Request *time.Duration }

// warmLimits are those of one move.
type warmLimits struct{ warm, request time.Duration }

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
func (t *term) patienceFor(id neon.ShardID) warmLimits {
	t.mu.Lock()
	defer t.mu.Unlock()
	set, p := t.patiences[id], warmLimits{t.Options.WarmTimeout, t.Options.WarmRequest}
	if set.Warm != nil {
		p.warm = *set.Warm
	}
	if set.Request != nil {
		p.request = *set.Request
	}
	return p
}

// arrived ends the patience with a shard.
func (t *term) arrived(id neon.ShardID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.patiences, id)
}
