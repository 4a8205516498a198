package scheduler

import (
	"quorate/api/neon"
	"quorate/fsm"
)

// SplitSecondaries chooses the secondaries of the children of a split, by child
// number: as many as the policy wants, and apart from each other, so that each
// child can be moved to a node of its own. The children stay attached where their
// parents are. For a tenant that may not be scheduled it is nil.
func (s *Scheduler) SplitSecondaries(sp fsm.Split) [][]neon.NodeID {
	s.enter(sp.Tenant)
	wanted := s.tenant.Policy.WantedSecondaries()
	if frozen(&s.tenant) || wanted == 0 {
		return nil
	}
	zones := make(map[neon.ShardID]neon.AZ)
	for sh := range s.state.TenantShards(sp.Tenant) {
		s.take(&sh) // the parents make room
		zones[sh.ID] = sh.PreferredAZ
	}
	out := make([][]neon.NodeID, sp.Count.Shards())
	for _, p := range sp.Parents {
		for _, child := range sp.Children(p.Shard) {
			s.put(&draft{attached: p.Node, az: zones[p.Shard]})
			d := draft{attached: p.Node, az: zones[p.Shard]}
			for len(d.secondary) < wanted {
				n, ok := s.pick(secondary, &d)
				if !ok {
					break
				}
				d.secondary = append(d.secondary, n)
			}
			s.put(&draft{secondary: d.secondary, az: d.az})
			out[child.Number] = d.secondary
		}
	}
	return out
}
