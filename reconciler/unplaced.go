package reconciler

import (
	"slices"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

// unplaced is the set of shards whose intent is not what their policy wants.
type unplaced struct {
	mu sync.Mutex

	// shards have since when they have a copy to spare, because their tenants were put to
	// Secondary. The time is zero for all others.
	shards map[neon.ShardID]time.Time
}

func newUnplaced() *unplaced { return &unplaced{shards: make(map[neon.ShardID]time.Time)} }

// note adds or removes a shard, as its record says.
func (u *unplaced) note(st *fsm.State, sh *fsm.Shard) {
	tenant, ok := st.Tenant(sh.ID.Tenant)
	attach := tenant.Policy.Kind == neon.PlaceAttached && sh.Attached == 0
	lacks := ok && !sh.Unmanaged &&
		(attach || len(sh.Secondary) != tenant.Policy.WantedSecondaries())
	spare := tenant.Policy.Kind == neon.PlaceSecondary && len(sh.Secondary) > 1
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case !lacks:
		delete(u.shards, sh.ID)
	case !spare:
		u.shards[sh.ID] = time.Time{}
	case u.shards[sh.ID].IsZero():
		u.shards[sh.ID] = time.Now()
	}
}

func (u *unplaced) forget(id neon.ShardID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.shards, id)
}

// list is the set in order, without those that have had a copy to spare for less than some
// time.
func (u *unplaced) list(spare time.Duration) (ids []neon.ShardID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, since := range u.shards {
		if time.Since(since) >= spare {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, neon.ShardID.Compare)
	return ids
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
