package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/controller"
)

// sharded creates tenant A with two attached shards on two nodes.
func sharded(t testing.TB, w *world) []neon.ShardID {
	t.Helper()
	w.addNodes(2)
	g := w.replicas[0].do("POST", "/v1/tenant",
		`{"new_tenant_id":"`+tenantA+`","shard_parameters":{"count":2,"stripe_size":8}}`)
	if g.status != 201 {
		t.Fatal(g.body)
	}
	w.attach(tenantID(t, tenantA))
	return neon.ShardIDs(tenantID(t, tenantA), 2)
}

// statusError is an answer of a pageserver.
type statusError struct {
	status int
	msg    string
}

func (e *statusError) Error() string   { return e.msg }
func (e *statusError) HTTPStatus() int { return e.status }
func (e *statusError) Message() string { return e.msg }
func (e *statusError) As(target any) bool {
	t, ok := target.(**neon.Error)
	if ok {
		*t = neon.Errorf(neon.Conflict, "ps (ps) %d: %s", e.status, e.msg)
	}
	return ok
}

func TestTimelineIsCreatedOnShardZeroFirstAndTheRestPinned(t *testing.T) {
	w := newWorld(t, setup{})
	shards := sharded(t, w)
	r := w.replicas[0]
	r.observed = map[neon.ShardID]map[neon.NodeID]*neon.LocationConfig{shards[0]: {
		1: {Mode: neon.AttachedSingle}, 2: {Mode: neon.AttachedStale},
	}}
	path := "/v1/tenant/" + tenantA + "/timeline"
	info := `{"timeline_id":"` + timelineX +
		`","last_record_lsn":"0/10","ancestor_lsn":"0/8","pg_version":16,"x":[1, 2],"safekeepers":null}`
	r.do("POST", path, `{"new_timeline_id":"`+timelineX+`","pg_version":16}`).want(t, 201,
		strings.Replace(info, "[1, 2]", "[1,2]", 1))
	r.do("POST", path, `{"new_timeline_id":"`+timelineX+`","ancestor_timeline_id":"`+timelineX+`"}`)
	a0, a1 := shards[0].String(), shards[1].String()
	first := `{"new_timeline_id":"` + timelineX +
		`","existing_initdb_timeline_id":null,"pg_version":16}`
	branch := `{"new_timeline_id":"` + timelineX + `","ancestor_timeline_id":"` + timelineX +
		`","ancestor_start_lsn":%s,"pg_version":null}`
	want := []string{
		"create " + a0 + " on 1: " + first,
		"create " + a0 + " on 2: " + first,
		"create " + a1 + " on 2: " + strings.Replace(first, `time`+`line_id":null`,
			`timeline_id":"`+timelineX+`"`, 1),
		"create " + a0 + " on 1: " + fmt.Sprintf(branch, "null"),
		"create " + a0 + " on 2: " + fmt.Sprintf(branch, "null"),
		"create " + a1 + " on 2: " + fmt.Sprintf(branch, `"0/8"`),
	}
	if got := w.calls.calls(); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestStaleLocationMayLackTheTenant(t *testing.T) {
	w := newWorld(t, setup{})
	shards := sharded(t, w)
	w.replicas[0].observed = map[neon.ShardID]map[neon.NodeID]*neon.LocationConfig{
		shards[0]: {2: {Mode: neon.AttachedStale}},
	}
	status := http.StatusNotFound
	w.calls.create = func(
		n neon.NodeID, s neon.ShardID, req neon.TimelineCreateRequest,
	) (neon.TimelineInfo, error) {
		if n == 2 && s == shards[0] {
			return neon.TimelineInfo{}, &statusError{status, "no"}
		}
		return timelineInfo(req.Timeline), nil
	}
	do := func() got {
		return w.replicas[0].do("POST", "/v1/tenant/"+tenantA+"/timeline",
			`{"new_timeline_id":"`+timelineX+`"}`)
	}
	if g := do(); g.status != 201 {
		t.Errorf("%d %s", g.status, g.body)
	}
	status = 406
	do().want(t, 409, `{"msg":"Conflict: ps (ps) 406: no"}`)
}

// Whatever the pageserver said, it does not count if another node owns a shard by
// now.
func TestAttachmentThatChangedOverridesTheOutcome(t *testing.T) {
	for _, inner := range []error{nil, &statusError{406, "no"}} {
		w := newWorld(t, setup{})
		shards := sharded(t, w)
		w.calls.create = func(
			neon.NodeID, neon.ShardID, neon.TimelineCreateRequest,
		) (neon.TimelineInfo, error) {
			w.must(fsm.ReAttach{Node: 2})
			return timelineInfo(neon.TimelineID{1}), inner
		}
		w.replicas[0].do("POST", "/v1/tenant/"+tenantA+"/timeline",
			`{"new_timeline_id":"`+timelineX+`"}`).
			want(t, 503, `{"msg":"Tenant attachment changed, please retry"}`)
		if sh, _ := w.log.State().Shard(shards[1]); sh.Generation < 2 {
			t.Error("nothing changed")
		}
	}
}

func TestRemoteRequestsNeedAnAttachedTenant(t *testing.T) {
	w := newWorld(t, setup{})
	r := w.replicas[0]
	w.addNodes(1)
	path := "/v1/tenant/" + tenantA + "/timeline"
	body := `{"new_timeline_id":"` + timelineX + `"}`
	play(t, r, []step{
		{"POST", path, body, 404, `{"msg":"NotFound: Tenant not found"}`},
		{"GET", path, "", 404, `{"msg":"NotFound: Tenant ` + tenantA + ` not found"}`},
		{
			"POST", "/v1/tenant", `{"new_tenant_id":"` + tenantA + `"}`, 201,
			`{"shards":[{"shard_id":"` + tenantA + `","node_id":1,"generation":0}]}`,
		},
		{"POST", path, body, 503, `{"msg":"One or more shards in tenant is not yet attached"}`},
		{
			"PUT", "/control/v1/tenant/" + tenantA + "/policy", `{"placement":"Secondary"}`, 200,
			`null`,
		},
		{
			"POST", path, body, 409,
			`{"msg":"Conflict: Shard ` + tenantA + ` tenant has policy Secondary"}`,
		},
		{
			"GET", path, body, 409,
			`{"msg":"Conflict: Cannot call timeline API on non-attached tenant"}`,
		},
		{
			"GET", "/v1/tenant/xyz/timeline", "", 400,
			`{"msg":"\"failed to parse tenant_shard_id\""}`,
		},
	})
}

func TestTimelineIsDeletedOnShardZeroLast(t *testing.T) {
	w := newWorld(t, setup{})
	shards := sharded(t, w)
	w.replicas[0].do("DELETE", "/v1/tenant/"+tenantA+"/timeline/"+timelineX, "").want(t, 200,
		`null`)
	want := []string{
		"delete " + shards[1].String() + " on 2", "delete " + shards[0].String() + " on 1",
	}
	if got := w.calls.calls(); !slices.Equal(got, want) {
		t.Errorf("calls %q", got)
	}
	for err, wanted := range map[*statusError]string{
		{503, "later"}:                       `503 {"msg":"later"}`,
		{412, "Requested tenant is missing"}: `503 {"msg":"Requested tenant is missing"}`,
		{412, "has children"}:                `500 {"msg":"has children"}`,
	} {
		w.calls.remove = func(neon.NodeID, neon.ShardID) (int, error) { return 0, err }
		g := w.replicas[0].do("DELETE", "/v1/tenant/"+tenantA+"/timeline/"+timelineX, "")
		if fmt.Sprintf("%d %s", g.status, g.body) != wanted {
			t.Errorf("%v: %d %s", err, g.status, g.body)
		}
	}
}

// A shard that refuses does not make the others forgotten: one that has begun, or may
// have, is not left with half a deletion that is not recorded.
func TestDeletionThatSomeShardsHaveBegunStaysRecorded(t *testing.T) {
	for name, second := range map[string]error{
		"accepts": nil, "is lost": neon.Errorf(neon.Unavailable, "reset by peer"),
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newReplica(t, setup{})
			w := r.world
			w.addNodes(3)
			id := tenantID(t, tenantA)
			w.must(fsm.CreateTenant{
				ID: id, Count: 3, Policy: neon.Attached(0), Scheduling: neon.ShardActive,
				Shards: []fsm.NewShard{{Attached: 1}, {Attached: 2}, {Attached: 3}},
			})
			w.attach(id)
			w.calls.remove = func(_ neon.NodeID, shard neon.ShardID) (int, error) {
				if shard.Number == 1 {
					return 0, &statusError{412, "has children"}
				}
				time.Sleep(time.Second)
				return http.StatusAccepted, second
			}
			c := &call{
				ctx: t.Context(), route: &route{},
				params: params("tenant_id", tenantA, "timeline_id", timelineX),
			}
			h := newHandlers(r.options).timelines
			if _, err := h.delete(c); neon.Classify(err) != neon.Internal {
				t.Errorf("%s: %v", name, err)
			}
			if _, ok := w.log.State().TimelineDelete(neon.TimelineRef{
				Tenant: id, Timeline: timelineID(t, timelineX),
			}); !ok {
				t.Errorf("%s: nobody goes on with it", name)
			}
		})
	}
}

