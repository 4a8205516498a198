package simpageserver

import "quorate/api/neon"

// tenantRules are I12, I15 and I32: what was decided about tenants and shards.
type tenantRules struct {
	facts
	tenants map[neon.TenantID]*tenantFacts
	stopped map[neon.ShardID]bool
	intents bool           // Deleting was called at least once
	asked   map[place]bool // the newest change of each location came while nothing served
}

// place is a shard on a node.
type place struct {
	shard neon.ShardID
	node  neon.NodeID
}

type tenantFacts struct {
	deleting bool // the controller committed the intent to delete
	deleted  bool // its objects were deleted on request
	putAway  bool // its policy leaves compute nothing to use
	again    bool // it was created again under its id
	travels  int  // calls that put its objects back in time
	wild     bool // clients attach it on pageservers themselves
}

func (r *tenantRules) of(t neon.TenantID) *tenantFacts {
	f := r.tenants[t]
	if f == nil {
		f = &tenantFacts{}
		r.tenants[t] = f
	}
	return f
}

// deleted reports whether the objects of a tenant were deleted.
func (r *tenantRules) deleted(t neon.TenantID) bool {
	f := r.tenants[t]
	return f != nil && f.deleted
}

// serves reports whether compute has anything left to use of a tenant.
func (r *tenantRules) serves(t neon.TenantID) bool {
	f := r.tenants[t]
	return f == nil || !f.deleting && !f.putAway
}

// servedAt reports whether compute had anything to use of a tenant when the newest change of
// a location of it arrived. What was asked before that is carried out after it.
func (r *tenantRules) servedAt(shard neon.ShardID, node neon.NodeID) bool {
	return r.serves(shard.Tenant) && !r.asked[place{shard, node}]
}

// called is I12, for a location call.
func (r *tenantRules) called(shard neon.ShardID, node neon.NodeID) {
	if at := (place{shard, node}); r.serves(shard.Tenant) {
		delete(r.asked, at)
	} else {
		r.asked[at] = true
	}
	if r.stopped[shard] {
		r.journal.violate(12, shard, node, "location call for a stopped shard")
	}
}

// attached is I15, for a location that became attached.
func (r *tenantRules) attached(shard neon.ShardID, node neon.NodeID, by source) {
	if r.deleted(shard.Tenant) && r.journal.meant(by) {
		r.journal.violate(15, shard, node, "attached after the tenant's objects were deleted")
	}
	if f := r.tenants[shard.Tenant]; f != nil && f.travels > 0 && !f.wild &&
		r.journal.meant(by) {
		r.journal.violate(32, shard, node, "attached while the tenant's objects are put back")
	}
}

// travels is I32: called when a pageserver begins to put objects back in time.
func (r *tenantRules) travels(p uint32, shard neon.ShardID) {
	tf := r.of(shard.Tenant)
	tf.travels++
	for id := range r.shards.counts.shards(shard.Tenant) {
		if node, ok := r.attachedOn(id); ok && !tf.wild {
			r.journal.violate(32, id, r.roster.procs[p].node,
				"objects put back while attached on node %s", node)
		}
	}
}

// attachedOn finds a pageserver that can be reached and has a shard attached.
func (r *tenantRules) attachedOn(id neon.ShardID) (node neon.NodeID, ok bool) {
	f := r.shards.facts[id]
	if f == nil {
		return 0, false
	}
	for _, g := range f.gens {
		if g.attached && r.roster.reachable(g.holder) {
			return r.roster.procs[g.holder].node, true
		}
	}
	return 0, false
}

// prefixDeleted is I15: called when a pageserver is about to delete the objects
// of a shard, or of all shards of a tenant if the id is unsharded.
func (r *tenantRules) prefixDeleted(p uint32, shard neon.ShardID, unseen bool) bool {
	node := r.roster.procs[p].node
	r.journal.record(Event{
		Kind: EventDeleted, Node: node, Incarnation: r.roster.procs[p].incarnation, Shard: shard,
	})
	tf := r.of(shard.Tenant)
	if unseen && tf.again && !tf.deleting {
		r.journal.late++
		return false
	}
	if r.intents && !tf.deleting {
		r.journal.violate(15, shard, node, "objects deleted without a committed intent")
	}
	for id := range r.shards.counts.shards(shard.Tenant) {
		f := r.shards.facts[id]
		if f == nil || !shard.IsUnsharded() && id != shard {
			continue
		}
		for _, g := range f.gens {
			if g.attached && r.roster.reachable(g.holder) {
				r.journal.violate(15, id, node,
					"objects deleted while attached on node %s in generation %d",
					r.roster.procs[g.holder].node, g.gen)
			}
		}
	}
	if shard.IsUnsharded() {
		tf.deleted = true
	}
	return true
}
