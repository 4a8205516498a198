package api

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

func TestAttachmentsByHandAreNumberedAndForgotten(t *testing.T) {
	w := newWorld(t, setup{replicas: 2})
	w.addNodes(2)
	r := w.replicas[1] // carries everything to the leader
	hook := func(rest string) string { return `{"tenant_shard_id":"` + tenantA + `",` + rest + `}` }
	inspect := func(want string) step {
		return step{
			"POST", "/debug/v1/inspect", `{"tenant_shard_id":"` + tenantA + `"}`, 200,
			`{"attachment":` + want + `}`,
		}
	}
	validate := func(gen, valid string) step {
		return step{
			"POST", "/upcall/v1/validate",
			`{"tenants":[{"id":"` + tenantA + `","gen":` + gen + `}]}`, 200,
			`{"tenants":[{"id":"` + tenantA + `","valid":` + valid + `}]}`,
		}
	}
	play(t, r, []step{
		{
			"POST", "/debug/v1/attach-hook", `{}`, 400,
			`{"msg":"\"Failed to parse json request: missing field ` + "`tenant_shard_id`" + `\""}`,
		},
		{
			"POST", "/debug/v1/attach-hook",
			hook(`"node_id":1,"generation_override":7,"config":{"gc_period":"300s"}`), 200,
			`{"gen":8}`,
		},
		inspect(`[8,1]`), validate("8", "true"), validate("7", "false"),
		{
			"GET", "/v1/tenant/" + tenantA + "/config", "", 200,
			`{"tenant_specific_overrides":{"gc_period":"5m"},"effective_config":{"gc_period":"5m"}}`,
		},
		{
			"POST", "/debug/v1/attach-hook", hook(`"node_id":2,"generation_override":100`), 200,
			`{"gen":9}`,
		},
		inspect(`[9,2]`), validate("9", "true"), validate("8", "false"),
		{
			"POST", "/debug/v1/attach-hook", hook(`"node_id":9`), 500,
			`{"msg":"Node 9 not registered"}`,
		},
		{
			"POST", "/debug/v1/attach-hook",
			`{"tenant_shard_id":"` + tenantA + `-0102","node_id":1}`, 500,
			`{"msg":"Tenant shard ` + tenantA + `-0102 not found"}`,
		},
		{"POST", "/debug/v1/attach-hook", hook(`"node_id":null`), 200, `{"gen":null}`},
		inspect(`null`),
		{
			"GET", "/control/v1/tenant/" + tenantA, "", 404,
			`{"msg":"NotFound: Tenant ` + tenantA + ` not found"}`,
		},
		{"POST", "/debug/v1/attach-hook", hook(`"node_id":1`), 200, `{"gen":10}`},
		{"POST", "/upcall/v1/re-attach", `{"node_id":1}`, 200, `{"tenants":[{"id":"` + tenantA +
			`","gen":11,"mode":"AttachedSingle","stripe_size":2048}]}`},
		{"POST", "/debug/v1/tenant/" + tenantA + "/drop", "", 200, `null`},
		{"POST", "/debug/v1/tenant/" + tenantA + "/drop", "", 200, `null`},
		inspect(`null`),
		{"POST", "/debug/v1/consistency_check", "", 200, `null`},
	})
	if calls := w.calls.calls(); len(calls) != 0 {
		t.Errorf("pageservers were called: %q", calls)
	}
}

// Two attachments are two, even under one request id.
func TestAttachHookUnderOneRequestIDNeverRepeatsAGeneration(t *testing.T) {
	w := newWorld(t, setup{})
	w.addNodes(1)
	for _, gen := range []string{"1", "2"} {
		w.replicas[0].do("POST", "/debug/v1/attach-hook",
			`{"tenant_shard_id":"`+tenantA+`","node_id":1}`, "X-Request-Id", "same").
			want(t, 200, `{"gen":`+gen+`}`)
	}
}