// The deletion is asked after for 25 s, then the client is told to come again.
func TestDeletionThatRunsLongEndsInA409WithoutAMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReplica(t, setup{})
		w := r.world
		w.addNodes(1)
		id := tenantID(t, tenantA)
		w.must(fsm.CreateTenant{
			ID: id, Policy: neon.Attached(0), Scheduling: neon.ShardActive,
			Shards: []fsm.NewShard{{Attached: 1}},
		})
		w.attach(id)
		w.calls.remove = func(
			neon.NodeID, neon.ShardID,
		) (int, error) {
			return http.StatusAccepted, nil
		}
		begun := time.Now()
		c := &call{
			ctx: t.Context(), route: &route{},
			params: params("tenant_id", tenantA, "timeline_id", timelineX),
		}
		a, err := newHandlers(r.options).timelines.delete(c)
		if err != nil || a.status != 409 || string(a.body) != "null" {
			t.Errorf("%d %s %v", a.status, a.body, err)
		}
		if took := time.Since(begun); took != 21*time.Second || len(w.calls.calls()) != 6 {
			t.Errorf("%d tries in %s", len(w.calls.calls()), took)
		}
	})
}

func TestPassthroughNamesTheShardEverywhere(t *testing.T) {
	w := newWorld(t, setup{})
	shards := sharded(t, w)
	r := w.replicas[0]
	r.do("GET", "/v1/tenant/"+tenantA+"/timeline/"+timelineX+"?t="+tenantA+"&x=%20", "body").want(t,
		200, `{"state":"Active"}`)
	r.do("GET", "/v1/tenant/"+shards[1].String(), "").want(t, 200, `{"state":"Active"}`)
	want := []string{
		"GET /v1/tenant/" + shards[0].String() + "/timeline/" + timelineX + "?t=" +
			shards[0].String() + "&x=%20 on 1",
		"GET /v1/tenant/" + shards[1].String() + "-0102 on 2",
	}
	if got := w.calls.calls(); !slices.Equal(got, want) {
		t.Errorf("calls %q", got)
	}
	for body, wanted := range map[string]string{
		`{"msg":"NotFound: tenant ` + tenantA +
			`-0002"}`: `503 {"msg":"Pageserver 1 (ps) returned tenant 404 due to ongoing migration, retry later"}`,
		`{"msg":"NotFound: timeline"}`: `404 {"msg":"NotFound: timeline"}`,
	} {
		w.calls.through = func(
			neon.NodeID, string, string,
		) (*http.Response, error) {
			return response(404, body), nil
		}
		g := r.do("GET", "/v1/tenant/"+tenantA, "")
		if fmt.Sprintf("%d %s", g.status, g.body) != wanted {
			t.Errorf("%d %s", g.status, g.body)
		}
	}
	w.calls.through = func(
		neon.NodeID, string, string,
	) (*http.Response, error) {
		return nil, fmt.Errorf("refused")
	}
	r.do("GET", "/v1/tenant/"+tenantA, "").want(t, 503,
		`{"msg":"Error sending pageserver API request to 1 (ps): refused"}`)
}

