package reconciler

import (
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/reconciler/plan"
	"quorate/scheduler"
)

// burdened are nodes of which some are under loads.
type burdened struct {
	callees
	load map[neon.NodeID]scheduler.Load
}

func (b burdened) loads() map[neon.NodeID]scheduler.Load { return b.load }

// A move whose node takes nothing at present is a failure, so that the shard waits before
// the same step is named again. When something else was decided it is none: the next step
// is another one.
func TestAMoveToWhatTakesNothingIsAFailure(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		b.create(1, 1, neon.Attached(1))
		b.awaitIdle()
		b.depose()
		sh := first(b)
		to := sh.Secondary[0]
		in, err := scheduler.New(b.log.State(), nil).Prewarm(sh, to, scheduler.OverrideScheduler)
		if err != nil {
			t.Fatal(err)
		}
		b.must(fsm.SetIntents{Intents: []fsm.Intent{in}})
		sh = first(b)
		tenant, _ := b.log.State().Tenant(sh.ID.Tenant)
		st := b.log.State()
		sc := &plan.Scene{Tenant: tenant, Shard: sh, Node: func(id neon.NodeID) *fsm.Node {
			n, _ := st.Node(id)
			return &n
		}}
		c := &calls{ctx: t.Context(), log: b.log, nodes: burdened{
			load: map[neon.NodeID]scheduler.Load{to: {Silent: true}},
		}}
		step := plan.Step{Kind: plan.Move, Node: to}
		if err := c.move(sc, step); err == nil {
			t.Error("nothing was done, and the same would be tried at once")
		}
		if now := first(b); now.Attached != sh.Attached {
			t.Errorf("it has moved to node %d", now.Attached)
		}
		b.must(fsm.UpdateTenant{
			ID: tenant.ID, Sequence: tenant.Sequence, Scheduling: new(neon.ShardPause),
		})
		if err := c.move(sc, step); err != nil {
			t.Errorf("the tenant has changed: %v", err)
		}
		b.lead()
	})
}
