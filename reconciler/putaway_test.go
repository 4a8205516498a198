package reconciler

import (
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/scheduler"
)

// place changes the policy of a tenant as a request does.
func (b *bench) place(id neon.TenantID, policy neon.Placement) {
	b.t.Helper()
	tenant, _ := b.log.State().Tenant(id)
	intents, err := scheduler.New(b.log.State(), b.now.Loads()).Replace(tenant, policy)
	if err != nil {
		b.t.Fatal(err)
	}
	b.must(fsm.UpdateTenant{
		ID: id, Sequence: tenant.Sequence, Policy: &policy, Intents: intents,
	})
}

// TestATenantThatIsPutToSecondaryKeepsASecondCopyForAWhile: whoever attaches it again soon
// has its secondary as well.
func TestATenantThatIsPutToSecondaryKeepsASecondCopyForAWhile(t *testing.T) {
	scenario(t, 2, func(b *bench) {
		id := b.create(1, 1, neon.Attached(1))[0]
		b.awaitIdle()
		was := first(b)
		put := func(policy neon.Placement) {
			t.Helper()
			b.place(id, policy)
			b.awaitIdle()
		}
		put(neon.Placement{Kind: neon.PlaceSecondary})
		elapse(2 * time.Minute)
		for _, n := range []neon.NodeID{1, 2} {
			if !b.fleet.holds(n, was.ID) {
				t.Errorf("node %d has no copy", n)
			}
		}
		put(neon.Attached(1))
		if now := first(b); now.Attached != was.Attached || now.Secondary[0] != was.Secondary[0] {
			t.Errorf("it was %+v and is %+v", was, now)
		}
		put(neon.Placement{Kind: neon.PlaceSecondary})
		elapse(4 * time.Minute)
		if !b.fleet.holds(was.Secondary[0], was.ID) {
			t.Error("the time of the first time counts")
		}
		elapse(2 * time.Minute)
		b.awaitIdle()
		if !b.fleet.holds(was.Attached, was.ID) || b.fleet.holds(was.Secondary[0], was.ID) {
			t.Error("the warm copy does not stay alone")
		}
		b.check()
	})
}
