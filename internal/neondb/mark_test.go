package neondb_test

import (
	"errors"
	"testing"
	"time"

	"quorate/internal/neondb"
	"quorate/testcluster/neonrows"
)

// TestStateIsHandedOutOnce hands a state out, and again beyond the numbers of the first time.
func TestStateIsHandedOutOnce(t *testing.T) {
	db, conn := database(t)
	ctx := t.Context()
	c := neonrows.Random(3, neonrows.Shape{Tenants: 5})
	write(t, db, c)
	if _, err := db.Again(ctx, "a", "b"); !errors.Is(err, neondb.ErrNotTaken) {
		t.Errorf("again, without a first time: %v", err)
	}
	us := neondb.Leader{Address: "http://us/", StartedAt: time.Now()}
	if _, err := db.Take(ctx, "a", nil, us); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Again(ctx, "a", "b"); !errors.Is(err, neondb.ErrRaced) {
		t.Errorf("again, before it was handed out: %v", err)
	}
	if err := db.HandOut(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if err := db.HandOut(ctx, "a"); !errors.Is(err, neondb.ErrHandedOut) {
		t.Errorf("handed out twice: %v", err)
	}
	if m, err := db.Again(ctx, "a", "b"); err != nil || m.ID != "b" || m.HandedOut != nil {
		t.Fatalf("%+v, %v", m, err)
	}
	jumped(t, c, read(t, db), neondb.Jump+neondb.BackJump)
	if err := db.HandOut(ctx, "a"); !errors.Is(err, neondb.ErrNotTaken) {
		t.Errorf("handed out under its old name: %v", err)
	}
	if _, err := conn.Exec(ctx, "UPDATE tenant_shards SET generation = 1"); err == nil {
		t.Error("the fence is gone")
	}
	if err := db.HandOut(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	if m, err := db.GiveBack(ctx, true); err != nil || m.Own.Address != us.Address {
		t.Errorf("%+v, %v", m, err)
	}
}
