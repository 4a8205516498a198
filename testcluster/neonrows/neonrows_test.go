package neonrows_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"quorate/internal/neondb"
	"quorate/testcluster/neonrows"
)

func TestEqualSeedsMakeEqualDatabases(t *testing.T) {
	odd := 0
	for seed := range uint64(200) {
		s := neonrows.Shape{Tenants: 5, Odd: true}
		a, b := neonrows.Random(seed, s), neonrows.Random(seed, s)
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("seed %d makes two databases", seed)
		}
		if len(a.Shards) == 0 || len(a.Nodes) < 2 || len(a.Health) != len(a.Shards) {
			t.Fatalf("seed %d: %d shards, %d nodes", seed, len(a.Shards), len(a.Nodes))
		}
		for _, sh := range a.Shards {
			odd += int(sh.Splitting)
		}
	}
	if odd == 0 {
		t.Error("no tenant is being split")
	}
}

func TestMemoryIsTakenOnceAndGivenBack(t *testing.T) {
	ctx := t.Context()
	m := &neonrows.Memory{}
	if err := m.Write(ctx, neonrows.Random(1, neonrows.Shape{Tenants: 3}),
		neondb.Destination{}); err != nil {
		t.Fatal(err)
	}
	if err := m.Write(ctx, m.Content, neondb.Destination{Overwrite: true}); !errors.Is(err,
		neondb.ErrNotEmpty) {
		t.Errorf("overwritten: %v", err)
	}
	was := m.Content.Leaders[0]
	own := neondb.Leader{Address: "us", StartedAt: time.Unix(1, 0)}
	if _, err := m.Take(ctx, "a", nil, own); !errors.Is(err, neondb.ErrRaced) {
		t.Errorf("taken from nobody: %v", err)
	}
	if err := m.HandOut(ctx, "a"); !errors.Is(err, neondb.ErrNotTaken) {
		t.Errorf("handed out: %v", err)
	}
	if mark, err := m.Take(ctx, "a", &was, own); err != nil || mark.ID != "a" {
		t.Fatalf("%+v, %v", mark, err)
	}
	if _, err := m.Take(ctx, "b", &was, own); !errors.Is(err, neondb.ErrRaced) {
		t.Errorf("taken twice: %v", err)
	}
	if _, err := m.Again(ctx, "a", "b"); !errors.Is(err, neondb.ErrRaced) {
		t.Errorf("again, before it was handed out: %v", err)
	}
	if err := m.HandOut(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if err := m.HandOut(ctx, "a"); !errors.Is(err, neondb.ErrHandedOut) {
		t.Errorf("handed out twice: %v", err)
	}
	if mark, err := m.Again(ctx, "a", "b"); err != nil || mark.ID != "b" {
		t.Errorf("%+v, %v", mark, err)
	}
	if err := m.HandOut(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.GiveBack(ctx, false); !errors.Is(err, neondb.ErrHandedOut) {
		t.Errorf("given back: %v", err)
	}
	if _, err := m.GiveBack(ctx, true); err != nil || m.Content.Leaders[0] != was {
		t.Errorf("%v, %+v leads", err, m.Content.Leaders)
	}
	if _, err := m.GiveBack(ctx, true); !errors.Is(err, neondb.ErrNotTaken) {
		t.Errorf("given back twice: %v", err)
	}
}
