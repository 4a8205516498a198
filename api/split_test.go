package api

import (
	"encoding/json"
	"testing"

	"quorate/fsm"
	"quorate/internal/neon"
)

// What a split that needs no pageserver, or is refused before one is asked, answers.
func TestSplitsAreAnsweredAsClientsExpect(t *testing.T) {
	w := newWorld(t, setup{})
	w.addNodes(2)
	path := "/control/v1/tenant/" + tenantA + "/shard_split"
	play(t, w.replicas[0], []step{
		{"PUT", path, `{"new_shard_count":2}`, 404, `{"msg":"NotFound: Tenant ` + tenantA + ` not found"}`},
		{"PUT", path, `{}`, 400, "{\"msg\":\"\\\"Failed to parse json request: missing field `new_shard_count`\\\"\"}"},
		{"POST", "/v1/tenant", `{"new_tenant_id":"` + tenantA + `","shard_parameters":{"count":2,"stripe_size":2048},"placement_policy":"Detached"}`, 201, `{"shards":[]}`},
		{"PUT", path, `{"new_shard_count":4}`, 400, `{"msg":"\"Cannot split a tenant that is not attached\""}`},
		{"PUT", "/control/v1/tenant/" + tenantA + "/policy", `{"placement":{"Attached":0}}`, 200, `null`},
		{"PUT", path, `{"new_shard_count":2}`, 200, `{"new_shards":["` + tenantA + `-0002","` + tenantA + `-0102"]}`},
		{"PUT", path, `{"new_shard_count":1}`, 400, `{"msg":"\"Requested count 1 but already have shards at count 2\""}`},
		{"PUT", path, `{"new_shard_count":4,"new_stripe_size":16}`, 400, `{"msg":"\"Attempted to change stripe size (ShardStripeSize(2048)-\u003e16) on a tenant with multiple shards\""}`},
	})
	s := w.replicas[0].State()
	tenant, _ := s.Tenant(tenantID(t, tenantA))
	var items []fsm.Issue
	for sh := range s.TenantShards(tenant.ID) {
		items = append(items, fsm.Issue{Shard: sh.ID, Node: sh.Attached, Generation: sh.Generation})
	}
	w.must(fsm.IssueGenerations{Items: items})
	begin := fsm.BeginSplit{Tenant: tenant.ID, Sequence: tenant.Sequence, Count: 4, Stripe: 2048}
	for _, it := range items {
		begin.Parents = append(begin.Parents, fsm.SplitParent{Shard: it.Shard, Node: it.Node, Generation: it.Generation + 1})
	}
	w.must(begin)
	play(t, w.replicas[0], []step{
		{"PUT", path, `{"new_shard_count":8}`, 409, `{"msg":"Conflict: Cannot split, currently mid-split"}`},
	})
	var d neon.TenantDescribe
	decodeInto(t, w.replicas[0].do("GET", "/control/v1/tenant/"+tenantA, ""), &d)
	var dump []neon.ShardDump
	decodeInto(t, w.replicas[0].do("GET", "/debug/v1/tenant", ""), &dump)
	if len(d.Shards) != 2 || !d.Shards[0].Splitting || len(dump) != 2 || dump[1].Splitting != neon.SplitSplitting {
		t.Errorf("a tenant that is being split is described as %+v and dumped as %+v", d, dump)
	}
}

func decodeInto(t *testing.T, g got, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(g.body), into); err != nil {
		t.Fatalf("%d %s: %v", g.status, g.body, err)
	}
}
