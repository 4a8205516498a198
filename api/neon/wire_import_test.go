package neon

import (
	"encoding/json"
	"testing"
)

// TestImportWireGolden is TestWireGolden for imports of timelines.
func TestImportWireGolden(t *testing.T) {
	shard, tl := mustShard(t, tenantText+"-0102"), mustTimeline(t, timelineText)
	running := ShardImport{Progress: ImportProgress{
		Jobs: 9, Completed: 4, PlanHash: 18446744073709551615, JobSize: 67108864,
	}}
	for _, tc := range []struct {
		name string
		v    any
	}{
		{"import_begun", ShardImport{}},
		{"import_running", running},
		{"import_done", ShardImport{State: ShardImportDone}},
		{"import_failed", ShardImport{State: ShardImportFailed, Error: `no "bucket"`}},
		{"import_status_request", ImportStatusRequest{Shard: shard, Timeline: tl, Generation: 3}},
		{
			"import_status_report",
			ImportStatusReport{Shard: shard, Timeline: tl, Status: running, Generation: 3},
		},
		{"import_complete", ImportComplete{Tenant: shard.Tenant, Timeline: tl}},
		{
			"import_complete_error",
			ImportComplete{Tenant: shard.Tenant, Timeline: tl, Error: new(`{"0102":"no"}`)},
		},
	} {
		t.Run(tc.name, func(t *testing.T) { golden(t, tc.name, tc.v) })
	}
	for _, text := range []string{
		`null`, `{}`, `"Gone"`, `7`, `{"Done":null}`, `{"InProgress":{"V2":{}}}`,
		`{"InProgress":{"V1":{"jobs":1}}}`,
		`{"InProgress":null,"Error":"both"}`, `{"Error":7}`,
		`{"InProgress":{"V1":{"jobs":-1,"completed":0,"import_plan_hash":0,"job_soft_size_limit":0}}}`,
	} {
		var s ShardImport
		if err := json.Unmarshal([]byte(text), &s); err == nil {
			t.Errorf("%s was read as %+v", text, s)
		}
	}
}
