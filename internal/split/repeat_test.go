package split

import (
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

// A client's split joins that of another, and succeeds. Repeated under its key after the tenant
// was deleted and created again, it splits the new one.
func TestASplitThatHasJoinedIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f := splitWorld(t, 1, Options{})
		l := f.log
		l.Upgrade(t)
		f.before = func(neon.ShardID) error {
			f.mu.Unlock()
			<-time.After(5 * time.Second)
			f.mu.Lock()
			return nil
		}
		req := neon.ShardSplitRequest{Count: 2}
		try := func() ([]neon.ShardID, error) {
			ctx := decide.ByClient(decide.WithRequest(t.Context(), [32]byte{1}))
			return p.Split(ctx, tenantOne, req)
		}
		lead(t, p, func() {
			go func() { _, _ = p.Split(t.Context(), tenantOne, req) }()
			<-time.After(time.Second)
			if sh, err := try(); err != nil || len(sh) != 2 {
				t.Fatal(sh, err)
			}
			<-time.After(time.Minute)
		})
		l.Must(fsm.BeginDeleteTenant{ID: tenantOne})
		l.Must(fsm.FinishDeleteTenant{ID: tenantOne})
		l.Must(fsm.CreateTenant{
			ID: tenantOne, Count: 1, Stripe: 8, Policy: neon.Attached(0),
			Scheduling: neon.ShardActive, Shards: []fsm.NewShard{{Attached: 1}},
		})
		l.Attach(t, tenantOne)
		ctx := decide.ByClient(decide.WithRequest(t.Context(), [32]byte{1}))
		_, _, err := p.begin(ctx, tenantOne, req)
		if l.State().Splitting(tenantOne) {
			t.Errorf("the next tenant is split: %v", err)
		}
	})
}
