package scheduler

import (
	"fmt"

	"quorate/api/neon"
	"quorate/fsm"
)

// round is what all decisions of one round share: the nodes with what they have,
// and the tenant under decision. It decides nothing itself.
//
// Invariant: between take and put the locations of one shard are not counted.
type round struct {
	*fleet
	state *fsm.State

	// The tenant under decision, and the nodes with a location of it.
	tenant    fsm.Tenant
	splitting bool // the tenant
	entered   bool
	occupied  []int

	scratch []neon.NodeID
}

// enter makes a tenant the one under decision: its locations, by node, are what
// keeps its shards apart.
func (r *round) enter(id neon.TenantID) {
	if r.entered && r.tenant.ID == id {
		return
	}
	for _, i := range r.occupied {
		r.nodes[i].affinity = 0
	}
	r.occupied = r.occupied[:0]
	tenant, ok := r.state.Tenant(id)
	if !ok {
		tenant = fsm.Tenant{ID: id}
	}
	r.tenant, r.splitting, r.entered = tenant, r.state.Splitting(id), true
	for sh := range r.state.TenantShards(id) {
		r.occupy(sh.Attached, +1)
		for _, n := range sh.Secondary {
			r.occupy(n, +1)
		}
	}
}

// held reports whether nothing of the tenant may be placed now: it is being deleted
// or split.
func (r *round) held() bool { return r.tenant.Deleting || r.splitting }

func (r *round) occupy(id neon.NodeID, by int) {
	if i, ok := r.index[id]; ok {
		if r.nodes[i].affinity == 0 {
			r.occupied = append(r.occupied, i)
		}
		r.nodes[i].affinity += by
	}
}

// take opens the decision on a shard: what it has is not counted meanwhile.
func (r *round) take(sh *fsm.Shard) draft {
	r.enter(sh.ID.Tenant)
	r.scratch = append(r.scratch[:0], sh.Secondary...)
	d := draft{
		fleet: r.fleet, state: r.state, attached: sh.Attached, secondary: r.scratch,
		preferred: sh.PreferredNode, az: sh.PreferredAZ,
	}
	r.count(&d, -1)
	return d
}

// put closes the decision: what the draft holds is counted from here on.
func (r *round) put(d *draft) { r.count(d, +1) }

// undo closes the decision on a shard without a change.
func (r *round) undo(sh *fsm.Shard) {
	r.put(&draft{attached: sh.Attached, secondary: sh.Secondary, az: sh.PreferredAZ})
}

func (r *round) count(d *draft, by int) {
	r.countOne(d.attached, d.az, fsm.NodeCounts{Shards: by, Attached: by})
	for _, id := range d.secondary {
		r.countOne(id, d.az, fsm.NodeCounts{Shards: by})
	}
}

func (r *round) countOne(id neon.NodeID, home neon.AZ, by fsm.NodeCounts) {
	n := r.node(id)
	if n == nil {
		return
	}
	r.occupy(id, by.Shards)
	n.counts.Shards += by.Shards
	n.counts.Attached += by.Attached
	if !home.IsZero() && home == n.az {
		n.counts.Home += by.Shards
		if n.zone >= 0 {
			r.zones[n.zone].home += by.Shards
		}
	}
	n.refresh()
}

// unplaced is the error for a location that no node can take.
func (r *round) unplaced(id neon.ShardID) error {
	cause := ErrNoFit
	if len(r.nodes) == 0 {
		cause = ErrNoNodes
	}
	return &neon.Error{
		Code: neon.Conflict, Msg: "Scheduling error: " + cause.Error(),
		Err: fmt.Errorf("place %s: %w", id, cause),
	}
}

// lost reports whether a node may be given up: a node that warms up may not.
func (r *round) lost(id neon.NodeID) bool {
	n, ok := r.state.Node(id)
	return !ok || n.Tombstone || n.Availability == neon.NodeOffline
}

// nowhere reports whether a shard that should be served, and may be touched, is not.
func (r *round) nowhere(sh *fsm.Shard) bool {
	return r.tenant.Policy.Kind == neon.PlaceAttached && r.tenant.Scheduling != neon.ShardStop &&
		sh.Attached == 0
}
