package scheduler

import (
	"cmp"
	"math"
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
)

// Balancing is what is known, and allowed, when loads are made even.
type Balancing struct {
	// Size is how many bytes an attached shard has, 0 if that is not known. Nil: no sizes are
	// known, and only the number of shards counts.
	Size func(*fsm.Shard) uint64

	// Moves is how many moves may be begun. PerNode is how many may be at work at a time
	// that leave a node or come to it; a shard that is exchanged for another one counts as
	// two.
	Moves, PerNode int

	// Left are the nodes that a shard has left lately for an even load or a better place. It
	// does not go back there, unless nothing else would give a node what it should have by
	// number.
	Left map[neon.ShardID][]neon.NodeID

	// Disks says how full disks are relieved; nil: they are not.
	Disks *Disks

	// May reports whether a shard may be moved now, and AtWork whether the move that it
	// is on is being worked on. Nil is yes.
	May, AtWork func(neon.ShardID) bool
}

// What a node may have, by the number of attached shards and by their bytes. Within these
// bounds nothing is moved.
const (
	// numberBand is the part of its fair share by which a node may have more or fewer
	// shards, to the next whole shard.
	numberBand = 0.05

	// fewShards is a fair share of which numberBand is less than one shard. Below it a node
	// may have fewSlack shards more or fewer: an operator who has moved one or two by hand
	// finds them there.
	fewShards, fewSlack = 20, 2

	// sizeBand is the part of its fair share by which a node may have more bytes, and
	// sizeFloor what does not count anyway.
	sizeBand  = 0.15
	sizeFloor = 1 << 30
)

// measure is what loads are compared by.
type measure uint8

const (
	byNumber measure = iota // of attached shards
	bySize                  // of what those have, in bytes
	measures
)

// balance is the making of one plan. A shard that is on its way counts where it goes.
//
// A node with a full disk gives shards until it is not full any more. It takes nothing
// meanwhile, and no move fills a disk. So each is relieved once, unless something else fills
// it. Beside that, two measures fall with every move, the first one before the second one:
// what nodes have outside of the bounds by number, and the sum of the squares of the
// differences from their fair shares by size. What Optimise measures does not grow. So
// whatever the fleet was, it comes to rest, with Optimise too.
type balance struct {
	*round
	Balancing
	holders []holder  // of the schedulable nodes
	at      []int     // indices into holders by index of the node, -1 for none
	parts   []portion // of the zones; 0 is that of the nodes without a zone
	moved   map[neon.TenantID]bool
	filled  *holder // the only one that takes; nil: all do
	back    bool    // shards may go back to where they were lately
	intents []fsm.Intent
}

// holder is a node that may give and take.
type holder struct {
	*node
	load, fair  [measures]float64
	least, most float64 // by number
	moving      int     // moves at work, in both directions
	bytes       float64 // that its disk will have more than it has told
	coming      int     // copies that are made there
	closed      bool    // it takes nothing
	listed      bool
	shards      []fsm.Shard // that may be moved away
	spent       [3]bool     // nothing more leaves it, by way
}

// portion is what the nodes of a zone have together.
type portion struct {
	share             float64
	bound, free, fair [measures]float64 // bound: what cannot leave the zone
}

// way is how a shard gets to its new place.
type way uint8

const (
	swap   way = iota // it has a secondary there, which changes places with it
	copied            // it gets a secondary there first
	either
)

func newBalance(r *round, o Balancing) *balance {
	b := &balance{
		round: r, Balancing: o, at: make([]int, len(r.nodes)),
		parts: make([]portion, len(r.zones)+1), moved: make(map[neon.TenantID]bool),
	}
	for i := range b.at {
		b.at[i] = -1
	}
	for _, i := range r.open {
		n := &r.nodes[i]
		b.at[i] = len(b.holders)
		at, _ := r.state.Node(n.id)
		b.holders = append(b.holders, holder{
			node: n,
			// An operation sees to what is filled.
			closed: at.Scheduling == neon.SchedulingFilling || n.load.Unsteady,
		})
		b.parts[n.zone+1].share += float64(n.share)
	}
	return b
}

// size is how many bytes a shard has, as far as that is known.
func (b *balance) size(sh *fsm.Shard) uint64 {
	if b.Size == nil {
		return 0
	}
	return b.Size(sh)
}

// holder finds a node that may give and take.
func (b *balance) holder(id neon.NodeID) *holder {
	if id == 0 {
		return nil
	}
	if i, ok := b.index[id]; ok && b.at[i] >= 0 {
		return &b.holders[b.at[i]]
	}
	return nil
}

// census counts what the nodes have.
func (b *balance) census() {
	for sh := range b.state.ShardsFrom(neon.ShardID{}) {
		if sh.Attached != 0 {
			b.note(&sh)
		}
	}
	b.share()
}

