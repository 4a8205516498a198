package neonstate_test

import (
	"flag"
	"reflect"
	"strings"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/neondb"
	"quorate/internal/neonstate"
	"quorate/testcluster/neonrows"
)

var databases = flag.Uint64("moving.databases", 100, "random databases to move in and out")

// TestStateSurvivesMovingOutAndIn moves random databases in, out and in again: the states
// differ in nothing but their generations, and those have grown.
func TestStateSurvivesMovingOutAndIn(t *testing.T) {
	for seed := range *databases {
		c := neonrows.Random(seed, neonrows.Shape{Tenants: 8, Odd: seed%2 == 1})
		in := fromRows(t, seed, c)
		nothingLost(t, seed, c, in)
		rows, _, err := neonstate.ToRows(in.State, time.Unix(1_700_000_000, 0))
		if err != nil {
			t.Fatalf("seed %d: out: %v", seed, err)
		}
		again := fromRows(t, seed, rows)
		for _, f := range again.Findings {
			if f.Severity == neonstate.Wrong && f.Code != neonstate.NoGeneration {
				t.Errorf("seed %d: what was written is wrong: %s", seed, f)
			}
		}
		was, is := fsm.RecordsOf(in.State), fsm.RecordsOf(again.State)
		for i := range is.Shards {
			if a, b := was.Shards[i], is.Shards[i]; a.HasGeneration &&
				b.Generation != a.Generation+fsm.RecoveryGap+neondb.Jump {
				t.Errorf("seed %d: %s went from %d to %d", seed, a.ID, a.Generation, b.Generation)
			}
			was.Shards[i].Generation, is.Shards[i].Generation = 0, 0
		}
		was.Splits, is.Splits = nil, nil // its parents are written
		for _, field := range []string{
			"Nodes", "Tenants", "Shards", "Safekeepers", "Timelines", "Ops", "Imports",
		} {
			a := reflect.ValueOf(was).FieldByName(field).Interface()
			b := reflect.ValueOf(is).FieldByName(field).Interface()
			if !reflect.DeepEqual(a, b) {
				t.Fatalf("seed %d: %s were %+v, are %+v", seed, field, a, b)
			}
		}
	}
}

func fromRows(t *testing.T, seed uint64, c *neondb.Content) *neonstate.Converted {
	t.Helper()
	in, err := neonstate.FromRows(c, nil, "origin")
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	if err := fsm.Check(in.State); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	return in
}

// nothingLost verifies that each row is in the state, or that a finding names it.
func nothingLost(t *testing.T, seed uint64, c *neondb.Content, in *neonstate.Converted) {
	t.Helper()
	named := func(what string) bool {
		for _, f := range in.Findings {
			if strings.Contains(f.Subject, what) {
				return true
			}
		}
		return false
	}
	for _, r := range c.Shards {
		tenant, err := neon.ParseTenantID(r.Tenant)
		if err != nil {
			t.Fatal(err)
		}
		sh, ok := in.State.Shard(neon.ShardID{
			Tenant: tenant, Number: neon.ShardNumber(r.Number), Count: neon.ShardCount(r.Count),
		})
		if !ok && !named(r.Tenant) {
			t.Errorf("seed %d: shard %+v is lost", seed, r)
		}
		if ok && r.Generation != nil &&
			sh.Generation != neon.Generation(*r.Generation+neondb.Jump) {
			t.Errorf("seed %d: %s has %d, had %d", seed, sh.ID, sh.Generation, *r.Generation)
		}
		if ok && r.Pageserver != nil && sh.GenNode != neon.NodeID(*r.Pageserver) &&
			!named(sh.ID.String()) {
			t.Errorf("seed %d: %s is of %d, was of %d", seed, sh.ID, sh.GenNode, *r.Pageserver)
		}
	}
	for _, r := range c.Timelines {
		tenant, _ := neon.ParseTenantID(r.Tenant)
		id, _ := neon.ParseTimelineID(r.Timeline)
		if _, ok := in.State.Timeline(tenant, id); !ok && !named(r.Timeline) {
			t.Errorf("seed %d: timeline %+v is lost", seed, r)
		}
	}
	owed := len(fsm.RecordsOf(in.State).Ops) + in.Findings.Count(neonstate.StaleOperation)
	if owed < len(c.Ops) {
		t.Errorf("seed %d: %d operations of %d are lost", seed, len(c.Ops)-owed, len(c.Ops))
	}
	imports := len(fsm.RecordsOf(in.State).Imports) + in.Findings.Count(neonstate.BadImport)
	if imports != len(c.Imports) {
		t.Errorf("seed %d: %d imports of %d", seed, imports, len(c.Imports))
	}
	if len(fsm.RecordsOf(in.State).Nodes) != len(c.Nodes) ||
		len(fsm.RecordsOf(in.State).Safekeepers) != len(c.Safekeepers) {
		t.Errorf("seed %d: nodes are lost", seed)
	}
}
