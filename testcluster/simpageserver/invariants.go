package simpageserver

import (
	"quorate/api/neon"
)

// Granted tells that an entry was committed which grants a generation of a shard
// to a node. It must be called when the entry is applied, before anybody can act
// on the new state. Every replica may call it; repeats are harmless.
func (o *Oracle) Granted(shard neon.ShardID, gen neon.Generation, node neon.NodeID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.granted = true
	f := o.factsOf(shard)
	newest, known := f.committed()
	oldest := neon.Generation(0)
	if len(f.gens) >= keptGenerations-1 {
		oldest = f.gens[0].gen
	}
	if gen < oldest {
		return
	}
	n := o.nodeIndex(node)
	g := f.at(gen)
	switch {
	case g.grantee == n:
		return
	case g.grantee != 0:
		o.violate(4, shard, node, "generation %d was committed for node %s before", gen,
			o.nodeIDs[g.grantee])
		return
	case known && gen < newest:
		o.violate(3, shard, node, "generation %d committed after %d", gen, newest)
	}
	g.grantee = n
	o.record(Event{Kind: EventGranted, Shard: shard, Node: node, Generation: gen})
}

// Stopped tells that a shard's scheduling is stopped: from now on no location
// call may arrive for it (I12). Resumed ends that.
func (o *Oracle) Stopped(shard neon.ShardID) { o.setStopped(shard, true) }

// Resumed ends Stopped.
func (o *Oracle) Resumed(shard neon.ShardID) { o.setStopped(shard, false) }

func (o *Oracle) setStopped(shard neon.ShardID, stopped bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.factsOf(shard).stopped = stopped
}

// started registers a process and returns its index.
func (o *Oracle) started(node neon.NodeID, incarnation uint32) uint32 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.nodeIndex(node)
	o.procs = append(o.procs, processFacts{node: node, incarnation: incarnation, alive: true})
	o.record(Event{Kind: EventStarted, Node: node, Incarnation: incarnation})
	return uint32(len(o.procs) - 1)
}

// ended tells that a process is gone, and with it all its attachments.
func (o *Oracle) ended(p uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.procs[p].alive = false
	o.record(Event{Kind: EventEnded, Node: o.procs[p].node, Incarnation: o.procs[p].incarnation})
}

// received checks a location change before anything is done with it, so that
// also a refused one counts.
func (o *Oracle) received(p uint32, ch *locationChange) {
	o.mu.Lock()
	defer o.mu.Unlock()
	node := o.procs[p].node
	o.record(Event{
		Kind: EventReceived, Node: node, Incarnation: o.procs[p].incarnation, Shard: ch.shard,
		Generation: ch.gen, Mode: ch.mode.wire(),
	})
	f := o.facts[ch.shard]
	if f != nil && f.stopped {
		o.violate(12, ch.shard, node, "location call for a stopped shard")
	}
	if ch.mode.attached() && ch.hasGen {
		o.checkGranted(ch.shard, ch.gen, node)
	}
}

// checkGranted is I1.
func (o *Oracle) checkGranted(shard neon.ShardID, gen neon.Generation, node neon.NodeID) {
	if !o.granted {
		return
	}
	f := o.factsOf(shard)
	for i := len(f.gens) - 1; i >= 0; i-- {
		g := &f.gens[i]
		if g.gen != gen || g.grantee == 0 {
			continue
		}
		if o.nodeIDs[g.grantee] != node {
			o.violate(1, shard, node, "generation %d was committed for node %s", gen,
				o.nodeIDs[g.grantee])
		}
		return
	}
	if len(f.gens) >= keptGenerations-1 && gen < f.gens[0].gen {
		return
	}
	o.violate(1, shard, node, "generation %d received before it was committed", gen)
}

// source says where a transition came from.
type source uint8

const (
	bySender   source = iota // a PUT whose caller is still there
	byLate                   // a PUT whose caller had gone, or a duplicate
	byReattach               // the answer to a re-attach
)

// moved is called for every change of a slot.
func (o *Oracle) moved(p uint32, t transition, by source) {
	o.mu.Lock()
	defer o.mu.Unlock()
	kind := EventApplied
	if by == byReattach {
		kind = EventReattached
	}
	proc := o.procs[p]
	o.record(Event{
		Kind: kind, Node: proc.node, Incarnation: proc.incarnation, Shard: t.shard,
		Generation: t.gen, Mode: t.to.wire(), Late: by == byLate,
	})
	f := o.factsOf(t.shard)
	switch {
	case by == byReattach:
		if t.lowered || t.to.attached() && t.from.attached() && t.gen <= t.fromGen {
			o.violate(5, t.shard, proc.node,
				"re-attach answered a generation not above %d, which the disk has", t.fromGen)
		} else if t.to.attached() {
			o.attach(p, t, f, by)
		}
	case t.attaches():
		o.attach(p, t, f, by)
	case t.to.attached():
		if g := f.at(t.gen); g.holder == p {
			g.mode, g.unknown = t.to, g.unknown && by == byLate
		}
	case t.from.attached():
		o.release(p, t, f, by)
	}
}

