package fsmtest

import (
	"errors"
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
)

func createOne(id neon.TenantID) fsm.CreateTenant {
	return fsm.CreateTenant{
		ID: id, Count: 1, Stripe: 8, Policy: neon.Attached(0), Scheduling: neon.ShardActive,
		Shards: []fsm.NewShard{{Attached: 1}},
	}
}

func TestAFaultyLogLagsUntilItReadsOrProposes(t *testing.T) {
	l := NewFaulty(t)
	l.AddNodes(t, 1, neon.MakeAZ("a"))
	old := l.State()
	l.Must(createOne(neon.TenantID{1}))
	l.Lag(old)
	if l.State() != old {
		t.Error("it does not lag")
	}
	if s, err := l.ReadState(t.Context()); err != nil || s == old || l.State() == old {
		t.Errorf("it has not caught up: %v", err)
	}
	l.Lag(old)
	if _, err := l.Propose(t.Context(), fsm.RequestID{}, createOne(neon.TenantID{2})); err != nil {
		t.Error(err)
	}
	if l.State().TenantCount() != 2 || len(l.Proposed()) != 1 {
		t.Errorf("%d tenants after %v", l.State().TenantCount(), l.Proposed())
	}
}

func TestAFaultyLogFailsAsItIsTold(t *testing.T) {
	l := NewFaulty(t)
	l.AddNodes(t, 1, neon.MakeAZ("a"))
	broken := errors.New("broken")
	l.FailReads(broken)
	if _, err := l.ReadState(t.Context()); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	propose := func(id byte) error {
		_, err := l.Propose(t.Context(), fsm.RequestID{}, createOne(neon.TenantID{id}))
		return err
	}
	l.LoseProposals(broken)
	if err := propose(1); !errors.Is(err, broken) || l.State().TenantCount() != 0 {
		t.Errorf("got %v, %d tenants", err, l.State().TenantCount())
	}
	l.LoseProposals(nil)
	first := 0
	l.Before = func(fsm.Command) { first = l.State().TenantCount() + 1 }
	l.After = func(fsm.Command) error { return broken }
	if err := propose(1); !errors.Is(err, broken) || first != 1 || l.State().TenantCount() != 1 {
		t.Errorf("got %v, %d tenants", err, l.State().TenantCount())
	}
}

func TestAttachIssuesEachShardToItsNode(t *testing.T) {
	l := NewLog()
	l.AddNodes(t, 1, neon.MakeAZ("a"))
	l.Must(t, createOne(neon.TenantID{1}))
	l.Attach(t, neon.TenantID{1})
	for sh := range l.State().TenantShards(neon.TenantID{1}) {
		if sh.GenNode != 1 || !sh.HasGeneration {
			t.Errorf("got %+v", sh)
		}
	}
}
