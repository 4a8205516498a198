package simpageserver

import (
	"sync"

	"quorate/api/neon"
)

// timelineRules are I16 and I17: timelines stay, and stay deleted.
type timelineRules struct {
	facts
	tenants map[neon.TenantID]map[neon.TimelineID]*timelineFacts
}

// Crossings are timelines that are created and deleted at the same time. Calls for one of
// them of which no controller can know any more come to nothing.
type Crossings struct {
	mu  sync.Mutex
	ids map[neon.TimelineID]bool
}

// Add adds one.
func (c *Crossings) Add(id neon.TimelineID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ids == nil {
		c.ids = map[neon.TimelineID]bool{}
	}
	c.ids[id] = true
}

func (c *Crossings) has(id neon.TimelineID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ids[id]
}

type timelineFacts struct {
	shards  []neon.ShardID
	deleted bool
}

// find finds or makes the record of a timeline.
func (r *timelineRules) find(t neon.TenantID, id neon.TimelineID) *timelineFacts {
	all := r.tenants[t]
	if all == nil {
		all = map[neon.TimelineID]*timelineFacts{}
		r.tenants[t] = all
	}
	if all[id] == nil {
		all[id] = &timelineFacts{}
	}
	return all[id]
}

// of lists the timelines that a shard must have, and those that it must not have.
func (r *timelineRules) of(shard neon.ShardID) (kept, removed []neon.TimelineID) {
	for id, tl := range r.tenants[shard.Tenant] {
		if tl.deleted {
			removed = append(removed, id)
		} else if containsShard(tl.shards, shard) {
			kept = append(kept, id)
		}
	}
	return kept, removed
}

// loaded is I17: called with the timelines an attach found. It matters only in
// the newest generation.
func (r *timelineRules) loaded(
	node neon.NodeID, shard neon.ShardID, gen neon.Generation, found []neon.TimelineID,
) {
	newest, _ := r.shards.newest(shard)
	if r.shards.facts[shard] == nil || gen < newest {
		return
	}
	for _, id := range found {
		if t := r.tenants[shard.Tenant][id]; t != nil && t.deleted {
			r.journal.violate(17, shard, node, "deleted timeline %s is back in generation %d", id,
				gen)
		}
	}
}

// notDurable is I16.
func (r *timelineRules) notDurable(
	id neon.TimelineID, shard neon.ShardID, gen neon.Generation,
) {
	r.journal.violate(16, shard, 0,
		"acknowledged timeline %s has no index that generation %d can load", id, gen)
}

// acknowledged records that a timeline's creation was acknowledged.
func (r *timelineRules) acknowledged(id neon.TimelineID, shards []neon.ShardID) {
	if len(shards) > 0 {
		*r.find(shards[0].Tenant, id) = timelineFacts{
			shards: append([]neon.ShardID(nil), shards...),
		}
	}
}

// removing records that a timeline's deletion was asked for: it need not be there.
func (r *timelineRules) removing(id neon.TimelineID, t neon.TenantID) {
	if tl := r.tenants[t][id]; tl != nil {
		tl.shards = nil
	}
}

// removed records that a timeline's deletion was acknowledged.
func (r *timelineRules) removed(id neon.TimelineID, t neon.TenantID) {
	r.find(t, id).deleted = true
}

// divided tells that children have copies of all that a shard has: what was
// acknowledged of it is theirs too.
func (r *timelineRules) divided(parent neon.ShardID, children []neon.ShardID) {
	for _, tl := range r.tenants[parent.Tenant] {
		if !containsShard(tl.shards, parent) {
			continue
		}
		for _, child := range children {
			if !containsShard(tl.shards, child) {
				tl.shards = append(tl.shards, child)
			}
		}
	}
}
