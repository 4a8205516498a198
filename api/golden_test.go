package api

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
)

const (
	tenantA   = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1"
	tenantB   = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb2"
	timelineX = "cccccccccccccccccccccccccccccccc"
)

func tenantID(t testing.TB, s string) neon.TenantID {
	id, err := neon.ParseTenantID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// step is one request of a story and what must come back.
type step struct {
	method, path, body string
	status             int
	want               string
}

func play(t *testing.T, r *replica, steps []step) {
	t.Helper()
	for _, s := range steps {
		g := r.do(s.method, s.path, s.body)
		if g.status != s.status || g.body != s.want {
			t.Errorf("%s %s %s\n got %d %s\nwant %d %s", s.method, s.path, s.body, g.status, g.body,
				s.status, s.want)
		}
	}
}

func TestNodesAreRegisteredDescribedAndConfigured(t *testing.T) {
	w := newWorld(t, setup{})
	const reg = `{"node_id":1,"listen_pg_addr":"ps","listen_pg_port":6401,"listen_http_addr":"ps","listen_http_port":9001,"availability_zone_id":"az-a"`
	const node1 = `{"id":1,"availability":"Offline","scheduling":"Active","availability_zone_id":"az-a","listen_http_addr":"ps","listen_http_port":9001,"listen_https_port":null,"listen_pg_addr":"ps","listen_pg_port":6401,"listen_grpc_addr":null,"listen_grpc_port":null}`
	play(t, w.replicas[0], []step{
		{"GET", "/control/v1/node", "", 200, `[]`},
		{"POST", "/control/v1/node", reg + `}`, 200, `null`},
		{"POST", "/control/v1/node/", reg + `}`, 200, `null`},
		{
			"POST", "/control/v1/node", strings.Replace(reg, "9001", "1", 1) + `}`, 409,
			`{"msg":"Conflict: Node is already registered with different address"}`,
		},
		{
			"POST", "/control/v1/node", reg + `,"listen_grpc_port":1}`, 400,
			`{"msg":"\"must specify both gRPC address and port\""}`,
		},
		{"POST", "/control/v1/node", strings.Replace(strings.Replace(reg, `"node_id":1`,
			`"node_id":2`, 1), `"listen_http_addr":"ps"`, `"listen_http_addr":"nowhere"`, 1) + `}`,
			503, `{"msg":"Node 2 tried to register with unknown DNS name 'nowhere'"}`},
		{"POST", "/control/v1/node", ``, 400, `{"msg":"\"missing request body\""}`},
		{"GET", "/control/v1/node", "null", 200, `[` + node1 + `]`},
		{"GET", "/control/v1/node/1", "", 200, node1},
		{"GET", "/control/v1/node/2", "", 404, `{"msg":"NotFound: Node 2 not registered"}`},
		{"GET", "/control/v1/node/x", "", 400, `{"msg":"\"failed to parse node_id\""}`},
		{"GET", "/control/v1/node/7/shards", "", 200, `{"node_id":7,"shards":[]}`},
		{
			"PUT", "/control/v1/node/1/config", `{"node_id":2}`, 400,
			`{"msg":"\"Path and body node_id differ\""}`,
		},
		{
			"PUT", "/control/v1/node/2/config", `{"node_id":2,"availability":"Offline"}`, 404,
			`{"msg":"NotFound: Node 2 not registered"}`,
		},
		{
			"PUT", "/control/v1/node/2/config", `{"node_id":2,"scheduling":"Pause"}`, 500,
			`{"msg":"Node 2 not found for update"}`,
		},
		{
			"PUT", "/control/v1/node/1/config",
			`{"node_id":1,"availability":"Active","scheduling":"Pause"}`, 200, `null`,
		},
		{"GET", "/control/v1/node/1", "", 200, strings.NewReplacer("Offline", "Active",
			`"scheduling":"Active"`, `"scheduling":"Pause"`).Replace(node1)},
	})
}

func TestTenantsAreCreatedOnceAndDescribed(t *testing.T) {
	w := newWorld(t, setup{})
	r := w.replicas[0]
	play(t, r, []step{
		{
			"POST", "/v1/tenant", `{"new_tenant_id":"` + tenantA + `"}`, 409,
			`{"msg":"Conflict: Failed to schedule shard(s): No pageservers found"}`,
		},
		{
			"DELETE", "/v1/tenant/" + tenantA, "null", 409,
			`{"msg":"Conflict: Scheduling error: No pageservers found"}`,
		},
	})
	w.must(fsm.FinishDeleteTenant{ID: tenantID(t, tenantA)})
	w.addNodes(1)
	const created = `{"shards":[{"shard_id":"` + tenantA +
		`-0002","node_id":1,"generation":0},{"shard_id":"` + tenantA +
		`-0102","node_id":1,"generation":0}]}`
	const shard0 = `{"tenant_shard_id":"` + tenantA +
		`-0002","node_attached":1,"node_secondary":[],"last_error":"","is_reconciling":false,"is_pending_compute_notification":false,"is_splitting":false,"is_importing":false,"scheduling_policy":"Active","preferred_az_id":"az-a"}`
	described := `{"tenant_id":"` + tenantA + `","shards":[` + shard0 + `,` + strings.Replace(
		shard0, "-0002", "-0102",
		1) + `],"stripe_size":2048,"policy":{"Attached":0},"config":{"gc_period":"5m"}}`
	const node = `"listen_pg_addr":"ps","listen_pg_port":6401,"listen_grpc_addr":null,"listen_grpc_port":null,"listen_http_addr":"ps","listen_http_port":9001,"listen_https_port":null}`
	play(t, r, []step{
		{"POST", "/v1/tenant", `{"new_tenant_id":"` + tenantA +
			`","shard_parameters":{"count":2,"stripe_size":2048},"gc_period":"300s"}`, 201,
			created},
		{
			"POST", "/v1/tenant",
			`{"new_tenant_id":"` + tenantA + `","shard_parameters":{"count":2,"stripe_size":8}}`,
			201, created,
		},
		{
			"POST", "/v1/tenant", `{"new_tenant_id":"` + tenantA + `-0001"}`, 400,
			`{"msg":"\"Attempted to create a specific shard, this API is for creating the whole tenant\""}`,
		},
		{"GET", "/control/v1/tenant/" + tenantA, "", 200, described},
		{
			"GET", "/control/v1/tenant/" + tenantB, "", 404,
			`{"msg":"NotFound: Tenant ` + tenantB + ` not found"}`,
		},
		{"GET", "/control/v1/tenant", "", 200, `[` + described + `]`},
		{"GET", "/control/v1/tenant?limit=0", "", 200, `[` + described + `]`},
		{"GET", "/control/v1/tenant?limit=1&limit=1&start_after=" + tenantA, "", 200, `[]`},
		{
			"GET", "/control/v1/tenant?limit=1&limit=2", "", 400,
			`{"msg":"\"param limit specified more than once\""}`,
		},
		{
			"GET", "/v1/tenant/" + tenantA + "/config", "", 200,
			`{"tenant_specific_overrides":{"gc_period":"5m"},"effective_config":{"gc_period":"5m"}}`,
		},
		{
			"GET", "/v1/tenant/" + tenantB + "/config", "", 404,
			`{"msg":"NotFound: Tenant not found"}`,
		},
		{
			"PATCH", "/v1/tenant/config",
			`{"tenant_id":"` + tenantA + `","gc_period":null,"pitr_interval":"3600s"}`, 200, `null`,
		},
		{
			"GET", "/v1/tenant/" + tenantA + "/config/", "", 200,
			`{"tenant_specific_overrides":{"pitr_interval":"1h"},"effective_config":{"pitr_interval":"1h"}}`,
		},
		{"PUT", "/v1/tenant/config", `{"tenant_id":"` + tenantA + `"}`, 200, `null`},
		{
			"PUT", "/v1/tenant/config", `{"tenant_id":"` + tenantB + `"}`, 404,
			`{"msg":"NotFound: Tenant ` + tenantB + ` not found"}`,
		},
		{"GET", "/debug/v1/tenant/" + tenantA + "/locate", "", 200,
			`{"shards":[{"shard_id":"` + tenantA + `-0002","node_id":1,` +
				node + `,{"shard_id":"` + tenantA + `-0102","node_id":1,` + node +
				`],"shard_params":{"count":2,"stripe_size":2048}}`},
		{
			"GET", "/debug/v1/tenant/" + tenantB + "/locate", "", 404,
			`{"msg":"NotFound: No shards for this tenant ID found"}`,
		},
		{
			"POST", "/debug/v1/inspect", `{"tenant_shard_id":"` + tenantA + `-0002"}`, 200,
			`{"attachment":[0,1]}`,
		},
		{
			"POST", "/debug/v1/inspect", `{"tenant_shard_id":"` + tenantB + `"}`, 200,
			`{"attachment":null}`,
		},
		{"GET", "/control/v1/node/1/shards", "", 200,
			`{"node_id":1,"shards":[{"tenant_shard_id":"` + tenantA +
				`-0002","is_observed_secondary":null,"is_intended_secondary":false},{"tenant_shard_id":"` +
				tenantA + `-0102","is_observed_secondary":null,"is_intended_secondary":false}]}`},
		{
			"PUT", "/control/v1/tenant/" + tenantA + "/policy", `{"placement":"Secondary"}`, 200,
			`null`,
		},
		{
			"GET", "/debug/v1/tenant/" + tenantA + "/locate", "", 400,
			`{"msg":"\"Cannot locate a tenant that is not attached\""}`,
		},
		{
			"PUT", "/control/v1/tenant/" + tenantA + "/policy", `{"placement":"Detached"}`, 200,
			`null`,
		},
		{
			"GET", "/control/v1/tenant/" + tenantA, "", 404,
			`{"msg":"NotFound: Tenant ` + tenantA + ` not found"}`,
		},
		{
			"PUT", "/control/v1/tenant/" + tenantA + "/policy",
			`{"placement":{"Attached":0},"scheduling":"Essential"}`, 200, `null`,
		},
		{"DELETE", "/v1/tenant/" + tenantA, "null", 200, `null`},
		{
			"DELETE", "/v1/tenant/" + tenantA, "null", 404,
			`{"msg":"NotFound: Tenant ` + tenantA + ` not found"}`,
		},
		{"POST", "/debug/v1/consistency_check", "", 200, `null`},
		{"POST", "/debug/v1/reconcile_all", "", 200, `0`},
		{"GET", "/debug/v1/tenant", "", 200, `[]`},
		{
			"GET", "/debug/v1/scheduler", "", 200,
			`{"nodes":{"1":{"shard_count":0,"attached_shard_count":0,"home_shard_count":0,"az":"az-a","may_schedule":"No"}}}`,
		},
	})
	if calls := w.calls.calls(); len(calls) != 1 || calls[0] != "wipe "+tenantA+" on 1" {
		t.Errorf("calls of pageservers: %q", calls)
	}
}

func TestLocationConfigCreatesAndMovesTenants(t *testing.T) {
	w := newWorld(t, setup{})
	w.addNodes(2)
	conf := func(rest string) string { return `{"tenant_conf":{},` + rest + `}` }
	path := "/v1/tenant/" + tenantA + "/location_config"
	play(t, w.replicas[0], []step{
		{
			"PUT", path + "?lazy=maybe", conf(`"mode":"AttachedSingle"`), 400,
			`{"msg":"\"cannot parse query param lazy: provided string was not ` +
				"`true` or `false`" + `\""}`,
		},
		{
			"PUT", "/v1/tenant/" + tenantA + "-0002/location_config", conf(`"mode":"Detached"`),
			400, `{"msg":"\"This API is for importing single-sharded or unsharded tenants\""}`,
		},
		{
			"PUT", path + "?lazy=true&flush_ms=1",
			conf(`"mode":"Secondary","secondary_conf":{"warm":true}`), 200,
			`{"shards":[],"stripe_size":null}`,
		},
		{
			"PUT", path, conf(`"mode":"AttachedSingle","generation":7`), 200,
			`{"shards":[{"shard_id":"` + tenantA + `","node_id":1}],"stripe_size":null}`,
		},
		{
			"POST", "/debug/v1/inspect", `{"tenant_shard_id":"` + tenantA + `"}`, 200,
			`{"attachment":[7,1]}`,
		},
		{
			"PUT", path, conf(`"mode":"AttachedMulti","generation":9`), 200,
			`{"shards":[{"shard_id":"` + tenantA + `","node_id":1}],"stripe_size":null}`,
		},
		{
			"POST", "/debug/v1/inspect", `{"tenant_shard_id":"` + tenantA + `"}`, 200,
			`{"attachment":[7,1]}`,
		},
		{"PUT", path, conf(`"mode":"Detached"`), 200, `{"shards":[],"stripe_size":null}`},
	})
}

func TestUpcallsIssueAndValidateGenerations(t *testing.T) {
	w := newWorld(t, setup{})
	r := w.replicas[0]
	w.addNodes(2)
	r.do("POST", "/v1/tenant", `{"new_tenant_id":"`+tenantA+`"}`).want(t, 201,
		`{"shards":[{"shard_id":"`+tenantA+`","node_id":1,"generation":0}]}`)
	w.attach(tenantID(t, tenantA))
	reg := `"register":{"node_id":3,"listen_pg_addr":"ps","listen_pg_port":6403,"listen_http_addr":"ps","listen_http_port":9003,"availability_zone_id":"az-a"}`
	play(t, r, []step{
		{"POST", "/upcall/v1/re-attach", `{"node_id":1}`, 200, `{"tenants":[{"id":"` + tenantA +
			`","gen":2,"mode":"AttachedSingle","stripe_size":2048}]}`},
		{"POST", "/upcall/v1/re-attach", `{"node_id":3,` + reg + `}`, 200, `{"tenants":[]}`},
		{
			"POST", "/upcall/v1/re-attach", `{"node_id":9}`, 404,
			`{"msg":"NotFound: Node 9 not registered"}`,
		},
		{"POST", "/upcall/v1/validate", `{"tenants":[{"id":"` + tenantA + `","gen":1},{"id":"` +
			tenantB + `","gen":1},{"id":"` + tenantA + `","gen":2}]}`, 200,
			`{"tenants":[{"id":"` + tenantA + `","valid":false},{"id":"` + tenantA +
				`","valid":true}]}`},
		{"POST", "/upcall/v1/validate", `{"tenants":[]}`, 200, `{"tenants":[]}`},
	})
	if len(r.attached) != 2 || r.attached[0] != 1 {
		t.Errorf("the reconciler heard of re-attaches of %v", r.attached)
	}
}

// Two re-attaches are two starts of a process, even under one request id.
func TestReAttachUnderOneRequestIDNeverRepeatsAGeneration(t *testing.T) {
	w := newWorld(t, setup{})
	r := w.replicas[0]
	w.addNodes(1)
	r.do("POST", "/v1/tenant", `{"new_tenant_id":"`+tenantA+`"}`)
	w.attach(tenantID(t, tenantA))
	for _, gen := range []string{"2", "3"} {
		r.do("POST", "/upcall/v1/re-attach", `{"node_id":1}`, "X-Request-Id", "same").
			want(t, 200,
				`{"tenants":[{"id":"`+tenantA+`","gen":`+gen+`,"mode":"AttachedSingle","stripe_size":2048}]}`)
	}
}

// A client may send one request id with everything it does. Then a change that is
// undone and made again must not be taken for the first one.
func TestChangeUnderUsedRequestIDIsMadeAgain(t *testing.T) {
	w := newWorld(t, setup{})
	r := w.replicas[0]
	w.addNodes(1)
	config := func(scheduling string) {
		r.do("PUT", "/control/v1/node/1/config", `{"node_id":1,"scheduling":"`+scheduling+`"}`,
			"X-Request-Id", "same").want(t, 200, `null`)
	}
	config("Pause")
	config("Active")
	config("Pause")
	if n, _ := r.State().Node(1); n.Scheduling != neon.SchedulingPause {
		t.Errorf("node is %s", n.Scheduling)
	}
}

func TestMigrationsAreCheckedAndCommitted(t *testing.T) {
	w := newWorld(t, setup{})
	r := w.replicas[0]
	w.addNodes(3)
	r.do("POST", "/v1/tenant", `{"new_tenant_id":"`+tenantA+`","placement_policy":{"Attached":1}}`)
	w.attach(tenantID(t, tenantA))
	w.must(fsm.SetNodeAvailability{Verdicts: []fsm.Verdict{{Node: 3, To: neon.NodeOffline}}})
	path := "/control/v1/tenant/" + tenantA + "/migrate"
	now := `"migration_config":{"prewarm":false,"override_scheduler":true}`
	play(t, r, []step{
		{"PUT", path, `{"node_id":9}`, 400, `{"msg":"\"Node 9 not found\""}`},
		{
			"PUT", path, `{"node_id":3}`, 412,
			`{"msg":"Precondition failed: Node 3 (ps) is unavailable"}`,
		},
		{
			"PUT", path, `{"node_id":2,"origin_node_id":3}`, 412,
			`{"msg":"Precondition failed: Migration expected to originate from 3 but shard is on 1"}`,
		},
		{
			"PUT", "/control/v1/tenant/" + tenantB + "/migrate", `{"node_id":2}`, 404,
			`{"msg":"NotFound: Tenant shard not found"}`,
		},
		{"PUT", path, `{"node_id":2,"origin_node_id":1,` + now + `}`, 200, `{}`},
		{"PUT", path, `{"node_id":2,` + now + `}`, 200, `{}`},
		{"PUT", path + "_secondary", `{"node_id":3}`, 200, `{}`},
	})
	sh, _ := r.State().Shard(neon.Unsharded(tenantID(t, tenantA)))
	if sh.Attached != 2 || len(sh.Secondary) != 1 || sh.Secondary[0] != 3 {
		t.Errorf("shard is on %d and %v", sh.Attached, sh.Secondary)
	}
	r.await = func(context.Context) error {
		return neon.Errorf(neon.Timeout, "Timeout waiting for shard %s", tenantA)
	}
	r.do("PUT", path, `{"node_id":1,`+now+`}`).want(t, 408,
		`{"msg":"Timeout waiting for shard `+tenantA+`"}`)
}

func TestUnknownPathsAndMethods(t *testing.T) {
	w := newWorld(t, setup{})
	r := w.replicas[0]
	for _, c := range []struct{ method, path string }{
		{"GET", "/nowhere"}, {"DELETE", "/status"}, {"POST", "/v1/tenant/" + tenantA + "/x"},
		{"GET", "/v1/tenant/"}, {"HEAD", "/control/v1/node"},
	} {
		g := r.do(c.method, c.path, "")
		if g.status != 404 || g.header.Get("Content-Type") != "text/plain" ||
			c.method != "HEAD" && g.body != "Not Found" {
			t.Errorf("%s %s: %d %v %q", c.method, c.path, g.status, g.header, g.body)
		}
	}
	if g := r.do("OPTIONS", "/anything", ""); g.status != http.StatusNoContent {
		t.Errorf("OPTIONS: %d", g.status)
	}
	r.do("GET", "/status/", "").want(t, 200, `null`)
	r.do("GET", "/st%61tus", "").want(t, 200, `null`)
}

func TestStatusRoutesTellWhatThisReplicaIs(t *testing.T) {
	w := newWorld(t, setup{replicas: 2})
	for _, c := range []struct {
		path   string
		leader int
		other  int
	}{
		{"/status", 200, 200}, {"/ready", 200, 200}, {"/live", 200, 200},
		{"/metrics", 200, 200},
	} {
		for i, want := range []int{c.leader, c.other} {
			g := w.replicas[i].do("GET", c.path, "")
			if g.status != want || c.path != "/metrics" && g.body != "null" {
				t.Errorf("%s on %d: %d %s", c.path, i, g.status, g.body)
			}
		}
	}
	w.replicas[0].notReady = true
	w.replicas[0].do("GET", "/ready", "").want(t, 503, "null")
	w.replicas[0].do("GET", "/live", "").want(t, 503, "null")
	w.replicas[1].outOfService = "its state is wrong"
	w.replicas[1].do("GET", "/ready", "").want(t, 503,
		`{"msg":"This replica is out of service: its state is wrong"}`)
}