func TestDeletionOfATenantIsFinishedByTheNextLeader(t *testing.T) {
	w := newWorld(t, setup{replicas: 2})
	shards := sharded(t, w)
	w.calls.wipe = func(neon.NodeID) error { return &statusError{500, "disk"} }
	w.replicas[0].do("DELETE", "/v1/tenant/"+tenantA, "").want(t, 500,
		`{"msg":"delete tenant `+tenantA+`: disk"}`)
	if sh, ok := w.log.State().Shard(shards[0]); !ok || sh.Attached != 0 {
		t.Errorf("shard is %+v", sh)
	}
	play(t, w.replicas[0], []step{
		{
			"PUT", "/v1/tenant/config", `{"tenant_id":"` + tenantA + `"}`, 404,
			`{"msg":"NotFound: Tenant ` + tenantA + ` not found"}`,
		},
		{
			"POST", "/v1/tenant", `{"new_tenant_id":"` + tenantA + `"}`, 409,
			`{"msg":"Conflict: Tenant ` + tenantA + ` is being deleted"}`,
		},
	})
	w.calls.wipe = nil
	w.setLeader(1)
	w.replicas[0].do("DELETE", "/v1/tenant/"+tenantA, "").want(t, 200, `null`)
	if n := w.log.State().TenantCount(); n != 0 {
		t.Errorf("%d tenants are left", n)
	}
}

