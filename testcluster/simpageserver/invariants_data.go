package simpageserver

import (
	"quorate/api/neon"
)

// Deleting tells that the intent to delete a tenant was committed. Once it was
// called for any tenant, every deletion of a tenant's objects needs it (I15).
func (o *Oracle) Deleting(t neon.TenantID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.intents = true
	o.tenantOf(t).deleting = true
}

// PutAway tells that a tenant is about to get a policy under which nothing of it
// is attached: I9 does not ask for compute to be told. Serving ends it.
func (o *Oracle) PutAway(t neon.TenantID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tenantOf(t).putAway = true
}

// Serving ends PutAway.
func (o *Oracle) Serving(t neon.TenantID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tenantOf(t).putAway = false
}

// Forget drops all that is known of a tenant, so that its id may be used again.
func (o *Oracle) Forget(t neon.TenantID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.tenants, t)
	for id := range o.counts.shards(t) {
		delete(o.facts, id)
	}
}

// Unreachable tells that a controller cannot reach a node for reasons outside of
// the simulator, such as a partition; I15 does not ask for its locations to be
// detached. Reachable ends it.
func (o *Oracle) Unreachable(node neon.NodeID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cutOff[node] = true
}

// Reachable ends Unreachable.
func (o *Oracle) Reachable(node neon.NodeID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.cutOff, node)
}

func (o *Oracle) unreachable(node neon.NodeID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.cutOff[node]
}

func (o *Oracle) setUnreachable(p uint32, unreachable bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.procs[p].unreachable = unreachable
}

// prefixDeleted is I15: called when a pageserver is about to delete the objects
// of a shard, or of all shards of a tenant if the id is unsharded.
func (o *Oracle) prefixDeleted(p uint32, shard neon.ShardID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	node := o.procs[p].node
	o.record(Event{
		Kind: EventDeleted, Node: node, Incarnation: o.procs[p].incarnation, Shard: shard,
	})
	tf := o.tenantOf(shard.Tenant)
	if o.intents && !tf.deleting {
		o.violate(15, shard, node, "objects deleted without a committed intent")
	}
	for id := range o.counts.shards(shard.Tenant) {
		f := o.facts[id]
		if f == nil || !shard.IsUnsharded() && id != shard {
			continue
		}
		for _, g := range f.gens {
			holder := o.procs[g.holder]
			if g.attached && holder.alive && !holder.unreachable && !o.cutOff[holder.node] {
				o.violate(15, id, node,
					"objects deleted while attached on node %s in generation %d", holder.node,
					g.gen)
			}
		}
	}
	if shard.IsUnsharded() {
		tf.deleted = true
		tf.timelines = map[neon.TimelineID]*timelineFacts{}
	}
}

// gone tells whether the objects of a tenant were deleted. A directory without a
// location that is left of it is seen by nobody, and goes with the next start.
func (o *Oracle) gone(t neon.TenantID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	tf := o.tenants[t]
	return tf != nil && tf.deleted
}

// validation is one entry of a validate upcall.
type validation struct {
	shard neon.ShardID
	gen   neon.Generation
	valid bool
}

// validating notes the newest generations before a validate is sent.
func (o *Oracle) validating(items []validation) []neon.Generation {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := make([]neon.Generation, len(items))
	for i, it := range items {
		if f := o.facts[it.shard]; f != nil {
			before[i], _ = f.newest()
		}
	}
	return before
}

// validated is I13: a yes must have been right at some moment since validating.
func (o *Oracle) validated(p uint32, items []validation, before []neon.Generation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	node := o.procs[p].node
	for i, it := range items {
		e := Event{
			Kind: EventValidated, Node: node, Incarnation: o.procs[p].incarnation, Shard: it.shard,
			Generation: it.gen, Note: "no",
		}
		if it.valid {
			e.Note = "yes"
		}
		o.record(e)
		if !it.valid {
			continue
		}
		if it.gen < before[i] {
			o.violate(13, it.shard, node, "validate accepted generation %d, the newest was %d",
				it.gen, before[i])
			continue
		}
		if !o.granted {
			continue
		}
		var committed neon.Generation
		known := false
		if f := o.facts[it.shard]; f != nil {
			committed, known = f.committed()
		}
		if !known || it.gen > committed {
			o.violate(13, it.shard, node,
				"validate accepted generation %d, which was never committed", it.gen)
		}
	}
}

