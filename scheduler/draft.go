package scheduler

import (
	"cmp"
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
)

// draft is where one shard is to be, while that is being decided. Its locations
// are not counted until it is put down.
type draft struct {
	fleet *fleet
	state *fsm.State // of a shard that exists

	attached  neon.NodeID
	secondary []neon.NodeID
	preferred neon.NodeID
	az        neon.AZ

	// asked is set when a client has asked for the placement. It is not refused because
	// of a silence: what no other node can take goes to one that does not answer.
	asked bool
}

func (d *draft) holds(id neon.NodeID) bool {
	return d.attached == id || slices.Contains(d.secondary, id)
}

// drop removes a node from the secondaries.
func (d *draft) drop(id neon.NodeID) {
	d.secondary = slices.DeleteFunc(d.secondary, func(n neon.NodeID) bool { return n == id })
}

// intent is the proposal that turns a shard into a draft. It says what it was based on.
func (d *draft) intent(sh *fsm.Shard) fsm.Intent { return d.takeAway(sh, 0) }

// takeAway is the intent of a draft because of a node that the shard is taken from: it does
// not hold once that node is another than it was.
func (d *draft) takeAway(sh *fsm.Shard, lost neon.NodeID) fsm.Intent {
	in := fsm.Intent{
		Shard: sh.ID, Sequence: sh.Sequence, Attached: d.attached,
		Secondary: append([]neon.NodeID(nil), d.secondary...), PreferredNode: d.preferred,
		Basis: fsm.BasisOf(d.state, sh, lost),
	}
	if !slices.Contains(d.secondary, d.preferred) {
		in.PreferredNode = 0 // it could not become warm there
	}
	return in
}

func (d *draft) differs(sh *fsm.Shard) bool {
	return d.attached != sh.Attached || d.preferred != sh.PreferredNode ||
		!slices.Equal(d.secondary, sh.Secondary)
}

// counted is how many secondaries there are without the one on the preferred
// node.
func (d *draft) counted() int {
	n := len(d.secondary)
	if d.preferred != 0 && slices.Contains(d.secondary, d.preferred) {
		n--
	}
	return n
}

// satisfy makes a draft what a policy wants, as far as there are nodes; false
// when there are too few.
func (d *draft) satisfy(policy neon.Placement) bool {
	d.forgetDeleted()
	switch policy.Kind {
	case neon.PlaceAttached:
		return d.satisfyAttached(policy.WantedSecondaries())
	case neon.PlaceSecondary:
		return d.satisfySecondary()
	}
	d.attached, d.secondary, d.preferred = 0, d.secondary[:0], 0
	return true
}

func (d *draft) forgetDeleted() {
	gone := func(id neon.NodeID) bool { return d.fleet.node(id) == nil }
	if gone(d.attached) {
		d.attached = 0
	}
	if gone(d.preferred) {
		d.preferred = 0
	}
	d.secondary = slices.DeleteFunc(d.secondary, gone)
}

func (d *draft) satisfyAttached(wanted int) bool {
	if d.attached == 0 && !d.attach() {
		return false
	}
	if !slices.Contains(d.secondary, d.preferred) {
		d.preferred = 0
	}
	for d.counted() < wanted {
		n, ok := d.fresh(secondary)
		if !ok {
			return false
		}
		d.secondary = append(d.secondary, n)
	}
	d.trim(wanted)
	return true
}

// fresh is the best node that has no location of the shard and may take one.
func (d *draft) fresh(r role) (neon.NodeID, bool) {
	if n, ok := d.fleet.pick(r, d); ok || !d.asked {
		return n, ok
	}
	return d.fleet.pickOf(d.fleet.mute, r, d)
}

