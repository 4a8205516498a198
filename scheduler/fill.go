package scheduler

import (
	"cmp"
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
)

// fill makes the plan for a node.
func fill(r *round, node neon.NodeID) []neon.ShardID {
	to := r.node(node)
	if to == nil || to.class != schedulable {
		return nil
	}
	f := filling{
		r: r, to: to, free: make(map[neon.NodeID][]neon.ShardID),
		given: make(map[neon.TenantID]int),
	}
	for sh := range r.state.SecondaryOn(node, neon.ShardID{}) {
		f.consider(&sh)
	}
	f.level()
	return f.plan
}

// filling is the making of one plan.
type filling struct {
	r     *round
	to    *node
	plan  []neon.ShardID
	under int // on their way already
	free  map[neon.NodeID][]neon.ShardID
	given map[neon.TenantID]int // attached, or to be attached, on the node
}

func (f *filling) consider(sh *fsm.Shard) {
	r := f.r
	r.enter(sh.ID.Tenant)
	from := r.node(sh.Attached)
	switch {
	case r.held(), r.tenant.Pinned(), r.tenant.Policy.Kind != neon.PlaceAttached, from == nil:
	case sh.PreferredNode == f.to.id:
		f.under++
		f.given[sh.ID.Tenant]++
	case sh.PreferredNode != 0:
	case sh.PreferredAZ.IsZero(), !r.severalZones():
		f.free[sh.Attached] = append(f.free[sh.Attached], sh.ID)
	case sh.PreferredAZ == f.to.az && from.az != f.to.az:
		f.plan = append(f.plan, sh.ID)
		f.given[sh.ID.Tenant]++
	}
}

// level plans moves from the nodes with the most attached shards until the node
// has its share.
func (f *filling) level() {
	total := 0
	donors := make([]*node, 0, len(f.r.nodes))
	for i := range f.r.nodes {
		n := &f.r.nodes[i]
		total += n.counts.Attached
		if n.class != unreachable {
			donors = append(donors, n)
		}
	}
	share := total / len(f.r.nodes)
	slices.SortFunc(donors, func(a, b *node) int {
		return cmp.Or(cmp.Compare(b.counts.Attached, a.counts.Attached), cmp.Compare(a.id, b.id))
	})
	need := share - f.to.counts.Attached - f.under - len(f.plan)
	for _, n := range donors {
		take := min(need, n.counts.Attached-share)
		for _, id := range f.free[n.id] {
			if take <= 0 {
				break
			}
			if f.mayGive(id) {
				f.plan = append(f.plan, id)
				f.given[id.Tenant]++
				take--
				need--
			}
		}
	}
}

// mayGive reports whether a tenant has not given its share of one node yet. What it
// has attached there counts, so that a plan made again asks for no more.
func (f *filling) mayGive(id neon.ShardID) bool {
	has := f.given[id.Tenant]
	for sh := range f.r.state.TenantShards(id.Tenant) {
		if sh.Attached == f.to.id {
			has++
		}
	}
	return has < max(1, id.Count.Shards()/len(f.r.nodes))
}
