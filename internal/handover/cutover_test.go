package handover_test

import (
	"errors"
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