func TestPreferredZonesAreSetAndCleared(t *testing.T) {
	w := newWorld(t, setup{replicas: 2})
	w.addNodes(1)
	r := w.replicas[1]
	play(t, r, []step{
		{"POST", "/v1/tenant",
			`{"new_tenant_id":"` + tenantA + `","shard_parameters":{"count":2,"stripe_size":8}}`,
			201,
			`{"shards":[{"shard_id":"` + tenantA +
				`-0002","node_id":1,"generation":0},{"shard_id":"` +
				tenantA + `-0102","node_id":1,"generation":0}]}`},
		{"PUT", "/control/v1/preferred_azs",
			`{"` + tenantA + `-0102":"az-b","` + tenantA + `-0002":null,"` + tenantB + `":"az-b"}`,
			200,
			`{"updated":["` + tenantA + `-0002","` + tenantA + `-0102"]}`},
		{"PUT", "/control/v1/preferred_azs", `{}`, 200, `{"updated":[]}`},
	})
	ids := neon.ShardIDs(tenantID(t, tenantA), 2)
	for i, want := range []neon.AZ{{}, neon.MakeAZ("az-b")} {
		if sh, _ := w.replicas[0].State().Shard(ids[i]); sh.PreferredAZ != want {
			t.Errorf("%s prefers %q", sh.ID, sh.PreferredAZ)
		}
	}
}

func TestHealthOfRemoteStorageIsKept(t *testing.T) {
	w := newWorld(t, setup{replicas: 2})
	w.addNodes(1)
	r := w.replicas[1]
	r.do("POST", "/v1/tenant", `{"new_tenant_id":"`+tenantA+`"}`)
	play(t, r, []step{
		{"GET", "/control/v1/metadata_health/unhealthy", "", 200, `{"unhealthy_tenant_shards":[]}`},
		{
			"POST", "/control/v1/metadata_health/outdated", `{"not_scrubbed_for":"1h"}`, 200,
			`{"health_records":[]}`,
		},
		{
			"POST", "/control/v1/metadata_health/update",
			`{"healthy_tenant_shards":[],"unhealthy_tenant_shards":["` + tenantB + `","` + tenantA +
				`"]}`,
			200, `{}`,
		},
		{
			"GET", "/control/v1/metadata_health/unhealthy", "", 200,
			`{"unhealthy_tenant_shards":["` + tenantA + `"]}`,
		},
	})
	w.must(fsm.SetMetadataHealth{
		Healthy: []neon.ShardID{neon.Unsharded(tenantID(t, tenantA))}, At: 1700000000123,
	})
	play(t, r, []step{
		{"GET", "/control/v1/metadata_health/unhealthy", "", 200, `{"unhealthy_tenant_shards":[]}`},
		{"POST", "/control/v1/metadata_health/outdated", `{"not_scrubbed_for":"1h"}`, 200,
			`{"health_records":[{"tenant_shard_id":"` + tenantA +
				`","healthy":true,"last_scrubbed_at":"2023-11-14T22:13:20.123Z"}]}`},
	})
	r.do("POST", "/control/v1/metadata_health/update",
		`{"healthy_tenant_shards":["`+tenantA+`"],"unhealthy_tenant_shards":[]}`).want(t, 200, `{}`)
	began := time.Now()
	for time.Since(began) < 2*time.Millisecond {
	}
	var got neon.OutdatedResponse
	if err := json.Unmarshal([]byte(r.do("POST", "/control/v1/metadata_health/outdated",
		`{"not_scrubbed_for":"0s"}`).body), &got); err != nil || len(got.Records) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestReconcilesAreCancelled(t *testing.T) {
	w := newWorld(t, setup{replicas: 2})
	w.addNodes(1)
	r := w.replicas[1]
	r.do("POST", "/v1/tenant", `{"new_tenant_id":"`+tenantA+`"}`)
	path := "/control/v1/tenant/" + tenantA + "/cancel_reconcile"
	play(t, r, []step{
		{"PUT", path, "", 200, `null`},
		{
			"PUT", "/control/v1/tenant/" + tenantB + "/cancel_reconcile", "", 404,
			`{"msg":"NotFound: Tenant shard not found"}`,
		},
	})
	w.replicas[0].await = func(context.Context) error {
		return neon.Errorf(neon.Internal, "Reconcile error on shard %s: Cancelled", tenantA)
	}
	r.do("PUT", path, "").want(t, 500, `{"msg":"Reconcile error on shard `+tenantA+`: Cancelled"}`)
}
