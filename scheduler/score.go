package scheduler

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"

	"quorate/api/neon"
)

// role is what kind of location is being placed.
type role uint8

const (
	attached role = iota
	secondary
)

// Overloaded is the utilisation from which a node takes new locations only when
// every other candidate is overloaded too: twice full, in millionths.
const Overloaded = 2_000_000

// Score says how well a node would do as one kind of location of a shard. Scores
// compare by Overloaded and then field by field; the lower one is the better.
type Score struct {
	// Overloaded is a utilisation of Overloaded or more. It comes before
	// everything else, even the zone.
	Overloaded bool

	// Zone is 0 in the preferred zone, 1 where nothing is known, 2 elsewhere; for
	// a secondary, whose point is to survive the zone, the other way round.
	Zone uint8

	// Affinity is how many locations of the tenant's other shards the node has.
	Affinity int

	// Filled is how many attached shards the node has for its capacity, with half of one
	// more, in millionths of what the largest node would have; for a secondary, how many
	// locations that are not at home in the node's zone. So nodes are filled to their fair
	// shares (see Balance).
	Filled uint64

	// Utilisation is the fuller of disk and shard slots, in millionths.
	Utilisation uint64

	Node neon.NodeID
}

// Compare is negative when a is the better score.
func (a Score) Compare(b Score) int {
	switch {
	case a.Overloaded != b.Overloaded:
		if b.Overloaded {
			return -1
		}
		return +1
	case a.Zone != b.Zone:
		return cmp.Compare(a.Zone, b.Zone)
	case a.Affinity != b.Affinity:
		return cmp.Compare(a.Affinity, b.Affinity)
	case a.Filled != b.Filled:
		return cmp.Compare(a.Filled, b.Filled)
	case a.Utilisation != b.Utilisation:
		return cmp.Compare(a.Utilisation, b.Utilisation)
	}
	return cmp.Compare(a.Node, b.Node)
}

// worthMoving reports whether b is so much better than a that moving pays: by zone
// or affinity. Utilisation changes all the time and by the move itself, so it
// chooses among nodes but is no reason to leave one.
func (a Score) worthMoving(b Score) bool {
	if a.Zone != b.Zone {
		return b.Zone < a.Zone
	}
	return b.Affinity < a.Affinity
}

func (a Score) String() string {
	s := fmt.Sprintf("zone=%d affinity=%d filled=%.1f utilisation=%d", a.Zone, a.Affinity,
		float64(a.Filled)/1e6, a.Utilisation)
	if a.Overloaded {
		s += " overloaded"
	}
	return s
}

func (n *node) score(r role, home neon.AZ) Score {
	sc := Score{
		Overloaded: n.used >= Overloaded, Zone: 1, Affinity: n.affinity, Utilisation: n.used,
		Node: n.id,
	}
	count := n.counts.Attached
	if !home.IsZero() && !n.az.IsZero() {
		if (n.az == home) == (r == attached) {
			sc.Zone = 0
		} else {
			sc.Zone = 2
		}
	}
	if r == secondary {
		count = n.counts.Shards - n.counts.Home
	}
	sc.Filled = n.filled(count)
	return sc
}

// filled is how far a number of locations fills a node for its share. Half of one more
// makes rounding favour neither large nor small nodes.
func (n *node) filled(count int) uint64 {
	return uint64(2*max(count, 0)+1) * n.unit / 2
}

// refresh recomputes the utilisation. A location that was proposed counts at
// once, one that was given up only when the node reports that it is gone.
func (n *node) refresh() {
	limit := n.load.MaxShards
	if limit <= 0 {
		limit = DefaultMaxShards
	}
	shards := max(n.load.Shards, n.counts.Shards, 0)
	n.used = max(n.disk, permillion(uint64(shards), uint64(limit)))
	if n.load.Full {
		n.used = max(n.used, Overloaded)
	}
}

// permillion is part/whole in millionths; 0 for an unknown whole.
func permillion(part, whole uint64) uint64 {
	if whole == 0 {
		return 0
	}
	hi, lo := bits.Mul64(part, 1_000_000)
	if hi >= whole {
		return math.MaxUint64
	}
	q, _ := bits.Div64(hi, lo, whole)
	return q
}
