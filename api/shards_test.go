package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
)

// refusal is a pageserver's answer that is not 2xx, classed as its client would.
type refusal struct {
	status int
	msg    string
}

func (r *refusal) Error() string   { return fmt.Sprintf("pageserver: %d: %s", r.status, r.msg) }
func (r *refusal) HTTPStatus() int { return r.status }
func (r *refusal) Message() string { return r.msg }
func (r *refusal) As(target any) bool {
	t, ok := target.(**neon.Error)
	if ok {
		code := neon.Conflict
		if r.status == http.StatusNotFound {
			code = neon.NotFound
		}
		*t = &neon.Error{Code: code, Msg: "ps: " + r.msg, Err: r}
	}
	return ok
}

// twoShards is a world with a tenant of two attached shards, on nodes 1 and 2,
// with one secondary each.
func twoShards(t *testing.T) (*world, *replica) {
	w := newWorld(t, setup{rate: 1000})
	w.addNodes(2)
	w.replicas[0].do("POST", "/v1/tenant",
		`{"new_tenant_id":"`+tenantA+`","shard_parameters":{"count":2,"stripe_size":2048},"placement_policy":{"Attached":1}}`)
	w.attach(tenantID(t, tenantA))
	return w, w.replicas[0]
}

// calls plays one request and returns what the pageservers were asked, sorted.
func (w *world) asked(r *replica, s step) []string {
	w.t.Helper()
	before := len(w.calls.calls())
	if g := r.do(s.method, s.path, s.body); g.status != s.status || g.body != s.want {
		w.t.Errorf("%s %s %s\n got %d %s\nwant %d %s", s.method, s.path, s.body, g.status, g.body,
			s.status, s.want)
	}
	got := w.calls.calls()[before:]
	slices.Sort(got)
	return got
}

const timelinePath = "/v1/tenant/" + tenantA + "/timeline/" + timelineX

func TestTimelineOperationsReachAllShards(t *testing.T) {
	w, r := twoShards(t)
	w.calls.answer = func(_ neon.NodeID, _ neon.ShardID, call neon.ShardCall) (int, []byte, error) {
		if call.Label == "timeline_detach_ancestor" {
			return 200, []byte(`{"reparented_timelines":["` + timelineX + `"]}`), nil
		}
		return 200, []byte(`null`), nil
	}
	for _, c := range []struct {
		step
		call string // what each shard's pageserver is asked
		body string
	}{
		{
			step{"PUT", timelinePath + "/archival_config", `{"state":"Archived"}`, 200, `null`},
			"PUT %s/timeline/X/archival_config", `{"state":"Archived"}`,
		},
		{step{
			"PUT", timelinePath + "/detach_ancestor", "", 200,
			`{"reparented_timelines":["` + timelineX + `"]}`,
		}, "PUT %s/timeline/X/detach_ancestor", `null`},
		{step{
			"PUT", timelinePath + "/detach_ancestor?detach_behavior=v2", "", 200,
			`{"reparented_timelines":["` + timelineX + `"]}`,
		}, "PUT %s/timeline/X/detach_ancestor?detach_behavior=multi_level_and_no_reparent", `null`},
		{
			step{"POST", timelinePath + "/block_gc", "", 200, `null`},
			"POST %s/timeline/X/block_gc", `null`,
		},
		{
			step{"POST", timelinePath + "/unblock_gc", "", 200, `null`},
			"POST %s/timeline/X/unblock_gc", `null`,
		},
		{
			step{"POST", timelinePath + "/lsn_lease", `{"lsn":"0/16B5A50"}`, 200, `null`},
			"POST %s/timeline/X/lsn_lease", `{"lsn":"0/16B5A50"}`,
		},
		{
			step{"POST", timelinePath + "/download_heatmap_layers?concurrency=3", "", 200, `null`},
			"POST %s/timeline/X/download_heatmap_layers?recurse=false&concurrency=3", `null`,
		},
		{
			step{"POST", timelinePath + "/download_heatmap_layers?recurse=true", "", 200, `null`},
			"POST %s/timeline/X/download_heatmap_layers?recurse=true", `null`,
		},
	} {
		got := w.asked(r, c.step)
		for i, shard := range []string{tenantA + "-0002", tenantA + "-0102"} {
			want := fmt.Sprintf(strings.ReplaceAll(c.call, "X", timelineX),
				shard) + fmt.Sprintf(" on %d: ", i+1) + c.body
			if len(got) != 2 || got[i] != want {
				t.Errorf("%s: asked %q, want %q", c.path, got, want)
			}
		}
	}
	one := w.asked(r, step{
		"POST",
		strings.Replace(timelinePath, tenantA, tenantA+"-0102", 1) + "/download_heatmap_layers", "",
		200, `null`,
	})
	if len(one) != 1 || !strings.Contains(one[0], tenantA+"-0102/") {
		t.Errorf("one shard: asked %q", one)
	}
	hidden := w.asked(r, step{
		"PUT", timelinePath + "/mark_invisible", `{"is_visible":false}`, 200, `{"state":"Active"}`,
	})
	if want := "PUT " + strings.Replace(timelinePath, tenantA, tenantA+"-0002", 1) +
		"/mark_invisible on 1"; len(hidden) != 1 || hidden[0] != want {
		t.Errorf("mark_invisible: asked %q", hidden)
	}
}

