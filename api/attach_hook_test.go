package api

import (
	"testing"
)

func TestUnmanagedAttachmentsAreNumberedAndForgotten(t *testing.T) {
	w := newWorld(t, setup{replicas: 2})
	w.addNodes(2)
	r := w.replicas[1] // forwards everything to the leader
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
