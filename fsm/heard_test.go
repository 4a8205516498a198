package fsm_test

import (
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
)

// TestTheEndOfATimeTravelIsHeard: what waits for it is looked at, whether it was made or has
// failed.
func TestTheEndOfATimeTravelIsHeard(t *testing.T) {
	for _, failed := range []bool{false, true} {
		l := fsmtest.NewFaulty(t)
		l.Upgrade(t)
		l.AddNodes(t, 1, neon.MakeAZ("a"))
		id := neon.TenantID{1}
		l.Must(fsm.CreateTenant{
			ID: id, Stripe: 8, Scheduling: neon.ShardActive, Shards: []fsm.NewShard{{}},
		})
		l.Must(fsm.BeginTravel{
			Tenant: id, To: "x", DoneIfAfter: "y", Counts: []neon.ShardCount{0},
		})
		r, _ := l.State().Travel(id)
		var got fsm.Touched
		l.Subscribe(func(_ *fsm.State, c fsm.Touched) { got = c })
		l.Must(fsm.EndTravel{Tenant: id, Began: r.Began, Failed: failed})
		if len(got.Tenants) == 0 {
			t.Errorf("failed: %v, and nobody hears of it", failed)
		}
	}
}
