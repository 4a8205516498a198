package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"quorate/api/neon"
)

// bodies are what each route that reads a body takes, with one thing that makes
// it fail when it is well formed: no node and no tenant of that name exist.
var bodies = map[string]string{
	"POST /upcall/v1/re-attach": `{"node_id":99,"register":null,"empty_local_disk":true}`,
	"POST /upcall/v1/validate": `{"tenants":[{"id":"` +
		tenantB + `-0001","gen":1}]}`,
	"GET /upcall/v1/timeline_import_status": `{"tenant_shard_id":"` +
		tenantB + `-0001","timeline_id":"` + timelineX + `","generation":1}`,
	"POST /upcall/v1/timeline_import_status": `{"tenant_shard_id":"` + tenantB +
		`-0001","timeline_id":"` +
		timelineX +
		`","generation":1,"status":{"InProgress":{"V1":{"jobs":2,"completed":1,"import_plan_hash":3,"job_soft_size_limit":4}}}}`,
	"POST /control/v1/node":                               `{"node_id":0,"listen_pg_addr":"a","listen_pg_port":1,"listen_http_addr":"a","listen_http_port":1,"listen_https_port":2,"listen_grpc_addr":"g","listen_grpc_port":3,"availability_zone_id":"z","node_ip_addr":"::1"}`,
	"PUT /control/v1/node/:node_id/config":                `{"node_id":99,"availability":"Active","scheduling":"Pause"}`,
	"PUT /control/v1/tenant/:tenant_id/policy":            `{"placement":{"Attached":1},"scheduling":"Stop"}`,
	"PUT /control/v1/tenant/:tenant_id/migrate":           `{"node_id":1,"origin_node_id":2,"migration_config":{"prewarm":false,"override_scheduler":true,"secondary_warmup_timeout":"1m 30s"}}`,
	"PUT /control/v1/tenant/:tenant_id/migrate_secondary": `{"node_id":1}`,
	"PUT /control/v1/tenant/:tenant_id/shard_split":       `{"new_shard_count":4,"new_stripe_size":128}`,
	"POST /v1/tenant": `{"new_tenant_id":"` + tenantB +
		`-0001","generation":1,"shard_parameters":{"count":2,"stripe_size":8},"placement_policy":"Detached","gc_period":"1h"}`,
	"PUT /v1/tenant/config": `{"tenant_id":"` +
		tenantB + `","eviction_policy":{"kind":"NoEviction"}}`,
	"PATCH /v1/tenant/config": `{"tenant_id":"` +
		tenantB + `","gc_period":null}`,
	"PUT /v1/tenant/:tenant_id/location_config": `{"mode":"AttachedSingle","generation":1,"secondary_conf":{"warm":true},"shard_number":0,"tenant_conf":{}}`,
	"POST /v1/tenant/:tenant_id/timeline": `{"new_timeline_id":"` + timelineX +
		`","ancestor_timeline_id":"` + timelineX + `","ancestor_start_lsn":"0/8","read_only":true}`,
	"PUT /v1/tenant/:tenant_id/time_travel_remote_storage":            `{"shard_counts":[0,2]}`,
	"PUT /v1/tenant/:tenant_id/timeline/:timeline_id/archival_config": `{"state":"Archived"}`,
	"POST /v1/tenant/:tenant_id/timeline/:timeline_id/lsn_lease":      `{"lsn":"0/16B5A50"}`,
	"POST /debug/v1/attach-hook": `{"tenant_shard_id":"` +
		tenantB + `","node_id":99,"generation_override":1,"config":{"gc_period":"1h"}}`,
	"PUT /control/v1/preferred_azs": `{"` + tenantB +
		`-0102":"az-1","` + tenantB + `":null}`,
	"POST /control/v1/metadata_health/update": `{"healthy_tenant_shards":["` +
		tenantB + `"],"unhealthy_tenant_shards":["` + tenantB + `-0102"]}`,
	"POST /control/v1/metadata_health/outdated":                           `{"not_scrubbed_for":"1m 30s"}`,
	"PUT /debug/v1/failpoints":                                            `[{"name":"x","actions":"off"}]`,
	"POST /control/v1/safekeeper/:safekeeper_id":                          `{"id":98,"region_id":"r","version":1,"host":"h","port":1,"http_port":2,"https_port":3,"availability_zone_id":"z","active":true}`,
	"POST /control/v1/safekeeper/:safekeeper_id/scheduling_policy":        `{"scheduling_policy":"Pause"}`,
	"POST /v1/tenant/:tenant_id/timeline/:timeline_id/safekeeper_migrate": `{"new_sk_set":[1,2,3]}`,
	"POST /debug/v1/tenant/:tenant_id/timeline/:timeline_id/import": `{"tenant_id":"` + tenantB +
		`","timeline_id":"` + timelineX + `","start_lsn":"0/8","sk_set":[1],"force_upsert":true}`,
	"POST /control/v1/cluster/members":                    `{"id":"c1","raft_addr":"h1:1","standby":true}`,
	"POST /control/v1/cluster/members/:member_id/replace": `{"id":"c1","raft_addr":"h1:1","standby":true}`,
	"PUT /control/v1/cluster/transfer":                    `{"to":"c1"}`,
	"POST /debug/v1/inspect":                              `{"tenant_shard_id":"` + tenantB + `-0102"}`,
}