func TestTimelineOperationsCheckWhatTheyAreTold(t *testing.T) {
	_, r := twoShards(t)
	play(t, r, []step{
		{
			"PUT", timelinePath + "/archival_config", `{"state":"Gone"}`, 400,
			"{\"msg\":\"\\\"Failed to parse json request: unknown variant `Gone`, expected `Archived` or `Unarchived`\\\"\"}",
		},
		{"PUT", timelinePath + "/archival_config", ``, 400, `{"msg":"\"missing request body\""}`},
		{
			"PUT", timelinePath + "/detach_ancestor?detach_behavior=v3", ``, 400,
			`{"msg":"\"cannot parse query param detach_behavior: cannot parse detach behavior\""}`,
		},
		{
			"POST", timelinePath + "/lsn_lease", `{}`, 400,
			"{\"msg\":\"\\\"Failed to parse json request: missing field `lsn`\\\"\"}",
		},
		{
			"POST", timelinePath + "/download_heatmap_layers?recurse=1", ``, 400,
			"{\"msg\":\"\\\"cannot parse query param recurse: provided string was not `true` or `false`\\\"\"}",
		},
		{
			"POST", "/v1/tenant/" + tenantB + "/timeline/" + timelineX + "/block_gc", "", 404,
			`{"msg":"NotFound: Tenant not found"}`,
		},
		{
			"POST", "/v1/tenant/" + tenantA + "/timeline/zz/block_gc", "", 400,
			`{"msg":"\"failed to parse timeline_id\""}`,
		},
		{
			"POST", "/v1/tenant/" + tenantB + "/timeline/" + timelineX + "/download_heatmap_layers",
			"", 200, `null`,
		},
		{
			"POST", "/v1/tenant/" + tenantB + "/secondary/download", "", 404,
			`{"msg":"NotFound: Tenant ` + tenantB + ` not found"}`,
		},
	})
}

