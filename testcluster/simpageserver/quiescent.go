package simpageserver

import (
	"errors"
	"fmt"

	"quorate/api/neon"
)

// Durable reports a timeline's creation as acknowledged to its user. At that
// moment every shard must have an index that the newest generation can load
// (I16), and so must every later owner.
func (f *Fleet) Durable(tl neon.TimelineID, shards ...neon.ShardID) {
	f.opt.Oracle.acknowledged(tl, shards, func(shard neon.ShardID, gen neon.Generation) bool {
		return f.opt.Store.has(remoteID{shard, tl}, gen)
	})
}

// Removing reports that a timeline's deletion is about to be asked for: from now
// on it need not be there.
func (f *Fleet) Removing(tl neon.TimelineID, t neon.TenantID) { f.opt.Oracle.removing(tl, t) }

// Removed reports a timeline's deletion as acknowledged to its user: it must not
// come back (I17).
func (f *Fleet) Removed(tl neon.TimelineID, t neon.TenantID) { f.opt.Oracle.removed(tl, t) }

// CheckQuiescent checks what must hold once faults have stopped and the
// controller has nothing left to do: I7, I8, I11, I14, I16, I17, I21 and I31. A shard that
// is attached nowhere is taken to be meant so; see CheckPlacement. The error
// lists the first ten findings. It does not record violations, since only the
// caller knows whether it is quiet.
func (f *Fleet) CheckQuiescent() error {
	var c findings
	for _, n := range f.Nodes() {
		for _, shard := range n.host.leftovers() {
			_, lives := f.opt.Oracle.reader(shard)
			if lives || f.opt.Oracle.movedFrom(shard, n.opt.ID) || f.opt.Oracle.gone(shard.Tenant) {
				// Its split was aborted when it could not be reached, and it lives
				// elsewhere, perhaps without an attachment, or was deleted.
				continue
			}
			c.add("I11: node %s still has the directory of shard %s", n.opt.ID, shard)
		}
		for shard, v := range n.Locations() {
			if n.Running() && v.State == InProgress {
				c.add("I11: shard %s is in progress on node %s", shard, n.opt.ID)
			}
		}
	}
	counts := map[neon.TenantID]neon.ShardID{}
	for _, r := range f.opt.Oracle.atRest() {
		f.checkRest(&c, r)
		if first, seen := counts[r.shard.Tenant]; seen && first.Count != r.shard.Count {
			c.add("I21: shards %s and %s are attached at the same time", first, r.shard)
		}
		counts[r.shard.Tenant] = r.shard
	}
	f.checkStranded(&c)
	return c.err()
}

// restFacts is one shard with live attachments, copied out of the oracle.
type restFacts struct {
	shard     neon.ShardID
	newest    neon.Generation
	notified  neon.NodeID
	holders   []Holder
	timelines []neon.TimelineID // acknowledged
	removed   []neon.TimelineID
}

func containsShard(list []neon.ShardID, shard neon.ShardID) bool {
	for _, s := range list {
		if s == shard {
			return true
		}
	}
	return false
}

func (f *Fleet) checkRest(c *findings, r restFacts) {
	last := r.holders[len(r.holders)-1]
	switch {
	case len(r.holders) > 1:
		c.add("I7: shard %s is attached %d times at rest: %v", r.shard, len(r.holders), r.holders)
	case last.Generation != r.newest:
		c.add("I11: shard %s is attached in generation %d on node %s, the newest is %d", r.shard,
			last.Generation, last.Node, r.newest)
	case last.Mode != neon.AttachedSingle:
		c.add("I11: shard %s is %s on node %s", r.shard, last.Mode, last.Node)
	case r.notified != 0 && r.notified != last.Node:
		c.add("I8: compute uses node %s for shard %s, which is attached on node %s", r.notified,
			r.shard, last.Node)
	}
	for _, tl := range r.timelines {
		if !f.opt.Store.has(remoteID{r.shard, tl}, last.Generation) {
			c.add("I16: acknowledged timeline %s of shard %s is lost", tl, r.shard)
		}
	}
	for _, tl := range r.removed {
		if f.opt.Store.has(remoteID{r.shard, tl}, last.Generation) {
			c.add("I17: deleted timeline %s of shard %s is back", tl, r.shard)
		}
	}
	for _, tl := range f.opt.Store.missing(r.shard, last.Generation) {
		c.add("I14: the index of timeline %s of shard %s names a layer that is gone", tl, r.shard)
	}
}

// Intent is where a shard ought to be.
type Intent struct {
	Attached    neon.NodeID // zero means nowhere
	Secondaries []neon.NodeID
}

// CheckPlacement compares the running nodes' locations with intents: each shard
// is exactly where it should be, and there are no other locations (I11, I12).
func (f *Fleet) CheckPlacement(want map[neon.ShardID]Intent) error {
	var c findings
	type place struct {
		shard neon.ShardID
		node  neon.NodeID
	}
	modes := map[place]neon.LocationMode{}
	for shard, in := range want {
		if in.Attached != 0 {
			modes[place{shard, in.Attached}] = neon.AttachedSingle
		}
		for _, id := range in.Secondaries {
			if id == in.Attached {
				c.add("I12: shard %s is attached and secondary on node %s", shard, id)
			}
			modes[place{shard, id}] = neon.Secondary
		}
	}
	for _, n := range f.Nodes() {
		if _, _, serving := n.host.counts(); !serving {
			continue
		}
		for shard, v := range n.Locations() {
			at := place{shard, n.opt.ID}
			if mode, wanted := modes[at]; !wanted {
				c.add("I11: shard %s is %s on node %s without intent", shard, v.Mode, n.opt.ID)
			} else if mode != v.Mode || v.State == InProgress {
				c.add("I12: shard %s is %s (%s) on node %s, wanted %s", shard, v.Mode, v.State,
					n.opt.ID, mode)
			}
			delete(modes, at)
		}
	}
	for at, mode := range modes {
		c.add("I12: shard %s is not on node %s, wanted %s", at.shard, at.node, mode)
	}
	return c.err()
}

// findings collects the first ten of many.
type findings struct {
	n    int
	list []error
}

func (c *findings) add(format string, args ...any) {
	if c.n++; c.n <= 10 {
		c.list = append(c.list, fmt.Errorf(format, args...))
	}
}

func (c *findings) err() error {
	if c.n == 0 {
		return nil
	}
	return errors.Join(append([]error{fmt.Errorf("%d findings", c.n)}, c.list...)...)
}
