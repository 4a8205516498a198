package api

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"quorate/api/auth"
	"quorate/api/neon"
	"quorate/fsm"
)

// pathOf fills in the parameters of a route with things that do not exist.
// No request waits for a profile.
func pathOf(rt route) string {
	return strings.NewReplacer(":tenant_id", tenantB, ":node_id", "99", ":safekeeper_id", "99",
		":timeline_id", timelineX,
		":tenant_shard_id", tenantB, "*rest", "timeline", "/profile/cpu",
		"/profile/cpu?format=none").Replace(rt.path)
}

func TestEveryRouteIsAccountedFor(t *testing.T) {
	seen := map[string]bool{}
	for _, rt := range routes(handlers{}) {
		key := rt.method + " " + rt.path
		if seen[key] {
			t.Errorf("%s stands twice", key)
		}
		seen[key] = true
		if (rt.label == "") == (rt.silent == "") {
			t.Errorf("%s needs a metric label or a reason for none", key)
		}
		if rt.handle == nil || rt.body <= 0 || rt.deadline <= 0 {
			t.Errorf("%s lacks a handler or a bound", key)
		}
		if rt.scope == auth.None && !openPaths[rt.path] {
			t.Errorf("%s has no scope", key)
		}
		if rt.limited && !strings.Contains(rt.path, ":tenant_id") {
			t.Errorf("%s is limited by a tenant that it does not name", key)
		}
		if rt.method != "GET" && rt.duty == onAny && rt.label != "upcall_v1_validate" &&
			rt.label != "debug_v1_inspect" {
			t.Errorf("%s writes on a replica that does not lead", key)
		}
	}
}

// The table of who may do what, written down a second time on purpose.
var wantScopes = map[auth.Scope][]string{
	auth.None: {
		"GET /metrics", "GET /status", "GET /live", "GET /ready", "GET /healthz", "GET /profile/cpu",
		"GET /profile/heap",
	},
	auth.Generations: {
		"POST /upcall/v1/re-attach", "POST /upcall/v1/validate",
		"GET /upcall/v1/timeline_import_status", "POST /upcall/v1/timeline_import_status",
	},
	auth.Infra: {"POST /control/v1/node", "GET /control/v1/node", "GET /control/v1/node/:node_id",
		"DELETE /control/v1/node/:node_id/delete", "PUT /control/v1/node/:node_id/drain",
		"DELETE /control/v1/node/:node_id/drain",
		"PUT /control/v1/node/:node_id/fill", "DELETE /control/v1/node/:node_id/fill"},
	auth.Scrubber: {
		"POST /control/v1/metadata_health/update", "GET /control/v1/tenant/:tenant_id",
		"GET /control/v1/tenant/:tenant_id/timeline/:timeline_id",
	},
	auth.Peer: {"PUT /control/v1/step_down"},
	auth.PageserverAPI: {
		"POST /v1/tenant", "DELETE /v1/tenant/:tenant_id", "PUT /v1/tenant/config",
		"PATCH /v1/tenant/config",
		"GET /v1/tenant/:tenant_id/config", "PUT /v1/tenant/:tenant_id/location_config",
		"POST /v1/tenant/:tenant_id/timeline", "DELETE /v1/tenant/:tenant_id/timeline/:timeline_id",
		"GET /v1/tenant/:tenant_id/*rest",
		"PUT /v1/tenant/:tenant_id/time_travel_remote_storage",
		"PUT /v1/tenant/:tenant_id/timeline/:timeline_id/archival_config",
		"PUT /v1/tenant/:tenant_id/timeline/:timeline_id/detach_ancestor",
		"POST /v1/tenant/:tenant_id/timeline/:timeline_id/block_gc",
		"POST /v1/tenant/:tenant_id/timeline/:timeline_id/unblock_gc",
		"POST /v1/tenant/:tenant_id/timeline/:timeline_id/lsn_lease",
		"POST /v1/tenant/:tenant_id/timeline/:timeline_id/download_heatmap_layers",
		"PUT /v1/tenant/:tenant_id/timeline/:timeline_id/mark_invisible",
		"POST /debug/v1/tenant/:tenant_id/import",
		"POST /debug/v1/tenant/:tenant_id/drop",
	},
	auth.Any: {"POST /v1/tenant/:tenant_id/secondary/download", "PUT /debug/v1/failpoints"},
	auth.Admin: {
		"GET /control/v1/node/:node_id/shards", "PUT /control/v1/node/:node_id/config",
		"GET /control/v1/leader",
		"DELETE /control/v1/node/:node_id", "PUT /control/v1/node/:node_id/delete",
		"POST /debug/v1/node/:node_id/drop", "GET /debug/v1/tombstone",
		"DELETE /debug/v1/tombstone/:node_id", "GET /debug/v1/operation",
		"GET /control/v1/tenant", "PUT /control/v1/tenant/:tenant_id/policy",
		"PUT /control/v1/tenant/:tenant_id/migrate",
		"PUT /control/v1/preferred_azs", "PUT /control/v1/tenant/:tenant_id/cancel_reconcile",
		"GET /control/v1/metadata_health/unhealthy", "POST /control/v1/metadata_health/outdated",
		"POST /debug/v1/attach-hook",
		"PUT /control/v1/tenant/:tenant_id/migrate_secondary",
		"PUT /control/v1/tenant/:tenant_id/shard_split",
		"GET /debug/v1/tenant", "GET /debug/v1/tenant/:tenant_id/locate", "GET /debug/v1/scheduler",
		"POST /debug/v1/consistency_check",
		"POST /debug/v1/reconcile_all", "POST /debug/v1/inspect", "GET /debug/v1/cluster",
		"GET /debug/v1/explain/:tenant_shard_id",
		"GET /control/v1/cluster/members", "POST /control/v1/cluster/members",
		"DELETE /control/v1/cluster/members/:member_id",
		"POST /control/v1/cluster/members/:member_id/replace",
		"PUT /control/v1/cluster/transfer",
	},
}

