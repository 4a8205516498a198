package simpageserver

import "quorate/api/neon"

// deletionRules are I13 and I14: which objects may be deleted.
type deletionRules struct{ facts }

// validation is one entry of a validate upcall.
type validation struct {
	shard neon.ShardID
	gen   neon.Generation
	valid bool
}

// validating notes the newest generations before a validate is sent.
func (r *deletionRules) validating(items []validation) []neon.Generation {
	before := make([]neon.Generation, len(items))
	for i, it := range items {
		if f := r.shards.facts[it.shard]; f != nil {
			before[i], _ = f.newest()
		}
	}
	return before
}

// validated is I13: a yes must have been right at some moment since validating.
func (r *deletionRules) validated(p uint32, items []validation, before []neon.Generation) {
	proc := r.roster.procs[p]
	node := proc.node
	for i, it := range items {
		e := Event{
			Kind: EventValidated, Node: node, Incarnation: proc.incarnation, Shard: it.shard,
			Generation: it.gen, Note: "no",
		}
		if it.valid {
			e.Note = "yes"
		}
		r.journal.record(e)
		if !it.valid {
			continue
		}
		if it.gen < before[i] {
			r.journal.violate(13, it.shard, node,
				"validate accepted generation %d, the newest was %d", it.gen, before[i])
			continue
		}
		if !r.shards.granted {
			continue
		}
		var committed neon.Generation
		known := false
		if f := r.shards.facts[it.shard]; f != nil {
			committed, known = f.committed()
		}
		if !known || it.gen > committed {
			r.journal.violate(13, it.shard, node,
				"validate accepted generation %d, which was never committed", it.gen)
		}
	}
}

// lost is I14: a deleted layer is named by an index that may still be loaded.
func (r *deletionRules) lost(p uint32, id remoteID, l layer, index neon.Generation) {
	r.journal.violate(14, id.shard, r.roster.procs[p].node,
		"layer %s-%s of timeline %s deleted, the index of generation %d names it", l.name(), l.gen,
		id.timeline, index)
}