func TestErrorsOfPageserversAreSpelledForEachOperation(t *testing.T) {
	w, r := twoShards(t)
	for _, c := range []struct {
		answer refusal
		step
	}{
		{refusal{412, "ancestor is archived"}, step{
			"PUT", timelinePath + "/archival_config", `{"state":"Unarchived"}`, 412,
			`{"msg":"Precondition failed: ancestor is archived"}`,
		}},
		{refusal{406, "x"}, step{
			"PUT", timelinePath + "/archival_config", `{"state":"Unarchived"}`, 409,
			`{"msg":"Conflict: ps: x"}`,
		}},
		{refusal{409, "Conflict: no ancestors"}, step{
			"PUT", timelinePath + "/detach_ancestor", ``, 409,
			`{"msg":"Conflict: 1 (ps): no ancestors"}`,
		}},
		{refusal{400, "too many ancestors"}, step{
			"PUT", timelinePath + "/detach_ancestor", ``, 400,
			`{"msg":"\"1 (ps): too many ancestors\""}`,
		}},
		{
			refusal{500, "oh"},
			step{"PUT", timelinePath + "/detach_ancestor", ``, 500, `{"msg":"1 (ps): oh"}`},
		},
		{refusal{404, "NotFound: tenant " + tenantA + "-0002"}, step{
			"POST", timelinePath + "/lsn_lease", `{"lsn":"0/1"}`, 503,
			`{"msg":"Timeline is not attached to the pageserver 1 yet, please retry"}`,
		}},
		{refusal{404, "NotFound: timeline"}, step{
			"POST", timelinePath + "/lsn_lease", `{"lsn":"0/1"}`, 404,
			`{"msg":"NotFound: ps: NotFound: timeline"}`,
		}},
		{
			refusal{500, "oh"},
			step{"POST", timelinePath + "/block_gc", ``, 409, `{"msg":"Conflict: ps: oh"}`},
		},
		{
			refusal{404, "no"},
			step{"GET", "/control" + timelinePath, ``, 503, `{"msg":"pageserver: 404: no"}`},
		},
		{
			refusal{500, "oh"},
			step{"POST", timelinePath + "/download_heatmap_layers", ``, 200, `null`},
		},
		{refusal{500, "oh"}, step{
			"POST", "/v1/tenant/" + tenantA + "/secondary/download", ``, 409,
			`{"msg":"Conflict: Error from pageserver: pageserver: 500: oh"}`,
		}},
	} {
		w.calls.answer = func(neon.NodeID, neon.ShardID, neon.ShardCall) (int, []byte, error) {
			return c.answer.status, nil, &c.answer
		}
		if c.path == "/control"+timelinePath {
			c.path = "/control/v1/tenant/" + tenantA + "/timeline/" + timelineX
		}
		play(t, r, []step{c.step})
	}
}

func TestShardsMustAgreeOnADetachedAncestor(t *testing.T) {
	w, r := twoShards(t)
	w.calls.answer = func(n neon.NodeID, _ neon.ShardID, _ neon.ShardCall) (int, []byte, error) {
		if n == 1 {
			return 200, []byte(`{"reparented_timelines":[]}`), nil
		}
		return 200, []byte(`{"reparented_timelines":["` + timelineX + `"]}`), nil
	}
	r.do("PUT", timelinePath+"/detach_ancestor", "").want(t, 500,
		`{"msg":"pageservers returned mixed results for ancestor detach; manual intervention is required."}`)
	w.calls.answer = func(n neon.NodeID, _ neon.ShardID, _ neon.ShardCall) (int, []byte, error) {
		ids := []string{`"` + timelineX + `"`, `"` + tenantB + `"`}
		if n == 1 {
			slices.Reverse(ids)
		}
		return 200, []byte(`{"reparented_timelines":[` + strings.Join(ids, ",") + `]}`), nil
	}
	r.do("PUT", timelinePath+"/detach_ancestor", "").want(t, 200,
		`{"reparented_timelines":["`+tenantB+`","`+timelineX+`"]}`)
}

func TestTimelineIsDescribedByAllShards(t *testing.T) {
	w, r := twoShards(t)
	lsn := map[neon.NodeID]string{
		1: `,"image_consistent_lsn":"0/30"`, 2: `,"image_consistent_lsn":"0/20"`,
	}
	info := func(n neon.NodeID) string {
		return `{"timeline_id":"` + timelineX + `","last_record_lsn":"0/10","pg_version":16` +
			lsn[n] + `}`
	}
	w.calls.answer = func(n neon.NodeID, _ neon.ShardID, _ neon.ShardCall) (int, []byte, error) {
		return 200, []byte(info(n)), nil
	}
	path := "/control/v1/tenant/" + tenantA + "/timeline/" + timelineX
	got := w.asked(r, step{
		"GET", path, "", 200,
		`{"shards":[` + info(1) + `,` + info(2) + `],"image_consistent_lsn":"0/20"}`,
	})
	if want := "GET " + tenantA + "-0002/timeline/" + timelineX +
		"?include-image-consistent-lsn=true on 1: null"; got[0] != want {
		t.Errorf("asked %q", got)
	}
	lsn[1] = ""
	r.do("GET", path, "").want(t, 200, `{"shards":[`+info(1)+`,`+info(2)+`]}`)
	lsn[1], lsn[2] = `,"image_consistent_lsn":"0/30"`, ""
	r.do("GET", path, "").want(t, 200, `{"shards":[`+info(1)+`,`+info(2)+`]}`)
}

