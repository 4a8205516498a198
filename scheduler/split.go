package scheduler

import (
	"quorate/api/neon"
	"quorate/fsm"
)

// splitSecondaries chooses secondaries for the children, one after another.
func splitSecondaries(r *round, sp fsm.Split) [][]neon.NodeID {
	r.enter(sp.Tenant)
	wanted := r.tenant.Policy.WantedSecondaries()
	if r.tenant.Pinned() || wanted == 0 {
		return nil
	}
	zones := make(map[neon.ShardID]neon.AZ)
	for sh := range r.state.TenantShards(sp.Tenant) {
		r.take(&sh) // the parents make room
		zones[sh.ID] = sh.PreferredAZ
	}
	out := make([][]neon.NodeID, sp.Count.Shards())
	for _, p := range sp.Parents {
		for _, child := range sp.Children(p.Shard) {
			r.put(&draft{attached: p.Node, az: zones[p.Shard]})
			d := draft{fleet: r.fleet, attached: p.Node, az: zones[p.Shard], asked: true}
			for len(d.secondary) < wanted {
				n, ok := d.fresh(secondary)
				if !ok {
					break
				}
				d.secondary = append(d.secondary, n)
			}
			r.put(&draft{secondary: d.secondary, az: d.az})
			out[child.Number] = d.secondary
		}
	}
	return out
}
