package api

import (
	"encoding/json"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

// One operation runs at a time as clients see it, and each answers in the words
// that deploy scripts wait for.
func TestOperationsOnNodesAreBegunAndCancelled(t *testing.T) {
	w := newWorld(t, setup{})
	r := w.replicas[0]
	w.addNodes(1)
	ongoing := func(what string) string {
		return `{"msg":"Precondition failed: Background operation already ongoing for node: ` +
			what + `"}`
	}
	play(t, r, []step{
		{"PUT", "/control/v1/node/9/drain", "", 404, `{"msg":"NotFound: Node 9 not registered"}`},
		{
			"PUT", "/control/v1/node/1/fill", "", 412,
			`{"msg":"Precondition failed: No other nodes to fill from"}`,
		},
		{"GET", "/debug/v1/operation", "", 200, `[]`},
	})
	w.addNodes(3)
	w.must(fsm.SetNodeAvailability{Verdicts: []fsm.Verdict{{Node: 3, To: neon.NodeOffline}}})
	play(t, r, []step{
		{"PUT", "/control/v1/node/3/drain", "", 503, `{"msg":"Node 3 is currently unavailable"}`},
		{"PUT", "/control/v1/node/3/fill", "", 503, `{"msg":"Node 3 is currently unavailable"}`},
		{
			"DELETE", "/control/v1/node/3/drain", "", 503,
			`{"msg":"Node 3 is currently unavailable"}`,
		},
		{"PUT", "/control/v1/node/1/drain", "", 202, `null`},
		{
			"GET", "/debug/v1/operation", "", 200,
			`[{"node_id":1,"operation":"drain","force":false,"attached_at_start":0,"attached":0,"shards":0}]`,
		},
	})
	r.operations = map[neon.NodeID]decide.OperationStatus{1: {
		Waits: decide.Hindered{Count: 1, Named: []decide.HinderedShard{{Why: "it is split"}}},
		Stays: decide.Hindered{Count: 20, Named: []decide.HinderedShard{{Why: "compute is deaf"}}},
	}}
	play(t, r, []step{
		{
			"GET", "/debug/v1/operation", "", 200,
			`[{"node_id":1,"operation":"drain","force":false,"attached_at_start":0,"attached":0,"shards":0,` +
				`"waits_for":{"count":1,"shards":[{"tenant_shard_id":"00000000000000000000000000000000","why":"it is split"}]},` +
				`"stays":{"count":20,"shards":[{"tenant_shard_id":"00000000000000000000000000000000","why":"compute is deaf"}]}}]`,
		},
		{"PUT", "/control/v1/node/1/drain", "", 412, ongoing("drain 1")},
		{"PUT", "/control/v1/node/2/fill", "", 412, ongoing("drain 1")},
		{"PUT", "/control/v1/node/2/delete", "", 412, ongoing("drain 1")},
		{
			"PUT", "/control/v1/node/2/config", `{"node_id":2,"scheduling":"Pause"}`, 412,
			`{"msg":"Precondition failed: Ongoing background operation forbids configuring: drain 1"}`,
		},
		{"PUT", "/control/v1/node/1/drain?concurrent=true", "", 412, ongoing("drain 1")},
		{"PUT", "/control/v1/node/2/delete?concurrent=true", "", 200, `null`},
		{
			"PUT", "/control/v1/node/3/config?concurrent=true",
			`{"node_id":3,"scheduling":"Pause"}`, 200, `null`,
		},
		{
			"PUT", "/control/v1/node/2/config?concurrent=true",
			`{"node_id":2,"scheduling":"Pause"}`, 412,
			`{"msg":"Precondition failed: Ongoing background operation forbids configuring: delete 2"}`,
		},
		{"DELETE", "/control/v1/node/2/delete", "", 202, `null`},
		{
			"PUT", "/control/v1/node/2/drain?concurrent=1", "", 400,
			`{"msg":"\"cannot parse query param concurrent: provided string was not ` +
				"`true` or `false`" + `\""}`,
		},
		{
			"DELETE", "/control/v1/node/1/fill", "", 412,
			`{"msg":"Precondition failed: Node 1 has no fill in progress"}`,
		},
		{
			"DELETE", "/control/v1/node/2/drain", "", 412,
			`{"msg":"Precondition failed: Node 2 has no drain in progress"}`,
		},
		{"DELETE", "/control/v1/node/1/drain", "", 202, `null`},
		{
			"DELETE", "/control/v1/node/1/drain", "", 412,
			`{"msg":"Precondition failed: Node 1 has no drain in progress"}`,
		},
		{
			"PUT", "/control/v1/node/1/config", `{"node_id":1,"scheduling":"PauseForRestart"}`, 200,
			`null`,
		},
		{
			"PUT", "/control/v1/node/1/drain", "", 412,
			`{"msg":"Precondition failed: Node 1 cannot be drained due to PauseForRestart policy"}`,
		},
		{
			"PUT", "/control/v1/node/1/fill", "", 412,
			`{"msg":"Precondition failed: Node 1 cannot be filled due to PauseForRestart policy"}`,
		},
		{
			"PUT", "/control/v1/node/1/delete", "", 412,
			`{"msg":"Precondition failed: Node 1 cannot be deleted due to PauseForRestart policy"}`,
		},
		{"PUT", "/control/v1/node/1/config", `{"node_id":1,"scheduling":"Draining"}`, 200, `null`},
		{
			"PUT", "/control/v1/node/1/drain", "", 409,
			`{"msg":"Conflict: Node 1 has drain in progress"}`,
		},
		{"PUT", "/control/v1/node/1/config", `{"node_id":1,"scheduling":"Pause"}`, 200, `null`},
		{
			"PUT", "/control/v1/node/1/delete?force=maybe", "", 400,
			`{"msg":"\"cannot parse query param force: provided string was not ` +
				"`true` or `false`" + `\""}`,
		},
		{"PUT", "/control/v1/node/1/delete", "", 200, `null`},
		{"DELETE", "/control/v1/node/1/delete", "", 202, `null`},
		{
			"DELETE", "/control/v1/node/1/delete", "", 412,
			`{"msg":"Precondition failed: Node 1 has no delete in progress"}`,
		},
		{"PUT", "/control/v1/node/2/config", `{"node_id":2,"scheduling":"Pause"}`, 200, `null`},
		{
			"PUT", "/control/v1/node/1/delete", "", 412,
			`{"msg":"Precondition failed: No other schedulable nodes to move shards"}`,
		},
	})
	if n, _ := r.State().Node(1); n.Scheduling != neon.SchedulingPause {
		t.Errorf("a cancelled deletion leaves %s", n.Scheduling)
	}
}

// How operations have ended is told of nodes that are gone too.
func TestOperationsThatHaveEndedAreListed(t *testing.T) {
	w := newWorld(t, setup{})
	r := w.replicas[0]
	w.addNodes(2)
	w.log.Upgrade(t)
	play(t, r, []step{
		{"GET", "/debug/v1/operation?ended=true", "", 200, `[]`},
		{
			"GET", "/debug/v1/operation?ended=perhaps", "", 400,
			`{"msg":"\"cannot parse query param ended: provided string was not ` +
				"`true` or `false`" + `\""}`,
		},
		{"PUT", "/control/v1/node/1/drain", "", 202, `null`},
	})
	n, _ := r.State().Node(1)
	if age := time.Since(time.UnixMilli(n.Operation.At)); age < 0 || age > time.Minute {
		t.Errorf("it was begun %s ago", age)
	}
	w.must(fsm.EndNodeOperation{
		Node: 1, Begun: n.Operation.Begun, Ending: fsm.Cancelled, At: 1700000000000,
		Left: fsm.Left{Count: 20, Named: []fsm.LeftShard{{Why: "compute is deaf"}}},
	})
	began := n.Operation.Begun
	w.must(fsm.BeginNodeOperation{
		Node: 2, Kind: fsm.OperationDelete, Prior: neon.SchedulingActive, At: 1699999999000,
	})
	n, _ = r.State().Node(2)
	w.must(fsm.DeleteNode{Node: 2, Begun: n.Operation.Begun, At: 1700000001000})
	g := r.do("GET", "/debug/v1/operation?ended=true", "")
	var all []neon.EndedNodeOperation
	if err := json.Unmarshal([]byte(g.body), &all); err != nil || len(all) != 2 || began == 0 {
		t.Fatalf("%s, %v", g.body, err)
	}
	all[1].BegunAt = nil
	got, _ := json.Marshal(all)
	want := `[{"node_id":2,"operation":"delete","force":false,"result":"completed",` +
		`"begun_at":"2023-11-14T22:13:19Z","ended_at":"2023-11-14T22:13:21Z",` +
		`"attached_at_start":0,"attached":0,"shards":0},` +
		`{"node_id":1,"operation":"drain","force":false,"result":"cancelled","begun_at":null,` +
		`"ended_at":"2023-11-14T22:13:20Z","attached_at_start":0,"attached":0,"shards":0,` +
		`"left":{"count":20,"shards":[{"tenant_shard_id":"00000000000000000000000000000000",` +
		`"why":"compute is deaf"}]}}]`
	if string(got) != want {
		t.Errorf("got\n%s, not\n%s", got, want)
	}
}

// A request that is carried again is answered as it was, and not done again, however late.
// One request id stands for as many requests as clients want.
func TestRetriedOrdersAreRecognised(t *testing.T) {
	w := newWorld(t, setup{})
	r := w.replicas[0]
	w.log.Upgrade(t)
	w.addNodes(2)
	const drain = "/control/v1/node/1/drain"
	begun := func() uint64 { n, _ := r.State().Node(1); return n.Operation.Begun }
	for range 2 {
		r.do("PUT", drain, "", "Idempotency-Key", "go").want(t, 202, `null`)
	}
	for range 2 {
		r.do("DELETE", drain, "", "Idempotency-Key", "stop").want(t, 202, `null`)
	}
	r.do("PUT", drain, "", "Idempotency-Key", "go").want(t, 202, `null`)
	if begun() != 0 {
		t.Error("the drain has begun again")
	}
	r.do("PUT", drain, "", "X-Request-Id", "trace").want(t, 202, `null`)
	again := begun()
	r.do("DELETE", drain, "", "Idempotency-Key", "stop").want(t, 202, `null`)
	if again == 0 || begun() != again {
		t.Error("another drain was cancelled")
	}
	r.do("PUT", drain, "", "X-Request-Id", "trace").want(t, 412,
		`{"msg":"Precondition failed: Background operation already ongoing for node: drain 1"}`)
	r.do("DELETE", drain, "", "X-Request-Id", "trace").want(t, 202, `null`)
	r.do("PUT", drain, "", "X-Request-Id", "trace").want(t, 202, `null`)
}

func TestDeletedNodesAreTombstones(t *testing.T) {
	w := newWorld(t, setup{})
	r := w.replicas[0]
	w.addNodes(2)
	r.do("POST", "/v1/tenant", `{"new_tenant_id":"`+tenantA+`","placement_policy":{"Attached":1}}`)
	const node1 = `{"id":1,"availability":"Offline","scheduling":"Active","availability_zone_id":"az-a","listen_http_addr":"ps","listen_http_port":9001,"listen_https_port":null,"listen_pg_addr":"ps","listen_pg_port":6401,"listen_grpc_addr":null,"listen_grpc_port":null}`
	reg := `{"node_id":1,"listen_pg_addr":"ps","listen_pg_port":6401,"listen_http_addr":"ps","listen_http_port":9001,"availability_zone_id":"az-a"}`
	play(t, r, []step{
		{
			"DELETE", "/control/v1/node/1", "", 409,
			`{"msg":"Conflict: Scheduling error: No pageserver found matching constraint"}`,
		},
		{"DELETE", "/control/v1/node/9", "", 200, `null`},
		{
			"DELETE", "/debug/v1/tombstone/1", "", 409,
			`{"msg":"Conflict: Node 1 is in use, consider using tombstone API first"}`,
		},
		{"DELETE", "/debug/v1/tombstone/9", "", 200, `null`},
		{"POST", "/debug/v1/node/9/drop", "", 500, `{"msg":"Node 9 not found for update"}`},
		{"POST", "/debug/v1/node/1/drop", "", 200, `null`},
		{"GET", "/debug/v1/tombstone", "", 200, `[` + node1 + `]`},
		{"GET", "/control/v1/node/1", "", 404, `{"msg":"NotFound: Node 1 not registered"}`},
		{"POST", "/control/v1/node", reg, 409, `{"msg":"Conflict: Node 1 is already exists"}`},
		{
			"POST", "/upcall/v1/re-attach", `{"node_id":1}`, 500,
			`{"msg":"Node 1 is marked as deleted, re-attach is not allowed"}`,
		},
		{
			"POST", "/upcall/v1/re-attach", `{"node_id":1,"register":` + reg + `}`, 409,
			`{"msg":"Conflict: Node 1 is already exists"}`,
		},
		{"PUT", "/control/v1/node/1/drain", "", 404, `{"msg":"NotFound: Node 1 not registered"}`},
		{"DELETE", "/debug/v1/tombstone/1", "", 200, `null`},
		{"GET", "/debug/v1/tombstone", "", 200, `[]`},
		{"POST", "/control/v1/node", reg, 200, `null`},
	})
}
