package api

import (
	"encoding/json"
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
)

// What a split that needs no pageserver, or is refused before one is asked, answers.
func TestSplitsAreAnsweredAsClientsExpect(t *testing.T) {
	w := newWorld(t, setup{})
	w.addNodes(2)
	path := "/control/v1/tenant/" + tenantA + "/shard_split"
	play(t, w.replicas[0], []step{
		{
			"PUT", path, `{"new_shard_count":2}`, 404,
			`{"msg":"NotFound: Tenant ` + tenantA + ` not found"}`,
		},
		{
			"PUT", path, `{}`, 400,
			"{\"msg\":\"\\\"Failed to parse json request: missing field `new_shard_count`\\\"\"}",
		},
		{"POST", "/v1/tenant", `{"new_tenant_id":"` + tenantA +
			`","shard_parameters":{"count":2,"stripe_size":2048},"placement_policy":"Detached"}`,
			201, `{"shards":[]}`},
		{
			"PUT", path, `{"new_shard_count":4}`, 400,
			`{"msg":"\"Cannot split a tenant that is not attached\""}`,
		},
		{
			"PUT", "/control/v1/tenant/" + tenantA + "/policy", `{"placement":{"Attached":0}}`, 200,
			`null`,
		},
		{
			"PUT", path, `{"new_shard_count":2}`, 200,
			`{"new_shards":["` + tenantA + `-0002","` + tenantA + `-0102"]}`,
		},
		{
			"PUT", path, `{"new_shard_count":1}`, 400,
			`{"msg":"\"Requested count 1 but already have shards at count 2\""}`,
		},
		{
			"PUT", path, `{"new_shard_count":4,"new_stripe_size":16}`, 400,
			`{"msg":"\"Attempted to change stripe size (ShardStripeSize(2048)-\u003e16) on a tenant with multiple shards\""}`,
		},
	})
	// Who creates it anew finds it only if he means the tenant that there is.
	const conflict = `{"msg":"Conflict: Tenant ` + tenantA +
		` already exists with a different shard count"}`
	w.replicas[0].do("POST", "/v1/tenant", `{"new_tenant_id":"`+tenantA+`"}`).want(t, 409, conflict)
	w.replicas[0].do("POST", "/v1/tenant",
		`{"new_tenant_id":"`+tenantA+`","shard_parameters":{"count":4,"stripe_size":2048}}`).want(t,
		409, conflict)
	w.log.Upgrade(t)
	first := func() got {
		return w.replicas[0].do("POST", "/v1/tenant", `{"new_tenant_id":"`+tenantB+`"}`,
			"Idempotency-Key", "first")
	}
	first()
	splitIn2(t, w, tenantID(t, tenantB))
	if g := first(); g.status != 201 {
		t.Errorf("the repetition of the request that created it is refused: %d %s", g.status,
			g.body)
	}
	again := w.replicas[0].do("POST", "/v1/tenant",
		`{"new_tenant_id":"`+tenantA+`","shard_parameters":{"count":2,"stripe_size":2048}}`)
	if again.status != 201 {
		t.Errorf("created again: %d %s", again.status, again.body)
	}
	s := w.replicas[0].State()
	tenant, _ := s.Tenant(tenantID(t, tenantA))
	var items []fsm.Issue
	for sh := range s.TenantShards(tenant.ID) {
		items = append(items, fsm.Issue{Shard: sh.ID, Node: sh.Attached, Generation: sh.Generation})
	}
	w.must(fsm.IssueGenerations{Items: items})
	begin := fsm.BeginSplit{Tenant: tenant.ID, Sequence: tenant.Sequence, Count: 4, Stripe: 2048}
	for _, it := range items {
		begin.Parents = append(begin.Parents,
			fsm.SplitParent{Shard: it.Shard, Node: it.Node, Generation: it.Generation + 1})
	}
	w.must(begin)
	play(t, w.replicas[0], []step{
		{
			"PUT", path, `{"new_shard_count":8}`, 409,
			`{"msg":"Conflict: Cannot split, currently mid-split"}`,
		},
	})
	var d neon.TenantDescribe
	decodeInto(t, w.replicas[0].do("GET", "/control/v1/tenant/"+tenantA, ""), &d)
	var dump []neon.ShardDump
	decodeInto(t, w.replicas[0].do("GET", "/debug/v1/tenant", ""), &dump)
	if len(d.Shards) != 2 || !d.Shards[0].Splitting || len(dump) != 4 ||
		dump[1].Splitting != neon.SplitSplitting {
		t.Errorf("a tenant that is being split is described as %+v and dumped as %+v", d, dump)
	}
}

func decodeInto(t *testing.T, g got, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(g.body), into); err != nil {
		t.Fatalf("%d %s: %v", g.status, g.body, err)
	}
}

// splitIn2 makes an unsharded tenant one of two shards.
func splitIn2(t *testing.T, w *world, id neon.TenantID) {
	t.Helper()
	sh, ok := w.replicas[0].State().Shard(neon.Unsharded(id))
	if !ok {
		t.Fatalf("there is no %s", id)
	}
	w.must(fsm.IssueGenerations{
		Items: []fsm.Issue{{Shard: sh.ID, Node: sh.Attached, Generation: sh.Generation}},
	})
	tenant, _ := w.replicas[0].State().Tenant(id)
	w.must(fsm.BeginSplit{
		Tenant: id, Sequence: tenant.Sequence, Count: 2, Stripe: 2048,
		Parents: []fsm.SplitParent{
			{Shard: sh.ID, Node: sh.Attached, Generation: sh.Generation + 1},
		},
	})
	sp, _ := w.replicas[0].State().Split(id)
	w.must(fsm.CommitSplit{Tenant: id, Began: sp.Began})
}