// share says what each node should have.
func (b *balance) share() {
	for m := range measures {
		b.divide(m)
	}
	for i := range b.holders {
		h := &b.holders[i]
		p := &b.parts[h.zone+1]
		for m := range measures {
			h.fair[m] = p.fair[m] * float64(h.share) / p.share
		}
		h.least, h.most = band(h.fair[byNumber])
	}
}

// note counts one shard.
func (b *balance) note(sh *fsm.Shard) {
	from := b.holder(sh.Attached)
	to := from
	if p := b.holder(sh.PreferredNode); p != nil && p != from && sh.HasSecondary(p.id) {
		to = p
		if b.enter(sh.ID.Tenant); len(sh.Secondary) > b.tenant.Policy.WantedSecondaries() {
			b.copies(sh, b.vacated(sh, from), to)
		}
		if b.AtWork == nil || b.AtWork(sh.ID) {
			to.moving++
			if from != nil {
				from.moving++
			}
		}
	}
	if to == nil {
		return
	}
	p := &b.parts[to.zone+1]
	kind := &p.free
	if b.bound(sh) {
		kind = &p.bound
	}
	for m, load := range [measures]float64{1, float64(b.size(sh))} {
		to.load[m] += load
		kind[m] += load
	}
}

// bound reports whether a shard may not leave the zone that it is in.
func (b *balance) bound(sh *fsm.Shard) bool {
	if sh.Unmanaged || b.livesIn(sh.PreferredAZ) {
		return true
	}
	if b.tenant.ID != sh.ID.Tenant || !b.entered {
		b.enter(sh.ID.Tenant)
	}
	return b.held() || b.tenant.Scheduling != neon.ShardActive
}

// livesIn reports whether a home can hold shards: some node there is schedulable.
func (b *balance) livesIn(home neon.AZ) bool {
	return !home.IsZero() &&
		slices.ContainsFunc(b.zones, func(z zone) bool { return z.az == home })
}

// divide gives every zone what cannot leave it, and shares the rest out so that as many
// zones as possible have the same for their capacity.
func (b *balance) divide(m measure) {
	order := make([]*portion, 0, len(b.parts))
	rest, share := 0.0, 0.0
	for i := range b.parts {
		if p := &b.parts[i]; p.share > 0 {
			order = append(order, p)
			rest += p.bound[m] + p.free[m]
			share += p.share
		}
	}
	slices.SortStableFunc(order, func(x, y *portion) int {
		return cmp.Compare(y.bound[m]/y.share, x.bound[m]/x.share)
	})
	for len(order) > 0 && order[0].bound[m]/order[0].share > rest/share {
		p := order[0]
		p.fair[m] = p.bound[m]
		rest -= p.bound[m]
		share -= p.share
		order = order[1:]
	}
	for _, p := range order {
		p.fair[m] = max(0, rest) * p.share / share
	}
}

// band says how many shards a node may have.
func band(fair float64) (least, most float64) {
	const rounding = 1e-6
	slack := fair * numberBand
	if fair < fewShards-rounding {
		slack = fewSlack
	}
	return min(math.Ceil(fair-slack-rounding), math.Floor(fair+rounding)),
		max(math.Floor(fair+slack+rounding), math.Ceil(fair-rounding))
}

// plan chooses the moves: those for full disks, then those by number, and those by size when
// there are none of the others.
func (b *balance) plan() []fsm.Intent {
	b.census()
	b.given()
	b.relieve()
	b.levelAll()
	if len(b.intents) == 0 {
		b.back = true
		b.levelAll()
		b.back = false
	}
	if len(b.intents) == 0 {
		for len(b.intents) < b.Moves && b.even() {
			continue
		}
	}
	return b.intents
}

// sorted are the nodes, those with the most for their share first.
func (b *balance) sorted(m measure) []*holder {
	list := make([]*holder, len(b.holders))
	for i := range b.holders {
		list[i] = &b.holders[i]
	}
	slices.SortStableFunc(list, func(x, y *holder) int {
		return cmp.Compare(y.relative(m), x.relative(m))
	})
	return list
}

// relative is what a node has for its fair share.
func (h *holder) relative(m measure) float64 {
	switch {
	case h.fair[m] > 0:
		return h.load[m] / h.fair[m]
	case h.load[m] > 0:
		return math.Inf(+1)
	}
	return 1
}

// takes reports whether a node takes anything.
func (h *holder) takes() bool { return !h.closed && h.used < Overloaded }

// busy reports whether a node has no room for some more moves.
func (b *balance) busy(h *holder, more int) bool {
	return h.moving > 0 && h.moving+more > b.PerNode
}

