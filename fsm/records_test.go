package fsm

import (
	"bytes"
	"reflect"
	"testing"

	"quorate/api/neon"
)

// TestRecordsMakeTheState takes a state apart that was made of records, and puts it together again.
func TestRecordsMakeTheState(t *testing.T) {
	r := someRecords()
	s, err := FromRecords(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(s); err != nil {
		t.Error(err)
	}
	again, err := FromRecords(RecordsOf(s))
	if err != nil || again.Hash() != s.Hash() || again.Digest() != s.Digest() {
		t.Errorf("another state: %v", err)
	}
	if !reflect.DeepEqual(RecordsOf(again), RecordsOf(s)) {
		t.Errorf("%+v is not %+v", RecordsOf(again), RecordsOf(s))
	}
	var b bytes.Buffer
	if _, err := (SnapshotWriter{State: s}).WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	if read, err := ReadSnapshot(&b); err != nil || read.Hash() != s.Hash() {
		t.Errorf("it is read as another: %v", err)
	}
	if s.generationFloor() <= 70_000 {
		t.Errorf("new tenants count from %d", s.generationFloor())
	}
}

func TestRecordsThatRepeatOrContradictAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(*Records){
		"node":       func(r *Records) { r.Nodes = append(r.Nodes, r.Nodes[0]) },
		"tenant":     func(r *Records) { r.Tenants = append(r.Tenants, r.Tenants[0]) },
		"shard":      func(r *Records) { r.Shards = append(r.Shards, r.Shards[0]) },
		"lost shard": func(r *Records) { r.Shards = nil },
		"safekeeper": func(r *Records) { r.Safekeepers = append(r.Safekeepers, r.Safekeepers[0]) },
		"timeline":   func(r *Records) { r.Timelines = append(r.Timelines, r.Timelines[0]) },
		"operation":  func(r *Records) { r.Ops = append(r.Ops, r.Ops[0]) },
		"import":     func(r *Records) { r.Imports = append(r.Imports, r.Imports[0]) },
		"stranger":   func(r *Records) { r.Shards[0].Attached = 9 },
	} {
		r := someRecords()
		spoil(&r)
		if _, err := FromRecords(r); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func someRecords() Records {
	tenant := neon.TenantID{1}
	return Records{
		ClusterID: "c",
		Nodes: []Node{
			{ID: 2, Scheduling: neon.SchedulingActive, Availability: neon.NodeActive},
			{ID: 1, Scheduling: neon.SchedulingPause, Availability: neon.NodeActive},
		},
		Tenants: []Tenant{{
			ID: tenant, Stripe: 1, Policy: neon.Attached(1), Scheduling: neon.ShardActive,
		}},
		Shards: []Shard{{
			ID: neon.Unsharded(tenant), Generation: 70_000, HasGeneration: true, GenNode: 1,
			Attached: 1, Secondary: []neon.NodeID{2},
		}},
		Safekeepers: []Safekeeper{{ID: 1, Scheduling: neon.SafekeeperActive}},
		Timelines: []Timeline{{
			Tenant: tenant, ID: neon.TimelineID{1}, Generation: 1, Set: []neon.NodeID{1},
		}},
		Ops: []SafekeeperOp{{
			Safekeeper: 1, Tenant: tenant, Timeline: neon.TimelineID{1}, Kind: OpPull,
			Generation: 1,
		}},
		Imports: []Import{{
			Tenant: tenant, Timeline: neon.TimelineID{2}, Shards: []neon.ShardImport{{}},
		}},
	}
}
