package controller

import (
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
)

// Creations that are decided on one and the same state do not all choose the same
// nodes, and one that fails leaves nothing behind.
func TestTenantsCreatedAtTheSameTimeAreSpread(t *testing.T) {
	const n = 6
	l := fsmtest.NewFaulty(t)
	l.AddNodes(t, n, neon.MakeAZ("a"))
	tenants := NewTenants(newDeps(l, &fakeReality{}, &fakePageservers{}))
	made := 0
	make1 := func() {
		made++
		id := neon.TenantID{15: byte(made)}
		if _, err := tenants.Create(t.Context(),
			neon.TenantCreateRequest{Tenant: neon.ShardID{Tenant: id}}); err != nil {
			t.Error(err)
		}
	}
	l.Before = func(c fsm.Command) { // the others are decided before any is applied
		if _, ok := c.(fsm.CreateTenant); ok && made < n {
			make1()
		}
	}
	make1()
	for node := range l.State().Nodes() {
		if c := l.State().Counts(node.ID); c.Attached != 1 {
			t.Errorf("node %s has %d of %d tenants on %d nodes", node.ID, c.Attached, n, n)
		}
	}
	if left := len(tenants.placing.tenants); left != 0 {
		t.Errorf("%d choices are kept after all is done", left)
	}
}