// attach checks I2, I6, I7 and I15 for a location that became attached in a
// generation, and records it.
func (o *Oracle) attach(p uint32, t transition, f *shardFacts, by source) {
	node := o.procs[p].node
	if tf := o.tenants[t.shard.Tenant]; tf != nil && tf.deleted && o.meant(by) {
		o.violate(15, t.shard, node, "attached after the tenant's objects were deleted")
	}
	newest, known := f.committed()
	switch g := f.at(t.gen); {
	case g.holder != 0 && g.holder != p:
		o.checkSoleHolder(p, t, f, by)
	case g.holder == p && !g.attached && g.stolen:
		o.late++ // whoever sends this cannot know
	case g.holder == p && !g.attached && (!known || newest == t.gen) && o.meant(by):
		o.violate(2, t.shard, node, "attached again in generation %d, which it had given up", t.gen)
	}
	for i := range f.gens {
		g := &f.gens[i]
		if g.holder == 0 || g.gen <= t.gen {
			continue
		}
		if o.procs[g.holder].node == node && (!known || newest > t.gen) && o.meant(by) {
			o.violate(6, t.shard, node, "attached in generation %d after %d", t.gen, g.gen)
		}
		if t.to == modeMulti && g.attached && g.holder != p && o.procs[g.holder].alive &&
			o.meant(by) {
			o.violate(7, t.shard, node, "AttachedMulti in generation %d beside %d on node %s",
				t.gen, g.gen, o.procs[g.holder].node)
		}
	}
	if t.to == modeStale && t.from.attached() && o.meant(by) {
		o.violate(7, t.shard, node,
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

// meant tells whether a questionable effect was meant by a caller that still
// waits; otherwise it is only counted.
func (o *Oracle) meant(by source) bool {
	if by == byLate {
		o.late++
		return false
	}
	return true
}

// checkSoleHolder is I2 and the first half of I7. A retry of one grant may reach
// the next incarnation of the same pageserver while a newer generation is
// already committed: the first holder is dead and the location obsolete, so
// that is excused.
func (o *Oracle) checkSoleHolder(p uint32, t transition, f *shardFacts, by source) {
	g := f.at(t.gen)
	me, other := o.procs[p], o.procs[g.holder]
	newest, known := f.committed()
	if me.node == other.node && !other.alive && by != byReattach && known && newest > t.gen {
		return
	}
	o.violate(2, t.shard, me.node,
		"generation %d was held by node %s incarnation %d, now by incarnation %d", t.gen,
		other.node, other.incarnation, me.incarnation)
	if g.attached && other.alive {
		o.violate(7, t.shard, me.node, "generation %d is attached on node %s as well", t.gen,
			other.node)
	}
}

// answered is I1 and I5 for the answer to a re-attach: each attached entry must be
// committed for the node, and follow directly on a generation of the same node.
func (o *Oracle) answered(p uint32, tenants []reattachTenant) {
	o.mu.Lock()
	defer o.mu.Unlock()
	node := o.procs[p].node
	for _, t := range tenants {
		if !t.mode.attached() || !t.hasGen {
			continue
		}
		o.checkGranted(t.shard, t.gen, node)
		f := o.facts[t.shard]
		if f == nil {
			continue
		}
		for i := len(f.gens) - 1; i >= 0; i-- {
			g := f.gens[i]
			if g.gen >= t.gen || g.grantee == 0 {
				continue
			}
			if o.nodeIDs[g.grantee] != node {
				o.violate(5, t.shard, node, "re-attach raised generation %d of node %s", g.gen,
					o.nodeIDs[g.grantee])
			} else if g.gen+1 != t.gen {
				o.violate(5, t.shard, node, "re-attach raised generation %d to %d", g.gen, t.gen)
			}
			break
		}
	}
}

// release checks I9 when an attached location is demoted or detached.
func (o *Oracle) release(p uint32, t transition, f *shardFacts, by source) {
	node := o.procs[p].node
	var successor *genFacts
	unknown := false
	for i := range f.gens {
		g := &f.gens[i]
		switch {
		case g.holder == p:
			unknown = unknown || g.attached && g.unknown
			g.attached, g.stolen = false, by == byLate
		case g.attached && g.gen > t.fromGen && o.procs[g.holder].alive:
			successor = g
		}
	}
	if successor == nil || f.told == 0 || o.nodeIDs[f.told] != node {
		return
	}
	if tf := o.tenants[t.shard.Tenant]; tf != nil && (tf.deleting || tf.putAway) {
		return // compute has nothing left to use
	}
	if unknown {
		o.late++ // compute lost what it used before, and nobody could know of this
		return
	}
	if o.meant(by) {
		o.violate(9, t.shard, node, "taken away in favour of node %s while compute still uses it",
			o.procs[successor.holder].node)
	}
}

// notified is called by the compute hook when compute has taken a location.
func (o *Oracle) notified(shard neon.ShardID, node neon.NodeID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.factsOf(shard).told = o.nodeIndex(node)
	o.record(Event{Kind: EventTold, Shard: shard, Node: node})
}
