package simpageserver

// attachmentRules are I2, I6 and I7: who is attached, and in which generation.
type attachmentRules struct{ facts }

// attach checks I2, I6 and I7 for a location that became attached in a
// generation, and records it.
func (r *attachmentRules) attach(p uint32, t transition, f *shardFacts, by source) {
	node := r.roster.procs[p].node
	newest, known := f.committed()
	switch g := f.at(t.gen); {
	case g.holder != 0 && g.holder != p:
		r.checkSoleHolder(p, t, f, by)
	case g.holder == p && !g.attached && g.stolen:
		r.journal.late++ // the sender cannot know
	case g.holder == p && !g.attached && (!known || newest == t.gen) && r.journal.meant(by):
		r.journal.violate(2, t.shard, node,
			"attached again in generation %d, which it had given up", t.gen)
	}
	for i := range f.gens {
		g := &f.gens[i]
		if g.holder == 0 || g.gen <= t.gen {
			continue
		}
		if r.roster.procs[g.holder].node == node && (!known || newest > t.gen) &&
			r.journal.meant(by) {
			r.journal.violate(6, t.shard, node, "attached in generation %d after %d", t.gen, g.gen)
		}
		if t.to == modeMulti && g.attached && g.holder != p && r.roster.procs[g.holder].alive &&
			r.journal.meant(by) {
			r.journal.violate(7, t.shard, node,
				"AttachedMulti in generation %d beside %d on node %s", t.gen, g.gen, r.roster.procs[g.holder].node)
		}
	}
	if t.to == modeStale && t.from.attached() && r.journal.meant(by) {
		r.journal.violate(7, t.shard, node,
			"AttachedStale re-attached the origin in generation %d, it had %d", t.gen, t.fromGen)
	}
	for i := range f.gens {
		if f.gens[i].holder == p {
			f.gens[i].attached = false
		}
	}
	g := f.at(t.gen)
	g.holder, g.mode, g.attached, g.stolen, g.unknown = p, t.to, true, false, by == byLate
}

// checkSoleHolder is I2 and the first half of I7. A retry of one grant may reach
// the next incarnation of the same pageserver while a newer generation is
// already committed: the first holder is dead and the location obsolete, so
// that is excused.
func (r *attachmentRules) checkSoleHolder(p uint32, t transition, f *shardFacts, by source) {
	g := f.at(t.gen)
	me, other := r.roster.procs[p], r.roster.procs[g.holder]
	newest, known := f.committed()
	if me.node == other.node && !other.alive && by != byReattach && known && newest > t.gen {
		return
	}
	r.journal.violate(2, t.shard, me.node,
		"generation %d was held by node %s incarnation %d, now by incarnation %d", t.gen,
		other.node, other.incarnation, me.incarnation)
	if g.attached && other.alive {
		r.journal.violate(7, t.shard, me.node,
			"generation %d is attached on node %s as well", t.gen, other.node)
	}
}

// release records that an attached location was demoted or detached. It returns the
// newer attachment in whose favour that was, and whether a call that no leader knows of
// had made what was released.
func (r *attachmentRules) release(
	p uint32, t transition, f *shardFacts, by source,
) (successor *genFacts, unknown bool) {
	for i := range f.gens {
		g := &f.gens[i]
		switch {
		case g.holder == p:
			unknown = unknown || g.attached && g.unknown
			g.attached, g.stolen = false, by == byLate
		case g.attached && g.gen > t.fromGen && r.roster.procs[g.holder].alive:
			successor = g
		}
	}
	return successor, unknown
}
