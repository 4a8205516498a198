package simpageserver

import "quorate/api/neon"

// Granted tells that an entry was committed which grants a generation of a shard
// to a node. It must be called when the entry is applied, before anybody can act
// on the new state. Every replica may call it; repeats are harmless.
func (o *Oracle) Granted(shard neon.ShardID, gen neon.Generation, node neon.NodeID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.generations.grant(shard, gen, node)
}

// Stopped tells that a shard's scheduling is stopped: from now on no location
// call may arrive for it (I12). Resumed ends that.
func (o *Oracle) Stopped(shard neon.ShardID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shards.of(shard)
	o.tenants.stopped[shard] = true
}

// Resumed ends Stopped.
func (o *Oracle) Resumed(shard neon.ShardID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shards.of(shard)
	delete(o.tenants.stopped, shard)
}

// Deleting tells that the intent to delete a tenant was committed. Once it was
// called for any tenant, every deletion of a tenant's objects needs it (I15).
func (o *Oracle) Deleting(t neon.TenantID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tenants.intents = true
	o.tenants.of(t).deleting = true
}

// PutAway tells that a tenant is about to get a policy under which nothing of it
// is attached: I9 does not ask for compute to be told. Serving ends it.
func (o *Oracle) PutAway(t neon.TenantID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tenants.of(t).putAway = true
}

// Wild tells that clients attach a tenant on pageservers themselves, whatever the
// controllers know of it: I32 is not theirs to keep.
func (o *Oracle) Wild(t neon.TenantID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tenants.of(t).wild = true
}

// Serving ends PutAway.
func (o *Oracle) Serving(t neon.TenantID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tenants.of(t).putAway = false
}

// Again tells that a tenant is to be created under the id of one that was deleted. All
// its requests have ended. Numbers go on.
func (o *Oracle) Again(t neon.TenantID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tenants.tenants[t] = &tenantFacts{again: true}
	delete(o.timelines.tenants, t)
}

// Forget drops all that is known of a tenant, so that its id may be used again.
func (o *Oracle) Forget(t neon.TenantID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.tenants.tenants, t)
	delete(o.timelines.tenants, t)
	for id := range o.shards.counts.shards(t) {
		delete(o.shards.facts, id)
		delete(o.tenants.stopped, id)
		delete(o.compute.lastNode, id)
	}
}

// Unreachable tells that a controller cannot reach a node for reasons outside of
// the simulator, such as a partition. I15 does not ask for its locations to be
// detached. Reachable ends it.
func (o *Oracle) Unreachable(node neon.NodeID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.roster.cutOff[node] = true
}

// Reachable ends Unreachable.
func (o *Oracle) Reachable(node neon.NodeID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.roster.cutOff, node)
}

func (o *Oracle) unreachable(node neon.NodeID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.roster.cutOff[node]
}

func (o *Oracle) setUnreachable(p uint32, unreachable bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.roster.procs[p].unreachable = unreachable
}

// started registers a process and returns its index.
func (o *Oracle) started(node neon.NodeID, incarnation uint32) uint32 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.journal.record(Event{Kind: EventStarted, Node: node, Incarnation: incarnation})
	return o.roster.add(node, incarnation)
}

// ended tells that a process is gone, and with it all its attachments.
func (o *Oracle) ended(p uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	proc := &o.roster.procs[p]
	proc.alive = false
	o.journal.record(Event{Kind: EventEnded, Node: proc.node, Incarnation: proc.incarnation})
}

// received checks a location change before anything is done with it, so that
// also a refused one counts.
func (o *Oracle) received(p uint32, ch *locationChange) {
	o.mu.Lock()
	defer o.mu.Unlock()
	proc := o.roster.procs[p]
	o.journal.record(Event{
		Kind: EventReceived, Node: proc.node, Incarnation: proc.incarnation, Shard: ch.shard,
		Generation: ch.gen, Mode: ch.mode.wire(),
	})
	o.tenants.called(ch.shard, proc.node)
	if ch.mode.attached() && ch.hasGen {
		o.generations.checkGranted(ch.shard, ch.gen, proc.node)
	}
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
	proc := o.roster.procs[p]
	o.journal.record(Event{
		Kind: kind, Node: proc.node, Incarnation: proc.incarnation, Shard: t.shard,
		Generation: t.gen, Mode: t.to.wire(), Late: by == byLate,
	})
	f := o.shards.of(t.shard)
	switch {
	case by == byReattach && o.generations.lowered(t, proc.node):
	case by == byReattach && t.to.attached(), by != byReattach && t.attaches():
		o.tenants.attached(t.shard, proc.node, by)
		o.attachments.attach(p, t, f, by)
	case by == byReattach:
	case t.to.attached():
		if g := f.at(t.gen); g.holder == p {
			g.mode, g.unknown = t.to, g.unknown && by == byLate
		}
	case t.from.attached():
		successor, unknown := o.attachments.release(p, t, f, by)
		if successor != nil && o.tenants.servedAt(t.shard, proc.node) {
			o.compute.takenAway(t.shard, proc.node, takenAway{successor.holder, unknown, by})
		}
	}
}

