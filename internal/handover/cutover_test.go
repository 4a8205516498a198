package handover_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/handover"
	"quorate/internal/neondb"
	"quorate/testcluster/neonrows"
)

// TestTheNextSnapshotHasNumbersOfItsOwn hands a state out twice: the second cluster begins
// beyond all that the first one can have issued.
func TestTheNextSnapshotHasNumbersOfItsOwn(t *testing.T) {
	m := newMove(neonrows.Random(4, neonrows.Shape{Tenants: 5}))
	if _, err := m.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := m.founded(t)
	m.saved = nil
	m.ID = "neon-2"
	if _, err := m.Do(t.Context()); !errors.Is(err, neondb.ErrHandedOut) || m.saved != nil {
		t.Fatalf("a second snapshot: %v", err)
	}
	m.Again = true
	if _, err := m.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m.db.Content.Mark.ID != "neon-2" || m.db.Content.Mark.HandedOut == nil {
		t.Errorf("marked %+v", m.db.Content.Mark)
	}
	second := m.founded(t)
	for sh := range first.ShardsFrom(neon.ShardID{}) {
		later, ok := second.Shard(sh.ID)
		if !ok || sh.HasGeneration && later.Generation <= sh.Generation+fsm.RecoveryGap {
			t.Errorf("%v begins with %d and %d", sh.ID, sh.Generation, later.Generation)
		}
	}
}

// TestOneOfTwoCommandsHandsOut runs a second command while the first one is at each step.
func TestOneOfTwoCommandsHandsOut(t *testing.T) {
	for _, step := range steps[:4] { // before it hands out
		first := newMove(neonrows.Random(6, neonrows.Shape{Tenants: 3}))
		second := newMove(first.db.Content)
		second.db, second.ID = first.db, "neon-2"
		second.Database, second.Owner = first.db, first.db
		var other error
		first.After = func(s handover.Step) error {
			if s == step {
				_, other = second.Do(t.Context())
			}
			return nil
		}
		_, err := first.Do(t.Context())
		if other != nil || first.saved != nil || second.saved == nil ||
			!errors.Is(err, neondb.ErrRaced) && !errors.Is(err, neondb.ErrHandedOut) {
			t.Errorf("after %s: %v, %v, saved %t and %t", step, err, other, first.saved != nil,
				second.saved != nil)
		}
	}
}

// TestNobodyStepsDownBeforeTheRestCanWork lets what comes after the step-down fail.
func TestNobodyStepsDownBeforeTheRestCanWork(t *testing.T) {
	broken := errors.New("broken")
	fresh := func() *move {
		m := newMove(neonrows.Random(3, neonrows.Shape{Tenants: 3}))
		m.Stopped, m.db.Content.Leaders = false, []neondb.Leader{{Address: "http://old/"}}
		return m
	}
	unasked := func(m *move, err, want error) {
		t.Helper()
		if !errors.Is(err, want) || m.asked > 0 || m.db.Content.Mark != nil || m.saved != nil {
			t.Errorf("asked %d times, %+v, %v", m.asked, m.db.Content.Mark, err)
		}
	}
	m := fresh()
	m.Rehearse = func(func(io.Writer) error) error { return broken }
	_, err := m.Do(t.Context())
	unasked(m, err, broken)

	m = fresh()
	m.Owner = noRehearsal{m.db, broken}
	_, err = m.Do(t.Context())
	unasked(m, err, broken)

	m = fresh()
	m.Stopped, m.Answers = true, func(_ context.Context, address string) bool {
		return address == "http://old/"
	}
	_, err = m.Do(t.Context())
	unasked(m, err, handover.ErrLeaderAlive)

	m = fresh()
	m.StepDown = func(context.Context, string) (neon.GlobalObserved, error) {
		return nil, fmt.Errorf("%w: no answer", handover.ErrUnsure)
	}
	_, err = m.Do(t.Context())
	if unasked(m, err, handover.ErrUnsure); !strings.Contains(err.Error(), "nobody leads") {
		t.Errorf("does not say so: %v", err)
	}

	m = fresh()
	m.Save = func(func(io.Writer) error) error { return broken }
	if _, err := m.Do(t.Context()); !errors.Is(err, broken) ||
		!strings.Contains(err.Error(), "HAS stepped down") {
		t.Errorf("does not say so: %v", err)
	}
}

// noRehearsal is a database that nobody may change.
type noRehearsal struct {
	handover.Owner
	err error
}

func (n noRehearsal) Rehearse(context.Context, *neondb.Leader, neondb.Leader) error {
	return n.err
}
