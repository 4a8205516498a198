package simpageserver

import "quorate/api/neon"

// generationRules are I1, I3, I4 and I5: what is committed before it is used.
type generationRules struct{ facts }

// grant records a committed generation, and is I3 and I4.
func (r *generationRules) grant(shard neon.ShardID, gen neon.Generation, node neon.NodeID) {
	r.shards.granted = true
	f := r.shards.of(shard)
	newest, known := f.committed()
	oldest := neon.Generation(0)
	if len(f.gens) >= keptGenerations-1 {
		oldest = f.gens[0].gen
	}
	if gen < oldest {
		return
	}
	n := r.roster.nodeIndex(node)
	g := f.at(gen)
	switch {
	case g.grantee == n:
		return
	case g.grantee != 0:
		r.journal.violate(4, shard, node, "generation %d was committed for node %s before", gen,
			r.roster.nodeIDs[g.grantee])
		return
	case known && gen < newest:
		r.journal.violate(3, shard, node, "generation %d committed after %d", gen, newest)
	}
	g.grantee = n
	r.journal.record(Event{Kind: EventGranted, Shard: shard, Node: node, Generation: gen})
}

// checkGranted is I1.
func (r *generationRules) checkGranted(
	shard neon.ShardID, gen neon.Generation, node neon.NodeID,
) {
	if !r.shards.granted {
		return
	}
	f := r.shards.of(shard)
	for i := len(f.gens) - 1; i >= 0; i-- {
		g := &f.gens[i]
		if g.gen != gen || g.grantee == 0 {
			continue
		}
		if r.roster.nodeIDs[g.grantee] != node {
			r.journal.violate(1, shard, node, "generation %d was committed for node %s", gen,
				r.roster.nodeIDs[g.grantee])
		}
		return
	}
	if len(f.gens) >= keptGenerations-1 && gen < f.gens[0].gen {
		return
	}
	r.journal.violate(1, shard, node, "generation %d received before it was committed", gen)
}

// answered is I1 and I5 for the answer to a re-attach: each attached entry must be
// committed for the node, and follow directly on a generation of the same node.
func (r *generationRules) answered(p uint32, tenants []reattachTenant) {
	node := r.roster.procs[p].node
	for _, t := range tenants {
		if !t.mode.attached() || !t.hasGen {
			continue
		}
		r.checkGranted(t.shard, t.gen, node)
		f := r.shards.facts[t.shard]
		if f == nil {
			continue
		}
		for i := len(f.gens) - 1; i >= 0; i-- {
			g := f.gens[i]
			if g.gen >= t.gen || g.grantee == 0 {
				continue
			}
			if r.roster.nodeIDs[g.grantee] != node {
				r.journal.violate(5, t.shard, node, "re-attach raised generation %d of node %s", g.gen,
					r.roster.nodeIDs[g.grantee])
			} else if g.gen+1 != t.gen {
				r.journal.violate(5, t.shard, node, "re-attach raised generation %d to %d", g.gen, t.gen)
			}
			break
		}
	}
}

// lowered is I5 for what a re-attach did to a location.
func (r *generationRules) lowered(t transition, node neon.NodeID) bool {
	if !t.lowered && (!t.to.attached() || !t.from.attached() || t.gen > t.fromGen) {
		return false
	}
	r.journal.violate(5, t.shard, node,
		"re-attach answered a generation not above %d, which the disk has", t.fromGen)
	return true
}
