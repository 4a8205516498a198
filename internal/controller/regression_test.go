package controller

import (
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
)

// TestValidateFollowsAMigration: from the entry that issues the number on, the new
// location is valid and the old one is not, whatever either of them does.
func TestValidateFollowsAMigration(t *testing.T) {
	l := fsmtest.NewFaulty(t)
	l.AddNodes(t, 2, neon.MakeAZ("a"))
	deps := newDeps(l, &fakeReality{}, &fakePageservers{})
	create(t, NewTenants(deps), 1)
	id := neon.ShardID{Tenant: tenantOne, Count: 1}
	sh, _ := l.State().Shard(id)
	from, to := sh.Attached, 3-sh.Attached
	l.Must(fsm.IssueGenerations{Items: []fsm.Issue{{Shard: id, Node: from}}})
	valid := func(old, current bool) {
		t.Helper()
		ask := neon.ValidateRequest{
			Tenants: []neon.ValidateTenant{{Shard: id, Gen: 1}, {Shard: id, Gen: 2}},
		}
		resp, err := NewUpcalls(deps).Validate(t.Context(), ask)
		if err != nil || len(resp.Tenants) != 2 || resp.Tenants[0].Valid != old ||
			resp.Tenants[1].Valid != current {
			t.Errorf("%+v, %v", resp, err)
		}
	}
	valid(true, false)
	sh, _ = l.State().Shard(id)
	l.Must(fsm.SetIntents{Intents: []fsm.Intent{{Shard: id, Sequence: sh.Sequence, Attached: to}}})
	valid(true, false) // it was only decided
	l.Must(fsm.IssueGenerations{Items: []fsm.Issue{{Shard: id, Node: to, Generation: 1}}})
	valid(false, true)
}

// TestAPolicyOverridesAPause: a tenant that an operator pinned is detached and deleted as
// any other. A location that stays attached would be written to although the client
// believes it gone.
func TestAPolicyOverridesAPause(t *testing.T) {
	for name, act := range map[string]func(*testing.T, *fsmtest.Faulty, *Tenants){
		"policy": func(t *testing.T, _ *fsmtest.Faulty, tenants *Tenants) {
			if err := tenants.SetPolicy(t.Context(), tenantOne,
				neon.PolicyRequest{Placement: &neon.Placement{}}); err != nil {
				t.Error(err)
			}
		},
		"location": func(t *testing.T, _ *fsmtest.Faulty, tenants *Tenants) {
			if _, err := tenants.SetLocation(t.Context(), neon.Unsharded(tenantOne),
				neon.LocationConfig{Mode: neon.Detached}); err != nil {
				t.Error(err)
			}
		},
		"delete": func(
			_ *testing.T, l *fsmtest.Faulty, _ *Tenants,
		) {
			l.Must(fsm.BeginDeleteTenant{ID: tenantOne})
		},
	} {
		for _, pin := range []neon.ShardScheduling{neon.ShardPause, neon.ShardStop} {
			l := fsmtest.NewFaulty(t)
			l.AddNodes(t, 2, neon.MakeAZ("a"))
			tenants := NewTenants(newDeps(l, &fakeReality{}, &fakePageservers{}))
			create(t, tenants, 1)
			if err := tenants.SetPolicy(t.Context(), tenantOne,
				neon.PolicyRequest{Scheduling: &pin}); err != nil {
				t.Fatal(err)
			}
			act(t, l, tenants)
			tenant, _ := l.State().Tenant(tenantOne)
			for sh := range l.State().TenantShards(tenantOne) {
				if sh.Attached != 0 || sh.GenNode != 0 || tenant.Scheduling != neon.ShardActive {
					t.Errorf("%s under %s: %s, %+v", name, pin, tenant.Scheduling, sh)
				}
			}
		}
	}
}