func TestScopesAdmitAndRefuseOnEveryRoute(t *testing.T) {
	pub, priv := newKey(t)
	w := newWorld(t, setup{key: pub, rate: 1000})
	want := map[string]auth.Scope{}
	for scope, list := range wantScopes {
		for _, key := range list {
			want[key] = scope
		}
	}
	all := []auth.Scope{
		auth.Tenant, auth.TenantEndpoint, auth.PageserverAPI, auth.SafekeeperData, auth.Generations,
		auth.Admin, auth.Infra, auth.Scrubber, auth.Peer,
	}
	tokens := map[auth.Scope]string{}
	for _, s := range all {
		tokens[s] = "Bearer " + sign(t, priv, jwt.MapClaims{"scope": string(s)})
	}
	for _, rt := range routes(handlers{}) {
		key := rt.method + " " + rt.path
		scope, ok := want[key]
		delete(want, key)
		if !ok || scope != rt.scope {
			t.Errorf("%s has scope %q, want %q", key, rt.scope, scope)
		}
		for _, s := range all {
			g := w.replicas[0].do(rt.method, pathOf(rt), "x", "Authorization", tokens[s])
			refused := g.status == 403 && strings.Contains(g.body, "JWT authentication error")
			if admitted := scope == auth.None || scope == auth.Any || s == scope ||
				s == auth.Admin; refused == admitted {
				t.Errorf("%s with a token of scope %s: %d %s", key, s, g.status, g.body)
			}
		}
		g := w.replicas[0].do(rt.method, pathOf(rt), "x")
		if open := scope == auth.None; open == (g.status == 401) {
			t.Errorf("%s without a token: %d %s", key, g.status, g.body)
		}
	}
	if len(want) > 0 {
		t.Errorf("not served: %v", slices.Collect(maps.Keys(want)))
	}
}

func TestUnknownPathsAskForATokenToo(t *testing.T) {
	pub, priv := newKey(t)
	w := newWorld(t, setup{key: pub})
	token := "Bearer " + sign(t, priv, jwt.MapClaims{"scope": "tenant"})
	for _, path := range []string{"/nowhere", "/status/", "/ready/"} {
		if g := w.replicas[0].do("GET", path, ""); g.status != 401 {
			t.Errorf("%s: %d", path, g.status)
		}
	}
	w.replicas[0].do("GET", "/nowhere", "", "Authorization", token).want(t, 404, "Not Found")
	w.replicas[0].do("GET", "/status/", "", "Authorization", token).want(t, 200, "null")
}

