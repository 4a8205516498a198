package scheduler

import (
	"cmp"
	"slices"

	"quorate/fsm"
)

// sizeTakers is how many nodes are looked at for one that has too many bytes.
const sizeTakers = 16

// ideal is how many bytes have to go from one node to another so that both have the same
// for their share.
func ideal(from, to *holder) float64 {
	sum := from.fair[bySize] + to.fair[bySize]
	if sum <= 0 {
		return 0
	}
	return (from.load[bySize]*to.fair[bySize] - to.load[bySize]*from.fair[bySize]) / sum
}

// oversized reports whether a node has too many bytes.
func (h *holder) oversized() bool {
	load, fair := h.load[bySize], h.fair[bySize]
	return load > fair*(1+sizeBand) && load-fair >= sizeFloor
}

// even begins one move by size, or exchanges a large shard for a smaller one so that the
// number of shards stays within its bounds.
func (b *balance) even() bool {
	list := b.sorted(bySize)
	for _, from := range list {
		if from.spent[either] || !from.oversized() || b.busy(from, 1) {
			continue
		}
		tried := 0
		for _, to := range slices.Backward(list) {
			if to.relative(bySize) >= 1 || tried == sizeTakers {
				break
			}
			if !to.takes() || b.busy(to, 1) {
				continue
			}
			tried++
			if e := b.exchange(from, to); e.away != nil {
				b.carryOut(from, to, e)
				return true
			}
		}
		from.spent[either] = true
	}
	return false
}

// exchange is a shard that goes to another node, and one that comes for it, if any does.
type exchange struct {
	away, back *fsm.Shard
	gain       float64
}

func (b *balance) carryOut(from, to *holder, e exchange) {
	b.move(e.away, from, to)
	if e.back != nil {
		b.move(e.back, to, from)
	}
}

// exchange finds what lowers the squares of the differences most for each move. A
// difference in size that is small beside what is needed is not worth it. There always is one
// that is worth it, unless every shard is larger than what is needed, or may not go.
func (b *balance) exchange(from, to *holder) (best exchange) {
	away, back := b.bySize(from, to), b.bySize(to, from)
	want := ideal(from, to)
	least := (from.load[bySize] - from.fair[bySize]) / (2 * max(1, from.load[byNumber]))
	consider := func(x, y *fsm.Shard, moves float64) {
		d := float64(b.size(x))
		if y != nil {
			d -= float64(b.size(y))
		}
		if gain := d * (2*want - d) / moves; d >= least && 2*want-d >= least && gain > best.gain {
			best = exchange{x, y, gain}
		}
	}
	alone := from.load[byNumber]-1 >= from.least && to.load[byNumber]+1 <= to.most
	both := from.takes() && len(b.intents)+2 <= b.Moves && !b.busy(from, 2) && !b.busy(to, 2)
	for _, x := range away {
		if alone {
			consider(x, nil, 1)
		}
		if !both {
			continue
		}
		k, _ := slices.BinarySearchFunc(back, float64(b.size(x))-want,
			func(y *fsm.Shard, size float64) int {
				return cmp.Compare(float64(b.size(y)), size)
			})
		for _, y := range back[max(0, k-1):min(len(back), k+1)] {
			if y.ID.Tenant != x.ID.Tenant {
				consider(x, y, 2)
			}
		}
	}
	return best
}

// bySize are the shards that may go from a node to another one, the smallest first.
func (b *balance) bySize(from, to *holder) (list []*fsm.Shard) {
	b.list(from)
	for i := range from.shards {
		if b.first(&from.shards[i], from, []*holder{to}, either) == 0 {
			list = append(list, &from.shards[i])
		}
	}
	slices.SortStableFunc(list, func(x, y *fsm.Shard) int {
		return cmp.Compare(b.size(x), b.size(y))
	})
	return list
}