// attach gives a draft an attached location: the best of its secondaries that is
// schedulable, else a fresh node. Secondaries away from home come first, being
// the ones that were kept for this; one at home is most likely being warmed.
func (d *draft) attach() bool {
	if d.promote(d.fleet.open) {
		return true
	}
	if n, ok := d.fleet.pick(attached, d); ok {
		d.attached = n
		return true
	}
	if !d.asked {
		return false
	}
	if d.promote(d.fleet.mute) {
		return true
	}
	n, ok := d.fleet.pickOf(d.fleet.mute, attached, d)
	d.attached = n
	return ok
}

// promote makes the best secondary on one of some nodes the attached location.
func (d *draft) promote(nodes []int) bool {
	var best Score
	for _, id := range d.secondary {
		i, ok := d.fleet.index[id]
		if !ok || !slices.Contains(nodes, i) {
			continue
		}
		n := &d.fleet.nodes[i]
		sc := Score{Zone: n.score(secondary, d.az).Zone, Node: id}
		if best.Node == 0 || sc.Compare(best) < 0 {
			best = sc
		}
	}
	if best.Node == 0 {
		return false
	}
	d.drop(best.Node)
	d.attached = best.Node
	return true
}

// trim gives up secondaries until as many as wanted are counted: those that
// cannot be reached first, then those on nodes that take nothing new, then the
// worst-scored.
func (d *draft) trim(wanted int) {
	for d.counted() > wanted {
		worst, at := Score{}, class(0)
		for _, id := range d.secondary {
			n := d.fleet.node(id)
			if id == d.preferred {
				continue
			}
			sc := n.score(secondary, d.az)
			if worst.Node == 0 || cmp.Or(cmp.Compare(n.class, at), sc.Compare(worst)) > 0 {
				worst, at = sc, n.class
			}
		}
		d.drop(worst.Node)
	}
}

// satisfySecondary leaves nothing attached, and one warm location, with another one to spare
// if there is one: see keepOne. The first is reachable if any is, in the home zone if any is,
// and else the one that was attached; a fresh one is chosen like an attached location, so
// that activating the tenant attaches it at home.
func (d *draft) satisfySecondary() bool {
	if d.attached != 0 {
		d.secondary = slices.Insert(d.secondary, 0, d.attached)
	}
	d.attached, d.preferred = 0, 0
	if len(d.secondary) == 0 {
		n, ok := d.fresh(attached)
		if ok {
			d.secondary = append(d.secondary, n)
		}
		return ok
	}
	gone := func(id neon.NodeID) int { return bit(d.fleet.node(id).class == unreachable) }
	slices.SortStableFunc(d.secondary, func(a, b neon.NodeID) int {
		x, y := d.fleet.node(a), d.fleet.node(b)
		return cmp.Or(cmp.Compare(gone(a), gone(b)),
			cmp.Compare(x.score(attached, d.az).Zone, y.score(attached, d.az).Zone))
	})
	d.secondary = d.secondary[:min(len(d.secondary), 2)]
	if gone(d.secondary[len(d.secondary)-1]) > 0 {
		d.keepOne()
	}
	return true
}

// keepOne gives up the copy that a tenant which was put to Secondary has to spare. Whoever
// attaches the tenant again soon has its secondary as well.
func (d *draft) keepOne() { d.secondary = d.secondary[:min(len(d.secondary), 1)] }

// wake attaches a shard of a tenant that was put to Secondary where that was best: on the
// first node that takes it.
func (d *draft) wake() {
	for _, id := range d.secondary {
		if n := d.fleet.node(id); n != nil && n.class == schedulable {
			d.drop(id)
			d.attached = id
			return
		}
	}
}

// demote makes the old attached node a secondary if any are wanted, and keeps
// their number. One that can be reached is the warmest copy and is kept.
func (d *draft) demote(old neon.NodeID, wanted int) {
	n := d.fleet.node(old)
	if n == nil || wanted == 0 {
		return
	}
	if n.class == unreachable {
		d.secondary = append(d.secondary, old)
		d.trim(wanted)
		return
	}
	d.trim(wanted - 1)
	d.secondary = append(d.secondary, old)
}

func bit(v bool) int {
	if v {
		return 1
	}
	return 0
}
