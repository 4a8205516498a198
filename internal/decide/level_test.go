package decide

import (
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
)

// Below the level the log remembers what was taken for nothing.
func TestARefusedOrderIsNotDoneBelowTheLevel(t *testing.T) {
	l := fsmtest.NewFaulty(t)
	l.AddNodes(t, 2, neon.MakeAZ("a"))
	l.Must(fsm.CreateTenant{
		ID: tenantOne, Count: 1, Stripe: 8, Policy: neon.Attached(1),
		Scheduling: neon.ShardActive,
		Shards:     []fsm.NewShard{{Attached: 1, Secondary: []neon.NodeID{2}}},
	})
	sh, _ := l.State().Shard(neon.ShardID{Tenant: tenantOne, Count: 1})
	l.Before = func(fsm.Command) { // the reconciler is faster, once
		l.Before = nil
		l.Must(fsm.SetIntents{Intents: []fsm.Intent{{
			Shard: sh.ID, Sequence: sh.Sequence, Attached: 1}}})
	}
	_, err := Commit(WithRequest(t.Context(), [32]byte{7}), l,
		func(s *fsm.State) (fsm.Command, error) {
			now, _ := s.Shard(sh.ID)
			if now.Attached == 2 {
				return nil, nil
			}
			return fsm.SetIntents{Intents: []fsm.Intent{{
				Shard: sh.ID, Sequence: now.Sequence, Attached: 2}}}, nil
		})
	if now, _ := l.State().Shard(sh.ID); err == nil && now.Attached != 2 {
		t.Errorf("answered as done; the shard is still on %d", now.Attached)
	}
}
