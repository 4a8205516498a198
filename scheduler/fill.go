package scheduler

import (
	"cmp"
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
)

// Fill lists the shards that should be attached on a node which came back, and
// that have a secondary there: first those that are at home in the node's zone and
// attached outside it, then, as long as the node has fewer attached shards than
// its share, those without a home, and in a cluster of one zone any, from the
// nodes that have the most. A tenant gives at most its share of one node. Shards
// on their way to the node already are not listed, but count.
func (s *Scheduler) Fill(node neon.NodeID) []neon.ShardID {
	to := s.node(node)
	if to == nil || to.class != schedulable {
		return nil
	}
	f := filling{
		s: s, to: to, free: make(map[neon.NodeID][]neon.ShardID),
		given: make(map[neon.TenantID]int),
	}
	for sh := range s.state.SecondaryOn(node, neon.ShardID{}) {
		f.consider(&sh)
	}
	f.level()
	return f.plan
}

// filling is the making of one plan.
type filling struct {
	s     *Scheduler
	to    *node
	plan  []neon.ShardID
	under int // on their way already
	free  map[neon.NodeID][]neon.ShardID
	given map[neon.TenantID]int // attached, or to be attached, on the node
}

func (f *filling) consider(sh *fsm.Shard) {
	s := f.s
	s.enter(sh.ID.Tenant)
	from := s.node(sh.Attached)
	switch {
	case s.held(), frozen(&s.tenant), s.tenant.Policy.Kind != neon.PlaceAttached, from == nil:
	case sh.PreferredNode == f.to.id:
		f.under++
		f.given[sh.ID.Tenant]++
	case sh.PreferredNode != 0:
	case sh.PreferredAZ.IsZero(), !s.severalZones():
		f.free[sh.Attached] = append(f.free[sh.Attached], sh.ID)
	case sh.PreferredAZ == f.to.az && from.az != f.to.az:
		f.plan = append(f.plan, sh.ID)
		f.given[sh.ID.Tenant]++
	}
}

// severalZones tells whether the nodes are in more than one zone.
func (s *Scheduler) severalZones() bool {
	return slices.ContainsFunc(s.nodes, func(n node) bool { return n.az != s.nodes[0].az })
}

// level plans moves from the nodes with the most attached shards until the node
// has its share.
func (f *filling) level() {
	total := 0
	donors := make([]*node, 0, len(f.s.nodes))
	for i := range f.s.nodes {
		n := &f.s.nodes[i]
		total += n.counts.Attached
		if n.class != unreachable {
			donors = append(donors, n)
		}
	}
	share := total / len(f.s.nodes)
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

// mayGive tells whether a tenant has not given its share of one node yet. What it
// has attached there counts, so that a plan made again asks for no more.
func (f *filling) mayGive(id neon.ShardID) bool {
	has := f.given[id.Tenant]
	for sh := range f.s.state.TenantShards(id.Tenant) {
		if sh.Attached == f.to.id {
			has++
		}
	}
	return has < max(1, id.Count.Shards()/len(f.s.nodes))
}