func TestTenantIsRateLimitedByDelay(t *testing.T) {
	w := newWorld(t, setup{rate: 20})
	begun := time.Now()
	for range 30 {
		w.replicas[0].do("GET", "/v1/tenant/"+tenantA+"/config", "").want(t, 404,
			`{"msg":"NotFound: Tenant not found"}`)
	}
	if took := time.Since(begun); took < 400*time.Millisecond {
		t.Errorf("30 requests of 20 a second took %s", took)
	}
	begun = time.Now()
	w.replicas[0].do("GET", "/v1/tenant/"+tenantB+"/config", "")
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("another tenant waited %s", took)
	}
	if text := w.replicas[0].do("GET", "/metrics", "").body; strings.Contains(text,
		"http_request_rate_limited_count 0\n") {
		t.Error("delays are not counted")
	}
}

func TestLimiterForgetsIdleTenants(t *testing.T) {
	l := newLimiter(1, nil, func(time.Duration) {})
	now := time.Now()
	for i := range 2 * keptLimiters {
		if delay, _, _ := l.reserve(neon.TenantID{byte(i), byte(i >> 8), byte(i >> 16)},
			now); delay > 0 {
			t.Fatalf("first request %d is delayed", i)
		}
		if len(l.tenants) > keptLimiters {
			t.Fatalf("%d tenants are kept", len(l.tenants))
		}
	}
	hot := neon.TenantID{0xff, 0xff}
	l.reserve(hot, now.Add(time.Hour))
	l.forget(now.Add(time.Hour))
	if _, ok := l.tenants[hot]; !ok || len(l.tenants) != 1 {
		t.Errorf("%d tenants are kept, the busy one: %v", len(l.tenants), ok)
	}
}

func TestLocateIsPrintedAsJSONWould(t *testing.T) {
	port, host := uint16(5), "a\"<b>é"
	r := neon.LocateResponse{Parameters: neon.ShardParameters{Count: 2, StripeSize: 8},
		Shards: []neon.LocateShard{
			{
				Shard: neon.ShardID{Tenant: neon.TenantID{1}, Number: 1, Count: 2}, Node: 7,
				PgAddr: host, PgPort: 1, HTTPAddr: "h", HTTPPort: 2,
			},
			{
				Shard: neon.Unsharded(neon.TenantID{2}), GRPCAddr: &host, GRPCPort: &port,
				HTTPSPort: &port,
			},
		}}
	want, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(appendLocate(nil, r)); got != string(want) {
		t.Errorf("got %s\nwant %s", got, want)
	}
	empty, _ := json.Marshal(neon.LocateResponse{})
	if got := string(appendLocate(nil, neon.LocateResponse{})); got != string(empty) {
		t.Errorf("got %s\nwant %s", got, empty)
	}
}

func TestDiskLossIsBelievedOnlyWhenConfigured(t *testing.T) {
	for _, handle := range []bool{false, true} {
		w := newWorld(t, setup{options: controller.Options{HandleDiskLoss: handle}})
		w.addNodes(1)
		w.replicas[0].do("POST", "/upcall/v1/re-attach", `{"node_id":1,"empty_local_disk":true}`).
			want(t, 200, `{"tenants":[]}`)
		if got := w.replicas[0].emptied; got != handle {
			t.Errorf("configured %v, believed %v", handle, got)
		}
	}
}

func TestHTTPSPortIsNeededWhereItIsUsed(t *testing.T) {
	w := newWorld(t, setup{options: controller.Options{UseHTTPS: true}})
	w.addNodes(1)
	register := func(id int, more string) got {
		return w.replicas[0].do("POST", "/control/v1/node", fmt.Sprintf(
			`{"node_id":%d,"listen_pg_addr":"ps","listen_pg_port":640%d,"listen_http_addr":"ps","listen_http_port":900%d,"availability_zone_id":"az-a"%s}`,
			id, id, id, more))
	}
	register(2, "").want(t, 412,
		`{"msg":"Precondition failed: Node 2 has no https port, but use_https is enabled"}`)
	// What was registered before HTTPS was asked for is in peace as long as it stays the same.
	register(1, "").want(t, 200, "null")
	register(1, `,"listen_grpc_port":1`).want(t, 412,
		`{"msg":"Precondition failed: Node 1 has no https port, but use_https is enabled"}`)
	register(1, `,"listen_https_port":2,"listen_grpc_addr":"ps"`).want(t, 400,
		`{"msg":"\"must specify both gRPC address and port\""}`)
	register(1, `,"listen_https_port":2`).want(t, 200, "null")
}