// newest is the best known newest generation of a shard.
func (o *Oracle) newest(shard neon.ShardID) (neon.Generation, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.facts[shard]
	if f == nil {
		return 0, false
	}
	return f.newest()
}

// lost is I14: a deleted layer is named by an index that somebody may load.
func (o *Oracle) lost(p uint32, id remoteID, l layer, index neon.Generation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.violate(14, id.shard, o.procs[p].node,
		"layer %s-%s of timeline %s deleted, the index of generation %d names it", l.name(), l.gen,
		id.timeline, index)
}

// loaded is I17: called with the timelines an attach found. It matters only in
// the newest generation.
func (o *Oracle) loaded(
	p uint32, shard neon.ShardID, gen neon.Generation, found []neon.TimelineID,
) {
	o.mu.Lock()
	defer o.mu.Unlock()
	tf, f := o.tenants[shard.Tenant], o.facts[shard]
	if tf == nil || f == nil {
		return
	}
	if newest, _ := f.newest(); gen < newest {
		return
	}
	for _, id := range found {
		if t := tf.timelines[id]; t != nil && t.deleted {
			o.violate(17, shard, o.procs[p].node, "deleted timeline %s is back in generation %d",
				id, gen)
		}
	}
}

// acknowledged records that a timeline's creation was acknowledged, and is I16
// for the shards where durable says no.
func (o *Oracle) acknowledged(
	id neon.TimelineID, shards []neon.ShardID, durable func(neon.ShardID, neon.Generation) bool,
) {
	for _, shard := range shards {
		gen, ok := o.newest(shard)
		if ok && durable(shard, gen) {
			continue
		}
		o.mu.Lock()
		o.violate(16, shard, 0, "acknowledged timeline %s has no index that generation %d can load",
			id, gen)
		o.mu.Unlock()
	}
	if len(shards) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tenantOf(shards[0].Tenant).timelines[id] = &timelineFacts{
		shards: append([]neon.ShardID(nil), shards...),
	}
}

// removing records that a timeline's deletion was asked for.
func (o *Oracle) removing(id neon.TimelineID, t neon.TenantID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if tl := o.tenantOf(t).timelines[id]; tl != nil {
		tl.shards = nil
	}
}

// removed records that a timeline's deletion was acknowledged.
func (o *Oracle) removed(id neon.TimelineID, t neon.TenantID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	tf := o.tenantOf(t)
	if tl := tf.timelines[id]; tl != nil {
		tl.deleted = true
		return
	}
	tf.timelines[id] = &timelineFacts{deleted: true}
}

// told records what compute was told of a whole tenant: one node for each shard
// of one count. What it was told of other counts is void.
//
// A late notification, whose caller had gone, is only counted: a control plane has
// to see for itself that it is older than what it took since.
func (o *Oracle) told(t neon.TenantID, nodes []neon.NodeID, late bool) {
	count := neon.ShardCount(len(nodes))
	o.mu.Lock()
	if late {
		o.late++
		for i, node := range nodes {
			o.record(Event{
				Kind:  EventTold,
				Shard: neon.ShardID{Tenant: t, Number: neon.ShardNumber(i), Count: count},
				Node:  node, Late: true,
			})
		}
		o.mu.Unlock()
		return
	}
	for id := range o.counts.shards(t) {
		if f := o.facts[id]; f != nil && id.Count.Shards() != len(nodes) {
			f.told = 0
		}
	}
	if _, one := o.facts[neon.ShardID{Tenant: t, Count: 1}]; len(nodes) == 1 && !one {
		count = 0
	}
	o.mu.Unlock()
	for i, node := range nodes {
		o.notified(neon.ShardID{Tenant: t, Number: neon.ShardNumber(i), Count: count}, node)
	}
}
