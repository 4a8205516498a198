package scheduler

import (
	"cmp"
	"iter"
	"math"
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
)

// Disks says how pageservers with full disks are relieved. The parts are of utilisations
// (see Load.DiskUtilisation).
type Disks struct {
	// Target is down to which part a node with a full disk gives shards, and
	// DestinationMax up to which part others take them. While it is set nothing at all is
	// moved for an even load to a node that would have more.
	Target, DestinationMax float64

	// PerDestination is how many moves at a time come to one node, and Largest the size of
	// the largest shard that is moved. 0: any.
	PerDestination int
	Largest        uint64

	// Given are shards that were moved lately for a disk: what nodes tell may be older.
	Given []Given
}

// Given is a shard that left the disk of one node for that of another one.
type Given struct {
	Shard    neon.ShardID
	From, To neon.NodeID
}

// DiskUtilisation is how full a disk is: the larger part of what is used of all of it,
// whatever that is, and of what the locations there want of what they may use. It is 0 as
// long as the node has not told the size of its disk.
func (l Load) DiskUtilisation() float64 { return l.diskWith(0) }

// diskWith is DiskUtilisation with some more bytes, or fewer.
func (l Load) diskWith(bytes float64) float64 {
	if l.DiskTotal == 0 {
		return 0
	}
	u := (float64(l.DiskUsed) + bytes) / float64(l.DiskTotal)
	if l.DiskUsable > 0 {
		u = max(u, (float64(l.DiskWanted)+bytes)/float64(l.DiskUsable))
	}
	return u
}

// above is how many bytes have to go so that a disk is full to a part of it, and no more.
func (h *holder) above(part float64) float64 {
	l := &h.node.load
	if l.DiskTotal == 0 {
		return 0
	}
	bytes := float64(l.DiskUsed) - part*float64(l.DiskTotal)
	if l.DiskUsable > 0 {
		bytes = max(bytes, float64(l.DiskWanted)-part*float64(l.DiskUsable))
	}
	return bytes + h.bytes
}

// room reports whether the disk of a node has room for one more copy.
func (b *balance) room(h *holder, size uint64) bool {
	return b.Disks == nil || h.node.load.DiskTotal == 0 ||
		!h.node.load.Full && h.above(b.Disks.DestinationMax)+float64(size) <= 0
}

// copies counts a copy that is made on a node, in the place of one on another node.
func (b *balance) copies(sh *fsm.Shard, from, to *holder) {
	size := float64(b.size(sh))
	if from != nil {
		from.bytes -= size
	}
	if to != nil {
		to.bytes += size
		to.coming++
	}
}

// vacated is a node that a shard leaves, if it gives up its copy there: it is one too many,
// or its disk is full.
func (b *balance) vacated(sh *fsm.Shard, from *holder) *holder {
	b.enter(sh.ID.Tenant)
	if from == nil || !from.node.load.Full && b.tenant.Policy.WantedSecondaries() > 0 {
		return nil
	}
	return from
}

// given counts what has moved lately and has arrived: what is on its way is counted as
// such.
func (b *balance) given() {
	if b.Disks == nil {
		return
	}
	for _, g := range b.Disks.Given {
		sh, ok := b.state.Shard(g.Shard)
		if !ok || sh.PreferredNode != 0 {
			continue
		}
		from, to := b.holder(g.From), b.holder(g.To)
		if sh.Intends(g.From) {
			from = nil
		}
		if !sh.Intends(g.To) {
			to = nil
		}
		b.copies(&sh, from, to)
	}
}

// relieve moves shards away from nodes with full disks. Without the sizes of shards it
// could not tell when to end.
func (b *balance) relieve() {
	if b.Disks == nil || b.Size == nil {
		return
	}
	for i := range b.holders {
		from := &b.holders[i]
		for from.node.load.Full && len(b.intents) < b.Moves && !b.busy(from, 1) {
			if excess := from.above(b.Disks.Target); excess <= 0 || !b.ease(from, excess) {
				break
			}
		}
	}
}

// ease moves the location whose size is nearest to what is too much: a secondary, which
// nobody misses, or else an attached one.
func (b *balance) ease(from *holder, excess float64) bool {
	sh, to := b.nearest(from, excess, b.state.SecondaryOn(from.id, neon.ShardID{}),
		b.secondaryTaker)
	if to != nil {
		b.replace(sh, from, to)
		return true
	}
	b.list(from)
	if sh, to = b.nearest(from, excess, slices.Values(from.shards), b.attachedTaker); to != nil {
		b.move(sh, from, to)
		return true
	}
	return false
}

// nearest finds a shard that another node takes. One that was moved lately stays.
func (b *balance) nearest(
	from *holder, excess float64, shards iter.Seq[fsm.Shard],
	taker func(*fsm.Shard, *holder) *holder,
) (best *fsm.Shard, at *holder) {
	off := math.Inf(+1)
	for sh := range shards {
		size := b.size(&sh)
		d := math.Abs(float64(size) - excess)
		if size == 0 || d >= off || len(b.Left[sh.ID]) > 0 || b.moved[sh.ID.Tenant] ||
			b.Disks.Largest > 0 && size > b.Disks.Largest {
			continue
		}
		if to := taker(&sh, from); to != nil {
			best, at, off = &sh, to, d
		}
	}
	return best, at
}

// emptiest are the nodes that take something for a disk, the emptiest first.
func (b *balance) emptiest(size uint64) (tos []*holder) {
	for i := range b.holders {
		to := &b.holders[i]
		if to.takes() && to.node.load.DiskTotal > 0 && b.room(to, size) && !b.busy(to, 1) &&
			(b.Disks.PerDestination == 0 || to.coming < b.Disks.PerDestination) {
			tos = append(tos, to)
		}
	}
	slices.SortStableFunc(tos, func(x, y *holder) int {
		return cmp.Compare(x.node.load.diskWith(x.bytes), y.node.load.diskWith(y.bytes))
	})
	return tos
}

// attachedTaker is where an attached shard gets a copy, and is attached then.
func (b *balance) attachedTaker(sh *fsm.Shard, from *holder) *holder {
	tos := b.emptiest(b.size(sh))
	if k := b.first(sh, from, tos, copied); k < len(tos) {
		return tos[k]
	}
	return nil
}

// secondaryTaker is where a secondary is as well placed.
func (b *balance) secondaryTaker(sh *fsm.Shard, from *holder) *holder {
	b.enter(sh.ID.Tenant)
	if !b.settled(sh) || b.tenant.Policy.Kind != neon.PlaceAttached ||
		b.May != nil && !b.May(sh.ID) {
		return nil
	}
	b.take(sh)
	defer b.undo(sh)
	now := from.score(secondary, sh.PreferredAZ)
	for _, to := range b.emptiest(b.size(sh)) {
		if sc := to.score(secondary, sh.PreferredAZ); !sh.Intends(to.id) && !sc.worthMoving(now) {
			return to
		}
	}
	return nil
}

// replace makes another node the holder of a secondary.
func (b *balance) replace(sh *fsm.Shard, from, to *holder) {
	d := b.take(sh)
	d.secondary[slices.Index(d.secondary, from.id)] = to.id
	b.put(&d)
	b.intents = append(b.intents, d.intent(sh))
	b.moved[sh.ID.Tenant] = true
	b.copies(sh, from, to)
	from.moving++
	to.moving++
}