// A location that lost its shard while it was asked has said nothing.
func TestOperationThatRacedWithAMoveIsToBeRepeated(t *testing.T) {
	w, r := twoShards(t)
	w.calls.answer = func(n neon.NodeID, s neon.ShardID, _ neon.ShardCall) (int, []byte, error) {
		if n == 1 {
			sh, _ := r.State().Shard(s)
			w.must(fsm.IssueGenerations{
				Items: []fsm.Issue{{Shard: s, Node: sh.Attached, Generation: sh.Generation}},
			})
		}
		return 200, []byte(`null`), nil
	}
	r.do("PUT", timelinePath+"/archival_config", `{"state":"Archived"}`).want(t, 503,
		`{"msg":"Tenant attachment changed, please retry"}`)
}

func TestSecondaryDownloadsAddUp(t *testing.T) {
	w, r := twoShards(t)
	status := map[neon.NodeID]int{1: 200, 2: 200}
	w.calls.answer = func(n neon.NodeID, _ neon.ShardID, _ neon.ShardCall) (int, []byte, error) {
		if status[n] == 500 {
			return 500, nil, errors.New("down")
		}
		return status[n], fmt.Appendf(nil,
			`{"heatmap_mtime":"2026-01-01T00:00:0%d.000Z","layers_downloaded":1,"layers_total":2,"bytes_downloaded":10,"bytes_total":20}`,
			n), nil
	}
	const both = `{"heatmap_mtime":"2026-01-01T00:00:02.000Z","layers_downloaded":2,"layers_total":4,"bytes_downloaded":20,"bytes_total":40}`
	path := "/v1/tenant/" + tenantA + "/secondary/download"
	got := w.asked(r, step{"POST", path + "?wait_ms=100", "", 200, both})
	if want := "POST " + tenantA +
		"-0002/secondary/download?wait_ms=100 on 2: null"; len(got) != 2 || got[0] != want {
		t.Errorf("asked %q", got)
	}
	status[1] = 202
	r.do("POST", path, "").want(t, 202, both)
	status[2] = 500
	r.do("POST", path, "").want(t, 202,
		`{"heatmap_mtime":"2026-01-01T00:00:01.000Z","layers_downloaded":1,"layers_total":2,"bytes_downloaded":10,"bytes_total":20}`)
}

func TestTimeTravelIsForTenantsThatAreNowhere(t *testing.T) {
	w, r := twoShards(t)
	path := "/v1/tenant/" + tenantA + "/time_travel_remote_storage"
	when := "?travel_to=2026-01-01T00:00:00Z&done_if_after=2026-01-02T00:00:00.5Z"
	play(t, r, []step{
		{
			"PUT", path + when, `{"shard_counts":[0]}`, 500,
			`{"msg":"We want tenant to be attached in shard with tenant_shard_id=` + tenantA +
				`-0002"}`,
		},
		{
			"PUT", path + "?travel_to=2026-01-01T00:00:00Z", `{"shard_counts":[0]}`, 400,
			`{"msg":"\"no done_if_after specified in query parameters\""}`,
		},
		{
			"PUT", path + "?travel_to=yesterday&done_if_after=2026-01-02T00:00:00Z",
			`{"shard_counts":[0]}`, 400,
			`{"msg":"\"Invalid time for travel_to: \\\"yesterday\\\"\""}`,
		},
		{
			"PUT", path + when, `{"shard_counts":[0],"x":1}`, 400,
			"{\"msg\":\"\\\"Failed to parse json request: unknown field `x`, expected `shard_counts`\\\"\"}",
		},
		{
			"PUT", "/control/v1/tenant/" + tenantA + "/policy", `{"placement":"Detached"}`, 200,
			`null`,
		},
	})
	got := w.asked(r, step{"PUT", path + when, `{"shard_counts":[2,0,2]}`, 200, `null`})
	query := "/time_travel_remote_storage?done_if_after=2026-01-02T00%3A00%3A00.5Z&travel_to=2026-01-01T00%3A00%3A00Z on 1: null"
	want := []string{
		"PUT " + tenantA + "-0002" + query, "PUT " + tenantA + "-0102" + query,
		"PUT " + tenantA + query,
	}
	if !slices.Equal(got, want) {
		t.Errorf("asked %q, want %q", got, want)
	}
	w.calls.answer = func(neon.NodeID, neon.ShardID, neon.ShardCall) (int, []byte, error) {
		return 500, nil, errors.New("oh")
	}
	r.do("PUT", path+when, `{"shard_counts":[0]}`).want(t, 500,
		`{"msg":"Error doing time travel recovery for shard `+tenantA+` on node 1 (ps): oh"}`)
}

