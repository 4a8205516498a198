package split

import (
	"sync"

	"quorate/api/neon"
	"quorate/fsm"
)

// keptReasons bounds the memory of splits that were rolled back.
const keptReasons = 256

// reasons remembers why splits were rolled back here, for requests that wait for one
// and do not look at its record in time.
type reasons struct {
	mu      sync.Mutex
	aborted map[neon.TenantID]fsm.Split
}

// remember keeps the reason of a split. It reports whether it is new.
func (r *reasons) remember(sp fsm.Split) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.aborted[sp.Tenant].Began == sp.Began {
		return false
	}
	if r.aborted == nil || len(r.aborted) >= keptReasons {
		r.aborted = make(map[neon.TenantID]fsm.Split)
	}
	r.aborted[sp.Tenant] = sp
	return true
}

// of is the error for a request whose split was rolled back.
func (r *reasons) of(asked fsm.Split) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if sp, ok := r.aborted[asked.Tenant]; ok && sp.Count == asked.Count && sp.Began >= asked.Began {
		return neon.Errorf(sp.Code, "%s", sp.Reason)
	}
	return neon.Errorf(neon.Conflict,
		"Unexpected child shard count: the split of tenant %s was rolled back", asked.Tenant)
}