// Exactly these wait until the leader has looked around.
func TestReadinessIsAwaitedWhereTheContractSaysSo(t *testing.T) {
	var got []string
	for _, rt := range routes(handlers{}) {
		if rt.ready {
			got = append(got, rt.method+" "+rt.path)
		}
	}
	slices.Sort(got)
	want := []string{
		"DELETE /v1/tenant/:tenant_id", "DELETE /v1/tenant/:tenant_id/timeline/:timeline_id",
		"GET /control/v1/tenant", "GET /control/v1/tenant/:tenant_id",
		"GET /control/v1/tenant/:tenant_id/timeline/:timeline_id",
		"GET /v1/tenant/:tenant_id/*rest",
		"PATCH /v1/tenant/config", "POST /v1/tenant",
		"POST /v1/tenant/:tenant_id/secondary/download", "POST /v1/tenant/:tenant_id/timeline",
		"POST /v1/tenant/:tenant_id/timeline/:timeline_id/block_gc",
		"POST /v1/tenant/:tenant_id/timeline/:timeline_id/download_heatmap_layers",
		"POST /v1/tenant/:tenant_id/timeline/:timeline_id/lsn_lease",
		"POST /v1/tenant/:tenant_id/timeline/:timeline_id/unblock_gc",
		"PUT /control/v1/tenant/:tenant_id/migrate",
		"PUT /control/v1/tenant/:tenant_id/migrate_secondary",
		"PUT /control/v1/tenant/:tenant_id/shard_split",
		"PUT /control/v1/tenant/:tenant_id/cancel_reconcile",
		"PUT /v1/tenant/:tenant_id/location_config",
		"PUT /v1/tenant/:tenant_id/time_travel_remote_storage",
		"PUT /v1/tenant/:tenant_id/timeline/:timeline_id/archival_config",
		"PUT /v1/tenant/:tenant_id/timeline/:timeline_id/detach_ancestor",
		"PUT /v1/tenant/:tenant_id/timeline/:timeline_id/mark_invisible", "PUT /v1/tenant/config",
	}
	want = append(want, safekeeperReady...)
	want = append(want, "GET /debug/v1/tenant/:tenant_id/locate",
		"GET /v1/tenant/:tenant_id/config")
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestWithoutAKeyEverythingIsAllowed(t *testing.T) {
	w := newWorld(t, setup{})
	w.replicas[0].do("GET", "/control/v1/tenant", "", "Authorization", "nonsense").want(t, 200,
		"[]")
}

func TestOnlyCountedRequestsReachTheMetrics(t *testing.T) {
	pub, priv := newKey(t)
	w := newWorld(t, setup{key: pub})
	r := w.replicas[0]
	token := "Bearer " + sign(t, priv, jwt.MapClaims{"scope": "admin"})
	r.do("GET", "/control/v1/node", "")                           // refused at the door
	r.do("GET", "/control/v1/node/5", "", "Authorization", token) // 404
	r.do("POST", "/debug/v1/reconcile_all", "", "Authorization", token)
	r.do("PATCH", "/v1/tenant/config", "x", "Authorization", token)
	text := r.do("GET", "/metrics", "").body
	for _, line := range []string{
		`storage_controller_http_request_status{method="get",path="control_v1_node_status",status="404"} 1`,
		`storage_controller_http_request_status{method="other",path="v1_tenant_config",status="400"} 1`,
		`storage_controller_http_request_latency_bucket{method="get",path="control_v1_node_status",le="1.6"} 1`,
		`storage_controller_reconcile_complete{status="ok_no_notify"} 0`,
		`storage_controller_leadership_status{status="leader"} 1`,
		`storage_controller_leadership_status{status="candidate"} 0`,
		`storage_controller_tenant_shards 0`,
		`storage_controller_safekeeper_nodes 0`,
		`storage_controller_https_safekeeper_nodes 0`,
		`storage_controller_http_request_rate_limited_bucket{le="0.1"} 0`,
		`# TYPE storage_controller_reconcile_spawn counter`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("metrics lack %s", line)
		}
	}
	w.addNodes(1)
	w.must(fsm.CreateTenant{
		ID: tenantID(t, tenantA), Count: 3, Policy: neon.Placement{Kind: neon.PlaceDetached},
		Scheduling: neon.ShardActive, Shards: make([]fsm.NewShard, 3),
	})
	w.must(fsm.CreateTenant{
		ID: tenantID(t, tenantB), Policy: neon.Attached(0), Scheduling: neon.ShardActive,
		Shards: []fsm.NewShard{{Attached: 1}},
	})
	if now := r.do("GET", "/metrics", "").body; !strings.Contains(now,
		"storage_controller_tenant_shards 1\n") {
		t.Error("shards of a detached tenant are counted, or those of another are not")
	}
	for _, bad := range []string{`path="control_v1_node"`, "_total", "reconcile_all"} {
		if strings.Contains(text, bad) {
			t.Errorf("metrics have %s", bad)
		}
	}
}
