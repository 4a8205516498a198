package simpageserver

import "quorate/api/neon"

// computeRules are I9, and what I8 needs: what compute was told.
type computeRules struct {
	facts
	lastNode map[neon.ShardID]uint32 // node index compute was last told; 0 is never
}

// takenAway is how a node lost a shard to another.
type takenAway struct {
	successor uint32 // the process that has the shard now
	unknown   bool   // no leader could know that the node had it
	by        source
}

// takenAway is I9: compute must have heard of the successor.
func (r *computeRules) takenAway(shard neon.ShardID, node neon.NodeID, how takenAway) {
	at := r.lastNode[shard]
	if at == 0 || r.roster.nodeIDs[at] != node {
		return
	}
	if how.unknown {
		r.journal.late++ // compute lost what it used before, and no leader could know of this
		return
	}
	if r.journal.meant(how.by) {
		r.journal.violate(9, shard, node,
			"taken away in favour of node %s while compute still uses it",
			r.roster.procs[how.successor].node)
	}
}

// notified records what compute was told of a whole tenant: one node for each shard
// of one count. What it was told of other counts is void.
//
// A late notification, whose caller had gone, is only counted: a control plane has
// to see for itself that it is older than what it took since.
func (r *computeRules) notified(t neon.TenantID, nodes []neon.NodeID, late bool) {
	count := neon.ShardCount(len(nodes))
	if late {
		r.journal.late++
	} else {
		for id := range r.shards.counts.shards(t) {
			if id.Count.Shards() != len(nodes) {
				delete(r.lastNode, id)
			}
		}
		if len(nodes) == 1 && !r.sharded(t) {
			count = 0
		}
	}
	for i, node := range nodes {
		shard := neon.ShardID{Tenant: t, Number: neon.ShardNumber(i), Count: count}
		if !late {
			r.shards.of(shard)
			r.lastNode[shard] = r.roster.nodeIndex(node)
		}
		r.journal.record(Event{Kind: EventNotified, Shard: shard, Node: node, Late: late})
	}
}

// sharded reports whether the only shard of a tenant is that of a sharded one. Under the id of
// a tenant that was deleted, one of the other kind may have been created: with higher numbers.
func (r *computeRules) sharded(t neon.TenantID) bool {
	one, sharded := r.shards.facts[neon.ShardID{Tenant: t, Count: 1}]
	zero, also := r.shards.facts[neon.ShardID{Tenant: t}]
	if !sharded || !also {
		return sharded
	}
	newest, _ := one.newest()
	other, _ := zero.newest()
	return newest > other
}
