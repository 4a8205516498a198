package scheduler

import (
	"slices"
	"strings"

	"quorate/api/neon"
	"quorate/fsm"
)

// fleet is the nodes of a state with what they have, the locations proposed in this
// round included. It knows nothing of tenants.
type fleet struct {
	nodes []node
	index map[neon.NodeID]int
	open  []int  // indices of the schedulable nodes
	firm  []int  // indices of those of them that are not unsteady
	mute  []int  // indices of those that would be, but do not answer
	zones []zone // of the schedulable nodes, or those that would be, by name
}

// node is one pageserver with everything scores are made of, kept up to date as
// locations are proposed.
type node struct {
	id       neon.NodeID
	az       neon.AZ
	zone     int // index into zones, -1 for none
	class    class
	counts   fsm.NodeCounts
	load     Load
	share    int    // of the capacity, where the largest node has wholeShare
	unit     uint64 // by how much one shard fills it, where it is a million for the largest
	disk     uint64 // the part of the utilisation that is due to disk space
	used     uint64 // utilisation
	affinity int    // locations of the tenant under decision
}

// class is how useful a node is as the holder of an existing location.
type class uint8

const (
	schedulable class = iota
	available         // reachable, but takes nothing new
	silent            // takes nothing new, and may be unreachable
	unreachable
)

// zone sums up the nodes of an availability zone that may take something.
type zone struct {
	az    neon.AZ
	share int // of the capacity, all its nodes together
	home  int
}

// wholeShare is the share of the largest node.
const wholeShare = 1 << 20

// newFleet takes the nodes of a state. It costs O(nodes), whatever the number of
// shards.
func newFleet(state *fsm.State, loads map[neon.NodeID]Load) *fleet {
	f := &fleet{index: make(map[neon.NodeID]int)}
	for n := range state.Nodes() {
		f.index[n.ID] = len(f.nodes)
		f.nodes = append(f.nodes, node{
			id: n.ID, az: n.AZ, zone: -1, class: classOf(n, loads[n.ID]),
			counts: state.Counts(n.ID), load: loads[n.ID], unit: permillion(1, 1),
		})
	}
	for i := range f.nodes {
		n := &f.nodes[i]
		n.disk = permillion(n.load.DiskWanted, n.load.DiskUsable)
		n.refresh()
		if node, _ := state.Node(n.id); n.class == silent && node.Schedulable() {
			f.mute = append(f.mute, i)
		}
		if n.class == schedulable {
			f.open = append(f.open, i)
			if !n.load.Unsteady {
				f.firm = append(f.firm, i)
			}
		}
	}
	takers := f.open
	if len(takers) == 0 {
		takers = f.mute
	}
	f.weigh(takers)
	f.divide(takers)
	return f
}

// weigh says how large some nodes are beside each other, by their disks. As long as any
// of them has not told its size, they are all alike.
func (f *fleet) weigh(nodes []int) {
	var most uint64
	known := true
	for _, i := range nodes {
		usable := f.nodes[i].load.DiskUsable
		most, known = max(most, usable), known && usable > 0
	}
	for _, i := range nodes {
		n := &f.nodes[i]
		if n.share = wholeShare; known {
			n.share = max(1, int(float64(n.load.DiskUsable)/float64(most)*wholeShare))
		}
		n.unit = permillion(wholeShare, uint64(n.share))
	}
}

// divide sums up the zones of some nodes.
func (f *fleet) divide(nodes []int) {
	for _, i := range nodes {
		if n := &f.nodes[i]; !n.az.IsZero() {
			f.zones = append(f.zones, zone{az: n.az})
		}
	}
	slices.SortFunc(f.zones,
		func(a, b zone) int { return strings.Compare(a.az.String(), b.az.String()) })
	f.zones = slices.Compact(f.zones)
	for _, i := range nodes {
		n := &f.nodes[i]
		n.zone = slices.IndexFunc(f.zones, func(z zone) bool { return z.az == n.az })
		if n.zone >= 0 {
			f.zones[n.zone].share += n.share
			f.zones[n.zone].home += n.counts.Home
		}
	}
}

func classOf(n *fsm.Node, l Load) class {
	switch {
	case !n.Available():
		return unreachable
	case l.Silent:
		return silent
	case n.Schedulable():
		return schedulable
	}
	return available
}

// node finds a node that exists and is not deleted.
func (f *fleet) node(id neon.NodeID) *node {
	if i, ok := f.index[id]; ok {
		return &f.nodes[i]
	}
	return nil
}

// pick is the best schedulable node that has no location of the shard.
func (f *fleet) pick(r role, d *draft) (neon.NodeID, bool) { return f.pickOf(f.open, r, d) }

// pickOf is pick for some nodes.
func (f *fleet) pickOf(nodes []int, r role, d *draft) (neon.NodeID, bool) {
	var best Score
	for _, i := range nodes {
		n := &f.nodes[i]
		if d.holds(n.id) {
			continue
		}
		if sc := n.score(r, d.az); best.Node == 0 || sc.Compare(best) < 0 {
			best = sc
		}
	}
	return best.Node, best.Node != 0
}

// homeZone chooses where a new tenant is at home: the zone with the fewest such
// locations for the capacity of its schedulable nodes, the first by name among equals.
func (f *fleet) homeZone() neon.AZ {
	var best zone
	for _, z := range f.zones {
		if best.share == 0 || z.home*best.share < best.home*z.share {
			best = z
		}
	}
	return best.az
}

// roomy reports whether a candidate for a further location is not overloaded.
func (f *fleet) roomy(sh *fsm.Shard) bool {
	return slices.ContainsFunc(f.open, func(i int) bool {
		return f.nodes[i].used < Overloaded && !sh.Intends(f.nodes[i].id)
	})
}