// answered checks the answer to a re-attach.
func (o *Oracle) answered(p uint32, tenants []reattachTenant) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.generations.answered(p, tenants)
}

// told is called by the compute hook when compute has taken a notification, with one
// node for each shard.
func (o *Oracle) notified(t neon.TenantID, nodes []neon.NodeID, late bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.compute.notified(t, nodes, late)
}

// prefixDeleted is called when a pageserver is about to delete the objects of a
// shard, or of all shards of a tenant if the id is unsharded. It is to leave them if the
// call is one that no controller can know of, and the tenant was created again since.
func (o *Oracle) prefixDeleted(p uint32, shard neon.ShardID, unseen bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.tenants.prefixDeleted(p, shard, unseen) {
		return false
	}
	if shard.IsUnsharded() {
		delete(o.timelines.tenants, shard.Tenant)
	}
	return true
}

// travels is called when a pageserver begins to put the objects of a shard back in time, and
// end at the end of that.
func (o *Oracle) travels(p uint32, shard neon.ShardID) (end func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tenants.travels(p, shard)
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.tenants.of(shard.Tenant).travels--
	}
}

// gone reports whether the objects of a tenant were deleted. A directory without a
// location that is left of it is seen by no leader, and goes with the next start.
func (o *Oracle) gone(t neon.TenantID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tenants.deleted(t)
}

// validating notes the newest generations before a validate is sent.
func (o *Oracle) validating(items []validation) []neon.Generation {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.deletions.validating(items)
}

// validated checks the answer to a validate.
func (o *Oracle) validated(p uint32, items []validation, before []neon.Generation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.deletions.validated(p, items, before)
}

// newest is the best known newest generation of a shard.
func (o *Oracle) newest(shard neon.ShardID) (neon.Generation, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.shards.newest(shard)
}

// lost is called for a deleted layer that an index names which may still be loaded.
func (o *Oracle) lost(p uint32, id remoteID, l layer, index neon.Generation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.deletions.lost(p, id, l, index)
}

// loaded is called with the timelines that an attach found.
func (o *Oracle) loaded(
	p uint32, shard neon.ShardID, gen neon.Generation, found []neon.TimelineID,
) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.timelines.loaded(o.roster.procs[p].node, shard, gen, found)
}

// acknowledged records that a timeline's creation was acknowledged. It asks durable
// without the lock, which those who ask the oracle take after their own.
func (o *Oracle) acknowledged(
	id neon.TimelineID, shards []neon.ShardID, durable func(neon.ShardID, neon.Generation) bool,
) {
	for _, shard := range shards {
		gen, ok := o.newest(shard)
		if ok && durable(shard, gen) {
			continue
		}
		o.mu.Lock()
		o.timelines.notDurable(id, shard, gen)
		o.mu.Unlock()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.timelines.acknowledged(id, shards)
}

// removing records that a timeline's deletion was asked for.
func (o *Oracle) removing(id neon.TimelineID, t neon.TenantID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.timelines.removing(id, t)
}

// removed records that a timeline's deletion was acknowledged.
func (o *Oracle) removed(id neon.TimelineID, t neon.TenantID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.timelines.removed(id, t)
}

// divided tells that children have copies of all that a shard has.
func (o *Oracle) divided(parent neon.ShardID, children []neon.ShardID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.timelines.divided(parent, children)
}

// reader is the newest generation of a shard if a live pageserver is attached in it and
// the shard is one of its tenant's. What an aborted split has left on a pageserver that
// does not answer is nobody's: its parent may delete what it names.
func (o *Oracle) reader(shard neon.ShardID) (neon.Generation, bool) {
	if o.serves != nil && !o.serves(shard) {
		return 0, false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.shards.facts[shard]
	if f == nil {
		return 0, false
	}
	newest, known := f.newest()
	for _, g := range f.gens {
		if known && g.gen == newest && g.attached && o.roster.procs[g.holder].alive {
			return newest, true
		}
	}
	return 0, false
}

// movedFrom reports whether the newest generation of a shard was committed for
// another node.
func (o *Oracle) movedFrom(shard neon.ShardID, node neon.NodeID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.shards.facts[shard]
	if f == nil || len(f.gens) == 0 {
		return false
	}
	grantee := f.gens[len(f.gens)-1].grantee
	return grantee != 0 && o.roster.nodeIDs[grantee] != node
}

// atRest copies what CheckQuiescent looks at.
func (o *Oracle) atRest() []restFacts {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []restFacts
	for shard, f := range o.shards.facts {
		r := restFacts{
			shard: shard, notified: o.roster.nodeIDs[o.compute.lastNode[shard]],
			holders: o.roster.holders(f),
		}
		if len(r.holders) == 0 {
			continue
		}
		r.newest, _ = f.newest()
		r.timelines, r.removed = o.timelines.of(shard)
		all = append(all, r)
	}
	return all
}
