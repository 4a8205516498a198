package controller

import (
	"sync"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/scheduler"
)

// placing has the tenants whose nodes are chosen and whose creation is not in the
// state yet. Creations that run at the same time are all decided on one state. Without
// this each of them would choose the same, emptiest nodes.
type placing struct {
	mu      sync.Mutex
	tenants map[neon.TenantID][]fsm.NewShard
}

// place chooses the nodes of a new tenant, and takes the tenants into account that are
// being created. The choice counts until forget is called.
func (p *placing) place(
	sched *scheduler.Scheduler, s *fsm.State, c *fsm.CreateTenant,
) ([]fsm.NewShard, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, shards := range p.tenants {
		if _, committed := s.Tenant(id); !committed && id != c.ID {
			sched.Assume(id, shards)
		}
	}
	shards, err := sched.PlaceTenant(c.ID, c.Count, c.Policy)
	if p.tenants == nil {
		p.tenants = make(map[neon.TenantID][]fsm.NewShard)
	}
	p.tenants[c.ID] = shards
	return shards, err
}

// forget removes the choice of a creation that was committed or has failed.
func (p *placing) forget(id neon.TenantID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.tenants, id)
}