// TestAFieldThatStandsTwiceIsRefused, wherever it stands in a body.
func TestAFieldThatStandsTwiceIsRefused(t *testing.T) {
	w := newWorld(t, setup{})
	field := regexp.MustCompile(`"(\w+)":`)
	for _, rt := range withBody() {
		// a map, and not here
		if strings.HasSuffix(rt.path, "/preferred_azs") ||
			strings.HasSuffix(rt.path, "/failpoints") {
			continue
		}
		good := bodies[rt.method+" "+rt.path]
		for _, at := range field.FindAllStringIndex(good, -1) {
			var value json.RawMessage
			if err := json.NewDecoder(strings.NewReader(good[at[1]:])).Decode(&value); err != nil {
				t.Fatal(good, err)
			}
			body := good[:at[1]] + string(value) + "," + good[at[0]:]
			before := w.committed()
			if g := w.replicas[0].do(rt.method, pathOf(rt),
				body); g.status != 400 || !strings.Contains(g.body,
				"duplicate field") && !strings.Contains(g.body, "expected one variant") ||
				w.committed() != before {
				t.Errorf("%s %s %s: %d %s", rt.method, rt.path, body, g.status, g.body)
			}
		}
	}
}

func withBody() (all []route) {
	for _, rt := range routes(handlers{}) {
		if bodies[rt.method+" "+rt.path] != "" {
			all = append(all, rt)
		}
	}
	return all
}

func TestEveryRouteThatReadsABodyIsFuzzed(t *testing.T) {
	if n := len(withBody()); n != len(bodies) {
		t.Errorf("%d bodies for %d routes", len(bodies), n)
	}
	w := newWorld(t, setup{})
	for _, rt := range routes(handlers{}) {
		if rt.method == "GET" || rt.method == "DELETE" || bodies[rt.method+" "+rt.path] != "" {
			continue
		}
		// The others must not care.
		without := w.replicas[0].do(rt.method, pathOf(rt), "")
		if g := w.replicas[0].do(rt.method, pathOf(rt), "{"); g.status != without.status ||
			g.body != without.body {
			t.Errorf("%s %s: %d %s, without a body %d %s", rt.method, rt.path, g.status, g.body,
				without.status, without.body)
		}
	}
}

// Whatever the body, a handler answers and does not fail, and what is refused as
// malformed was not proposed.
func FuzzBodies(f *testing.F) {
	table := withBody()
	for i, rt := range table {
		good := bodies[rt.method+" "+rt.path]
		for _, b := range []string{
			good, good + " x", good[:len(good)/2], "", "null", "[]", `""`, "0", "{}",
			strings.Replace(good, `"`, `'`, 1), strings.ReplaceAll(good, "1", "-1"),
			strings.ReplaceAll(good, "1", "1e400"), `{"node_id":` + strings.Repeat("[", 20000),
		} {
			f.Add(uint8(i), []byte(b))
		}
	}
	f.Fuzz(func(t *testing.T, at uint8, body []byte) {
		rt := table[int(at)%len(table)]
		w := newReplica(t, setup{rate: 1 << 20}).world
		rec := httptest.NewRecorder()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		w.replicas[0].server.ServeHTTP(rec,
			httptest.NewRequestWithContext(ctx, rt.method, pathOf(rt), bytes.NewReader(body)))
		if rec.Code == 500 && strings.Contains(rec.Body.String(), "internal error") {
			t.Fatalf("%s %s: %s", rt.method, rt.path, rec.Body)
		}
		if n := w.committed(); rec.Code == 400 && n > 0 {
			t.Fatalf("%s %s: refused with %s but %T was proposed", rt.method, rt.path, rec.Body,
				w.log.Commands()[n-1])
		}
	})
}

func TestRouteParametersAreCheckedBeforeAnything(t *testing.T) {
	w := newWorld(t, setup{})
	replace := strings.NewReplacer(":tenant_id", "%22x", ":node_id", "-1", ":safekeeper_id", "-1",
		":timeline_id", "x", ":tenant_shard_id", tenantB+"-zz", "*rest", "x", ":member_id", "%0A")
	for _, rt := range routes(handlers{}) {
		if !strings.Contains(rt.path, ":") {
			continue
		}
		g := w.replicas[0].do(rt.method, replace.Replace(rt.path), bodies[rt.method+" "+rt.path])
		if g.status != 400 || !strings.Contains(g.body, "failed to parse") {
			t.Errorf("%s %s: %d %s", rt.method, rt.path, g.status, g.body)
		}
	}
	if n := w.committed(); n > 0 {
		t.Errorf("%d commands were proposed", n)
	}
}

func FuzzQuote(f *testing.F) {
	f.Add("a\"\\\n\x00\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		q := quoteDebug(s)
		if len(q) < 2 || q[0] != '"' || q[len(q)-1] != '"' || strings.ContainsAny(q, "\n\r\x00") {
			t.Errorf("%q became %q", s, q)
		}
		if inner := q[1 : len(q)-1]; strings.Contains(
			strings.NewReplacer(`\\`, "", `\"`, "").Replace(inner), `"`) {
			t.Errorf("%q has a bare quote: %q", s, q)
		}
	})
}

func BenchmarkLocate(b *testing.B) {
	r := newReplica(b, setup{})
	r.addNodes(6)
	for i := range 1000 {
		id := neon.TenantID{byte(i), byte(i >> 8)}
		if _, err := r.options.Tenants.Create(b.Context(), neon.TenantCreateRequest{
			Tenant:          neon.Unsharded(id),
			ShardParameters: &neon.ShardParameters{Count: 4, StripeSize: 8},
		}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		i := 0
		for pb.Next() {
			i++
			id := neon.TenantID{byte(i % 1000), byte(i % 1000 >> 8)}
			rec := httptest.NewRecorder()
			r.server.ServeHTTP(rec,
				httptest.NewRequest("GET", "/debug/v1/tenant/"+id.String()+"/locate", nil))
			if rec.Code != 200 {
				b.Error(rec.Body)
			}
		}
	})
}
