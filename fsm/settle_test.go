package fsm

import (
	"slices"
	"strings"
	"testing"

	"quorate/api/neon"
)

// withKeepers is small at the second level with safekeepers 1 to 4, of which the first three
// have two timelines, and with safekeeper 3 decommissioned.
func withKeepers(t *testing.T) *State {
	t.Helper()
	s := second(t)
	for id := neon.NodeID(1); id <= 4; id++ {
		s, _ = must(t, s, UpsertSafekeeper{ID: id, Host: "sk"})
	}
	for n := 1; n <= 2; n++ {
		s, _ = must(t, s, CreateTimeline{
			Tenant: modelTenant(1), Timeline: modelTimeline(n), Set: []neon.NodeID{1, 2, 3},
		})
	}
	s, _ = must(t, s, SetSafekeeperScheduling{Safekeeper: 3, To: neon.SafekeeperDecomissioned})
	return s
}

func refused(t *testing.T, s *State, c Command, code neon.Code, text string) {
	t.Helper()
	next, r := Apply(s, s.Index+1, RequestID{}, c)
	if neon.CodeOf(r.Err) != code || !strings.Contains(r.Err.Msg, text) || !sameRecords(s, next) {
		t.Errorf("%+v: %v", c, r.Err)
	}
}

// TestASafekeeperThatIsGoneOwesNothing, now and later, and what only waited for it is
// forgotten.
func TestASafekeeperThatIsGoneOwesNothing(t *testing.T) {
	s := withKeepers(t)
	tenant, first, other := modelTenant(1), modelTimeline(1), modelTimeline(2)
	settle := SettleSafekeeper{Safekeeper: 3}
	refused(t, s, SettleSafekeeper{Safekeeper: 9}, neon.NotFound, "not registered")
	refused(t, s, SettleSafekeeper{Safekeeper: 1}, neon.PreconditionFailed, "not decomissioned")
	refused(t, s, settle, neon.PreconditionFailed, "2 timelines are on safekeeper 3")
	s, _ = must(t, s, DeleteTimeline{Tenant: tenant, Timeline: first})
	refused(t, s, settle, neon.PreconditionFailed, "1 timelines are on safekeeper 3, such as "+
		tenant.String()+"/"+other.String())
	s, _ = must(t, s, BeginMembership{
		Tenant: tenant, Timeline: other, Generation: 1, NewSet: []neon.NodeID{1, 2, 4},
	})
	refused(t, s, settle, neon.PreconditionFailed, "1 timelines")
	s, _ = must(t, s, EndMembership{
		Tenant: tenant, Timeline: other, Generation: 2, Verdict: MembershipCommit,
	})
	for _, id := range []neon.NodeID{1, 2} {
		op, _ := s.SafekeeperOp(id, tenant, first)
		s, _ = must(t, s, FinishSafekeeperOps{Ops: []SafekeeperOp{op}})
	}
	if tl, _ := s.Timeline(tenant, first); !tl.Deleted || s.SafekeeperOpCount() != 2 {
		t.Fatalf("%d operations are owed, and for %+v", s.SafekeeperOpCount(), tl)
	}
	for range 2 {
		s, _ = must(t, s, settle)
	}
	if _, kept := s.Timeline(tenant, first); kept || s.SafekeeperOpCount() != 0 {
		t.Errorf("%d operations are owed", s.SafekeeperOpCount())
	}
	s = restored(t, s)
	for _, c := range []Command{
		UpsertSafekeeper{ID: 3, Host: "sk"},
		SetSafekeeperScheduling{Safekeeper: 3, To: neon.SafekeeperActive},
		CreateTimeline{Tenant: tenant, Timeline: first, Set: []neon.NodeID{3}},
		ImportTimeline{Tenant: tenant, Timeline: first, Set: []neon.NodeID{3}},
		BeginMembership{
			Tenant: tenant, Timeline: other, Generation: 3, NewSet: []neon.NodeID{3},
		},
	} {
		refused(t, s, c, neon.Conflict, "safekeeper 3 is gone")
	}
	must(t, s, SetSafekeeperScheduling{Safekeeper: 3, To: neon.SafekeeperDecomissioned})
}

// TestADeletionThatNamesASafekeeperThatIsGoneEnds: of a timeline that others have still to
// delete, and then of its tenant.
func TestADeletionThatNamesASafekeeperThatIsGoneEnds(t *testing.T) {
	s := withKeepers(t)
	for n := 1; n <= 2; n++ {
		s, _ = must(t, s, DeleteTimeline{Tenant: modelTenant(1), Timeline: modelTimeline(n)})
	}
	s, _ = must(t, s, SettleSafekeeper{Safekeeper: 3})
	s, _ = must(t, s, BeginDeleteTenant{ID: modelTenant(1)})
	s, _ = must(t, s, FinishDeleteTenant{ID: modelTenant(1)})
	var owe []neon.NodeID
	for _, op := range opsOf(s) {
		owe = append(owe, op.Safekeeper)
	}
	if !slices.Equal(owe, []neon.NodeID{1, 2}) {
		t.Errorf("safekeepers %v owe the deletion of the tenant", owe)
	}
}
