package reconciler

import (
	"maps"
	"slices"
	"sync"

	"quorate/api/neon"
	"quorate/fsm"
)

// unplaced is the set of shards whose intent lacks what their policy wants.
type unplaced struct {
	mu     sync.Mutex
	shards map[neon.ShardID]struct{}
}

func newUnplaced() *unplaced { return &unplaced{shards: make(map[neon.ShardID]struct{})} }

// note adds or removes a shard, as its record says.
func (u *unplaced) note(st *fsm.State, sh *fsm.Shard) {
	tenant, ok := st.Tenant(sh.ID.Tenant)
	attach := tenant.Policy.Kind == neon.PlaceAttached && sh.Attached == 0
	lacks := ok && !sh.Unmanaged &&
		(attach || len(sh.Secondary) != tenant.Policy.WantedSecondaries())
	u.mu.Lock()
	defer u.mu.Unlock()
	if lacks {
		u.shards[sh.ID] = struct{}{}
	} else {
		delete(u.shards, sh.ID)
	}
}

func (u *unplaced) forget(id neon.ShardID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.shards, id)
}

// list is the set in order.
func (u *unplaced) list() []neon.ShardID {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.SortedFunc(maps.Keys(u.shards), neon.ShardID.Compare)
}

// freed reports whether one of some tenants, which have changed, has shards in the
// set and is not being split: what kept them from getting a place may be over.
func (u *unplaced) freed(st *fsm.State, tenants []neon.TenantID) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.shards) == 0 {
		return false
	}
	return slices.ContainsFunc(tenants, func(id neon.TenantID) bool {
		tenant, ok := st.Tenant(id)
		return ok && !st.Splitting(id) &&
			slices.ContainsFunc(tenant.Shards(), func(shard neon.ShardID) bool {
				_, lacks := u.shards[shard]
				return lacks
			})
	})
}
