package neonstate_test

import (
	"testing"
	"time"

	"quorate/fsm"
	"quorate/internal/neondb"
	"quorate/internal/neonstate"
)

// FuzzColumns puts any text into the columns that hold JSON or words. What is taken makes a
// state that is whole, and the same when it is moved out and in again.
func FuzzColumns(f *testing.F) {
	f.Add(`{"Attached":1}`, `{"gc_horizon":1}`, `"Active"`, `{"0000":"Done"}`, "0/1", "pull",
		"active")
	f.Add(`{"Double": 1}`, `{"x":null}`, `"Stop"`, `{"0000":{"InProgress":{"V1":{"jobs":1,`+
		`"completed":1,"import_plan_hash":1,"job_soft_size_limit":1}}}}`, "F/F", "delete",
		"pause_for_restart")
	f.Add(`"Single"`, `null`, ``, `{"0000":null}`, "", "", "")
	f.Fuzz(func(t *testing.T, placement, config, scheduling, statuses, lsn, kind, policy string) {
		c := plain()
		c.Shards[0].Placement, c.Shards[0].Config = placement, config
		c.Shards[0].Scheduling = scheduling
		c.Imports = []neondb.ImportRow{{Tenant: tenantA, Timeline: timelineA, Statuses: statuses}}
		c.Timelines[0].StartLsn, c.Ops = lsn, ops(kind, 1, timelineA)
		c.Nodes[2].Scheduling, c.Safekeepers[2].Scheduling = policy, policy
		in, err := neonstate.FromRows(c, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := fsm.Check(in.State); err != nil {
			t.Fatal(err)
		}
		rows, _, err := neonstate.ToRows(in.State, time.Unix(1, 0))
		if err != nil {
			t.Fatal(err)
		}
		again, err := neonstate.FromRows(rows, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		if again.Counts != in.Counts {
			t.Fatalf("%+v, then %+v: %v", in.Counts, again.Counts, again.Findings)
		}
	})
}