// levelAll begins as many moves by number as there are.
func (b *balance) levelAll() {
	for i := range b.holders {
		b.holders[i].spent = [3]bool{}
	}
	for len(b.intents) < b.Moves && b.level() {
		continue
	}
}

// level begins one move by number: away from a node that has too many, or to one that has
// too few, without making another one have so.
func (b *balance) level() bool {
	list := b.sorted(byNumber)
	for _, w := range []way{swap, copied} {
		for _, from := range list {
			if from.spent[w] || from.load[byNumber] <= from.least || b.busy(from, 1) {
				continue
			}
			tos := b.takers(from, list, w)
			if len(tos) == 0 {
				continue
			}
			if sh, to := b.choose(from, tos, w); to != nil {
				b.move(sh, from, to)
				return true
			}
			from.spent[w] = true
		}
	}
	return false
}

// takers are the nodes that should get a shard of another one, the neediest first. One
// that has its fair share is no reason to make use of a secondary.
func (b *balance) takers(from *holder, list []*holder, w way) (tos []*holder) {
	over := from.load[byNumber] > from.most
	for _, to := range slices.Backward(list) {
		has := to.load[byNumber]
		if (has < to.least || over && has < to.most && (w == copied || has < to.fair[byNumber])) &&
			to != from && to.takes() && !b.busy(to, 1) {
			tos = append(tos, to)
		}
	}
	return tos
}

// choose finds a shard that may go to the neediest node to which any may go: the one that
// is best for their sizes.
func (b *balance) choose(from *holder, tos []*holder, w way) (sh *fsm.Shard, to *holder) {
	off := 0.0
	b.list(from)
	for i := range from.shards {
		s := &from.shards[i]
		k := b.first(s, from, tos, w)
		if k == len(tos) {
			continue
		}
		d := math.Abs(float64(b.size(s)) - ideal(from, tos[k]))
		if sh == nil || tos[k] != to || d < off {
			sh, to, off, tos = s, tos[k], d, tos[:k+1]
		}
		if b.Size == nil && k == 0 {
			break
		}
	}
	return sh, to
}

// list finds the shards that may be moved away from a node.
func (b *balance) list(h *holder) {
	if h.listed {
		return
	}
	h.listed = true
	for sh := range b.state.AttachedOn(h.id, neon.ShardID{}) {
		if b.enter(sh.ID.Tenant); b.mayLeave(&sh) &&
			(h.az == sh.PreferredAZ || !b.livesIn(sh.PreferredAZ)) {
			h.shards = append(h.shards, sh)
		}
	}
}

// first is the index of the first of some nodes that a shard may go to. It goes neither
// away from its home nor where more of its tenant is, and of a tenant goes one at a time.
func (b *balance) first(sh *fsm.Shard, from *holder, tos []*holder, w way) int {
	fits := func(to *holder) bool {
		switch {
		case to.az != sh.PreferredAZ && b.livesIn(sh.PreferredAZ),
			!b.back && slices.Contains(b.Left[sh.ID], to.id),
			!sh.HasSecondary(to.id) && !b.room(to, b.size(sh)):
			return false
		}
		return w == either || sh.HasSecondary(to.id) == (w == swap)
	}
	if b.moved[sh.ID.Tenant] || !slices.ContainsFunc(tos, fits) {
		return len(tos)
	}
	b.take(sh)
	k := slices.IndexFunc(tos, func(to *holder) bool {
		return fits(to) && to.affinity <= from.affinity && !b.gathers(sh, from, to)
	})
	b.undo(sh)
	if k < 0 || b.May != nil && !b.May(sh.ID) {
		return len(tos)
	}
	return k
}

// gathers reports whether a shard would get to serve beside more of its tenant than where it
// is. A shard on its way counts where it goes. Locations alone do not tell that: secondaries
// count to them, which are moved later.
func (b *balance) gathers(sh *fsm.Shard, from, to *holder) bool {
	n := 0
	for o := range b.state.TenantShards(sh.ID.Tenant) {
		if o.ID == sh.ID {
			continue
		}
		switch o.Goal() {
		case to.id:
			n++
		case from.id:
			n--
		}
	}
	return n > 0
}

// move begins a move.
func (b *balance) move(sh *fsm.Shard, from, to *holder) {
	id := sh.ID
	if !sh.HasSecondary(to.id) {
		b.copies(sh, b.vacated(sh, from), to)
	}
	b.intents = append(b.intents, (&improvement{round: b.round, shard: sh}).prefer(to.id))
	b.moved[id.Tenant] = b.filled == nil
	for m, load := range [measures]float64{1, float64(b.size(sh))} {
		to.load[m] += load
		if from != nil {
			from.load[m] -= load
		}
	}
	to.moving++
	if from != nil {
		from.moving++
		from.shards = slices.DeleteFunc(from.shards, func(sh fsm.Shard) bool { return sh.ID == id })
	}
}