func TestTenantIsImportedAboveAllOfItsGenerations(t *testing.T) {
	w := newWorld(t, setup{rate: 1000})
	r := w.replicas[0]
	path := "/debug/v1/tenant/" + tenantA + "/import"
	r.do("POST", path, "").want(t, 400, `{"msg":"\"No nodes available\""}`)
	w.addNodes(1)
	found := `[]`
	w.calls.answer = func(_ neon.NodeID, _ neon.ShardID, _ neon.ShardCall) (int, []byte, error) {
		return 200, []byte(`{"shards":` + found + `}`), nil
	}
	r.do("POST", path, "").want(t, 404, `{"msg":"NotFound: No shards found"}`)
	found = `[{"tenant_shard_id":"` + tenantA +
		`","generation":9,"stripe_size":null},{"tenant_shard_id":"` + tenantA +
		`-0002","generation":12,"stripe_size":16},{"tenant_shard_id":"` + tenantA +
		`-0102","generation":null,"stripe_size":16}]`
	r.do("POST", path, "").want(t, 200,
		`{"shards":[{"shard_id":"`+tenantA+`-0002","node_id":1,"generation":12},{"shard_id":"`+tenantA+`-0102","node_id":1,"generation":12}]}`)
	if tenant, _ := r.State().Tenant(tenantID(t, tenantA)); tenant.Stripe != 16 ||
		tenant.Policy != neon.Attached(0) {
		t.Errorf("imported as %+v", tenant)
	}
	if got := w.calls.calls(); !slices.Contains(got,
		"GET "+tenantA+"/scan_remote_storage on 1: null") {
		t.Errorf("asked %q", got)
	}
}

// points remembers what it was told.
type points struct{ got []string }

func (p *points) Configure(name, actions string) error {
	if actions == "bad" {
		return errors.New("unrecognized command")
	}
	p.got = append(p.got, name+"="+actions)
	return nil
}

func (p *points) Sleep(_ context.Context, name string) error {
	p.got = append(p.got, "at "+name)
	return nil
}

func TestFailpointsAreSetOnTheReplicaThatIsAsked(t *testing.T) {
	w := newWorld(t, setup{replicas: 2})
	const path = "/debug/v1/failpoints"
	w.replicas[1].do("PUT", path, `[]`).want(t, 400,
		`{"msg":"\"Cannot manage failpoints because neon was compiled without failpoints support\""}`)
	p := &points{}
	w = newWorld(t, setup{replicas: 2, failpoints: func() Failpoints { return p }})
	follower := w.replicas[1]
	play(t, follower, []step{
		{
			"PUT", path, `[{"name":"a","actions":"pause"},{"name":"b","actions":"return(5)"}]`, 200,
			`null`,
		},
		{
			"PUT", path, `[{"name":"a","actions":"bad"}]`, 400,
			`{"msg":"\"Failed to configure failpoints: unrecognized command\""}`,
		},
		{
			"PUT", path, `[{"name":"a"}]`, 400,
			"{\"msg\":\"\\\"Failed to parse json request: missing field `actions`\\\"\"}",
		},
		{"PUT", "/control/v1/step_down", ``, 200, `{}`},
	})
	if want := []string{
		"a=pause", "b=return(5)", "at sleep-on-step-down-handling",
	}; !slices.Equal(p.got, want) {
		t.Errorf("got %q", p.got)
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
