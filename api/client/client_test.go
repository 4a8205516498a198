package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
)

// controller answers every request with the same, and remembers the last one.
type controller struct {
	*client.Client
	status int
	answer string
	asked  string
}

func newController(t *testing.T) *controller {
	t.Helper()
	k := &controller{status: http.StatusOK}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		k.asked = strings.TrimSpace(fmt.Sprintf("%s %s %s", r.Method, r.URL, body))
		w.WriteHeader(k.status)
		_, _ = io.WriteString(w, k.answer)
	}))
	t.Cleanup(server.Close)
	k.Client = client.New(client.Options{Address: client.At(server.URL + "/"), Token: "secret"})
	t.Cleanup(k.Close)
	return k
}

func parse[T any](t *testing.T, text string, f func(string) (T, error)) T {
	t.Helper()
	v, err := f(text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

const (
	tenantText   = "1f359dd625e519a1a4e8d7509690f6fe"
	timelineText = "de200bd42b49cc1814412c7e592dd6e9"
	infoText     = `{"timeline_id":"` + timelineText +
		`","last_record_lsn":"0/16","pg_version":16}`
)

// fails drops the answer of a call.
func fails[T any](_ T, err error) error { return err }

// spelled is a call and the request that it makes.
type spelled struct {
	asked, answer string
	call          func() error
}

func (k *controller) check(t *testing.T, calls []spelled) {
	t.Helper()
	for _, c := range calls {
		k.answer = c.answer
		if err := c.call(); err != nil {
			t.Errorf("%s: %v", c.asked, err)
		}
		if k.asked != c.asked {
			t.Errorf("asked\n%s\nwant\n%s", k.asked, c.asked)
		}
	}
}

func TestTenantCallsAreSpelledAsControllersExpect(t *testing.T) {
	k, ctx := newController(t), t.Context()
	id := parse(t, tenantText, neon.ParseTenantID)
	all, at := k.Tenants(), "/v1/tenant/"+tenantText
	then := time.Date(2025, 7, 1, 12, 0, 0, 0, time.UTC)
	k.check(t, []spelled{
		{
			`POST /v1/tenant {"new_tenant_id":"` + tenantText + `"}`, `{"shards":[]}`,
			func() error {
				return fails(all.Create(ctx, neon.TenantCreateRequest{Tenant: neon.Unsharded(id)}))
			},
		},
		{"DELETE " + at, "null", func() error { return all.Delete(ctx, id) }},
		{
			"GET /control" + at, `{"tenant_id":"` + tenantText + `"}`,
			func() error { return fails(all.Describe(ctx, id)) },
		},
		{
			"GET /control/v1/tenant?limit=2&start_after=" + tenantText, "[]",
			func() error { return fails(all.List(ctx, id, 2)) },
		},
		{
			"GET /control/v1/tenant", "[]",
			func() error { return fails(all.List(ctx, neon.TenantID{}, 0)) },
		},
		{"GET /debug" + at + "/locate", "{}", func() error { return fails(all.Locate(ctx, id)) }},
		{
			"GET " + at + "/config", `{"tenant_specific_overrides":{},"effective_config":{}}`,
			func() error { return fails(all.Config(ctx, id)) },
		},
		{
			`PUT /v1/tenant/config {"tenant_id":"` + tenantText + `"}`, "null",
			func() error { return all.PutConfig(ctx, id, neon.TenantConfig{}) },
		},
		{
			`PATCH /v1/tenant/config {"gc_horizon":null,"tenant_id":"` + tenantText + `"}`, "null",
			func() error { return all.PatchConfig(ctx, id, map[string]any{"gc_horizon": nil}) },
		},
		{
			`PUT /control` + at + `/policy {"placement":null,"scheduling":"Pause"}`, "null",
			func() error {
				return all.SetPolicy(ctx, id,
					neon.PolicyRequest{Scheduling: new(neon.ShardPause)})
			},
		},
		{
			"PUT /control" + at + `/shard_split {"new_shard_count":4,"new_stripe_size":null}`,
			`{"new_shards":[]}`,
			func() error { return fails(all.Split(ctx, id, neon.ShardSplitRequest{Count: 4})) },
		},
		{
			"PUT " + at + "/time_travel_remote_storage?done_if_after=2025-07-01T13%3A00%3A00Z" +
				`&travel_to=2025-07-01T12%3A00%3A00Z {"shard_counts":[0,4]}`, "null",
			func() error {
				return all.TravelRemoteStorage(ctx, id, then, then.Add(time.Hour), 0, 4)
			},
		},
		{
			"POST /debug" + at + "/import", `{"shards":[]}`,
			func() error { return fails(all.Import(ctx, id)) },
		},
		{"POST /debug" + at + "/drop", "null", func() error { return all.Drop(ctx, id) }},
	})
	k.answer = `{"shards":[],"stripe_size":null}`
	if _, err := all.PutLocation(ctx, id, neon.LocationConfig{Mode: neon.Detached}); err != nil ||
		!strings.HasPrefix(k.asked, "PUT "+at+`/location_config {"mode":"Detached",`) {
		t.Errorf("asked %s, %v", k.asked, err)
	}
}

func TestShardCallsAreSpelledAsControllersExpect(t *testing.T) {
	k, ctx := newController(t), t.Context()
	id := parse(t, tenantText+"-0102", neon.ParseShardID)
	all, at := k.Shards(), "PUT /control/v1/tenant/"+id.String()
	req := neon.MigrateRequest{Node: 3, Config: neon.DefaultMigrationConfig()}
	for path, call := range map[string]func(
		context.Context, neon.ShardID, neon.MigrateRequest,
	) error{"/migrate": all.Migrate, "/migrate_secondary": all.MigrateSecondary} {
		if err := call(ctx, id, req); err != nil ||
			!strings.HasPrefix(k.asked, at+path+` {"node_id":3,`) {
			t.Errorf("asked %s, %v", k.asked, err)
		}
	}
	k.check(t, []spelled{
		{at + "/cancel_reconcile", "null", func() error { return all.CancelReconcile(ctx, id) }},
		{
			`PUT /control/v1/preferred_azs {"` + id.String() + `":null}`, `{"updated":[]}`,
			func() error {
				return fails(all.SetPreferredAZs(ctx, neon.PreferredAZsRequest{id: nil}))
			},
		},
	})
	k.answer = `{"gen":7}`
	g, err := all.AttachHook(ctx, neon.AttachHookRequest{Shard: id})
	if g != 7 || err != nil {
		t.Errorf("generation %d, %v", g, err)
	}
	k.answer = `{"gen":null}`
	if g, err := all.AttachHook(ctx, neon.AttachHookRequest{Shard: id}); g != 0 || err != nil {
		t.Errorf("generation of a detached shard %d, %v", g, err)
	}
}

func TestTimelineCallsAreSpelledAsControllersExpect(t *testing.T) {
	k, ctx := newController(t), t.Context()
	id := parse(t, tenantText, neon.ParseTenantID)
	tl := parse(t, timelineText, neon.ParseTimelineID)
	all, at := k.Timelines(), "/v1/tenant/"+tenantText+"/timeline"
	one := at + "/" + timelineText
	k.check(t, []spelled{
		{"GET " + at, "[" + infoText + "]", func() error { return fails(all.List(ctx, id)) }},
		{"GET " + one, infoText, func() error { return fails(all.Get(ctx, id, tl)) }},
		{"DELETE " + one, "null", func() error { return all.Delete(ctx, id, tl) }},
		{
			"PUT " + one + `/archival_config {"state":"Archived"}`, "null",
			func() error { return all.SetArchival(ctx, id, tl, neon.Archived) },
		},
		{
			"POST " + one + "/download_heatmap_layers?concurrency=4", "null",
			func() error { return all.DownloadHeatmapLayers(ctx, neon.Unsharded(id), tl, 4) },
		},
		{
			"POST " + one + "/download_heatmap_layers", "null",
			func() error { return all.DownloadHeatmapLayers(ctx, neon.Unsharded(id), tl, 0) },
		},
		{
			"GET /debug" + one + "/locate", `{"generation":1,"sk_set":[1],"new_sk_set":null}`,
			func() error { return fails(all.Locate(ctx, id, tl)) },
		},
		{
			"POST " + one + `/safekeeper_migrate {"new_sk_set":[1,2]}`, "null",
			func() error { return all.MigrateSafekeepers(ctx, id, tl, []neon.NodeID{1, 2}) },
		},
		{
			"POST " + one + "/safekeeper_migrate_abort", "null",
			func() error { return all.AbortSafekeepers(ctx, id, tl) },
		},
	})
	k.answer = strings.TrimSuffix(infoText, "}") + `,"safekeepers":null}`
	created, err := all.Create(ctx, id, neon.TimelineCreateRequest{
		Timeline: tl, Bootstrap: &neon.TimelineBootstrap{},
	})
	if created.Info.Timeline != tl || err != nil || !strings.HasPrefix(k.asked, "POST "+at+" {") {
		t.Errorf("%s: %+v, %v", k.asked, created, err)
	}
	k.answer = `{"timelines":[` + infoText + `],"offloaded":[{"timeline_id":"` + tenantText +
		`"}]}`
	if ids, err := all.IDs(ctx, id); err != nil || len(ids) != 2 || ids[0] != tl {
		t.Errorf("ids %v, %v", ids, err)
	}
}

func TestNodeCallsAreSpelledAsControllersExpect(t *testing.T) {
	k, ctx := newController(t), t.Context()
	all := k.Nodes()
	const at, gone = "/control/v1/node/3", "/debug/v1/tombstone"
	k.check(t, []spelled{
		{"GET /control/v1/node", "[]", func() error { return fails(all.List(ctx)) }},
		{"GET " + at + "/shards", "{}", func() error { return fails(all.Shards(ctx, 3)) }},
		{
			"PUT " + at + `/config {"node_id":3,"availability":"Offline","scheduling":null}`, "null",
			func() error {
				return all.Configure(ctx,
					neon.NodeConfigure{ID: 3, Availability: new(neon.NodeOffline)})
			},
		},
		{"PUT " + at + "/drain", "null", func() error { return all.Drain(ctx, 3) }},
		{
			"PUT " + at + "/drain?concurrent=true", "null",
			func() error { return all.Drain(ctx, 3, client.Concurrent) },
		},
		{"DELETE " + at + "/drain", "null", func() error { return all.CancelDrain(ctx, 3) }},
		{"PUT " + at + "/fill", "null", func() error { return all.Fill(ctx, 3) }},
		{"DELETE " + at + "/fill", "null", func() error { return all.CancelFill(ctx, 3) }},
		{
			"PUT " + at + "/delete?concurrent=true&force=true", "null",
			func() error { return all.Delete(ctx, 3, client.Force, client.Concurrent) },
		},
		{"DELETE " + at + "/delete", "null", func() error { return all.CancelDelete(ctx, 3) }},
		{"DELETE " + at, "null", func() error { return all.DeleteNow(ctx, 3) }},
		{"POST /debug/v1/node/3/drop", "null", func() error { return all.Drop(ctx, 3) }},
		{"GET " + gone, "[]", func() error { return fails(all.Tombstones(ctx)) }},
		{"DELETE " + gone + "/3", "null", func() error { return all.DeleteTombstone(ctx, 3) }},
		{
			"GET /debug/v1/operation", `[{"node_id":3,"operation":"fill"}]`,
			func() error { return fails(all.Operations(ctx)) },
		},
		{
			"GET /debug/v1/operation?ended=true", `[{"node_id":3,"operation":"fill"}]`,
			func() error { return fails(all.EndedOperations(ctx)) },
		},
	})
	k.answer = `{"id":3,"availability":"Active","scheduling":"Draining"}`
	n, err := all.Get(ctx, 3)
	if k.asked != "GET "+at || n.Scheduling != neon.SchedulingDraining || err != nil {
		t.Errorf("%s: %+v, %v", k.asked, n, err)
	}
	err = all.Register(ctx, neon.NodeRegister{ID: 3})
	if !strings.HasPrefix(k.asked, `POST /control/v1/node {"node_id":3,`) || err != nil {
		t.Errorf("%s, %v", k.asked, err)
	}
}

func TestOtherCallsAreSpelledAsControllersExpect(t *testing.T) {
	k, ctx := newController(t), t.Context()
	keepers, cluster, debug, up := k.Safekeepers(), k.Cluster(), k.Debug(), k.Upcalls()
	const keeper, members = "/control/v1/safekeeper", "/control/v1/cluster/members"
	k.check(t, []spelled{
		{"GET " + keeper, "[]", func() error { return fails(keepers.List(ctx)) }},
		{"GET " + keeper + "/3", `{"id":3}`, func() error { return fails(keepers.Get(ctx, 3)) }},
		{
			"POST " + keeper + `/3/scheduling_policy {"scheduling_policy":"Pause"}`, "null",
			func() error { return keepers.SetScheduling(ctx, 3, neon.SafekeeperPause) },
		},
		{"PUT " + keeper + "/3/gone", "null", func() error { return keepers.Settle(ctx, 3) }},
		{"GET /ready", "", func() error { return cluster.Ready(ctx) }},
		{"GET /status", "{}", func() error { return cluster.Status(ctx) }},
		{"GET /control/v1/leader", "null", func() error { return fails(cluster.Leader(ctx)) }},
		{"PUT /control/v1/step_down", "{}", func() error { return cluster.StepDown(ctx) }},
		{
			"GET /debug/v1/cluster", `{"members":[{"id":"a"}]}`,
			func() error { return fails(cluster.Members(ctx)) },
		},
		{
			"GET " + members, `{"members":[{"id":"a"}],"current":true}`,
			func() error { return fails(cluster.CurrentMembers(ctx)) },
		},
		{
			"POST " + members + ` {"id":"a","raft_addr":"h:1"}`, `{"id":"a"}`,
			func() error {
				return fails(cluster.AddMember(ctx, neon.MemberAdd{ID: "a", RaftAddr: "h:1"}))
			},
		},
		{
			"DELETE " + members + "/a", "null",
			func() error { return cluster.RemoveMember(ctx, "a") },
		},
		{
			"POST " + members + `/a%2F/replace {"id":"b"}`, `{"id":"b"}`,
			func() error {
				return fails(cluster.ReplaceMember(ctx, "a/", neon.MemberAdd{ID: "b"}))
			},
		},
		{
			`PUT /control/v1/cluster/transfer {"to":"b"}`, "null",
			func() error { return cluster.Transfer(ctx, "b") },
		},
		{"GET /debug/v1/tenant", "[]", func() error { return fails(debug.Shards(ctx)) }},
		{"POST /debug/v1/reconcile_all", "3", func() error {
			left, err := debug.ReconcileAll(ctx)
			if left != 3 {
				t.Errorf("%d are left", left)
			}
			return err
		}},
		{
			"POST /debug/v1/consistency_check", "null",
			func() error { return debug.ConsistencyCheck(ctx) },
		},
		{
			`PUT /debug/v1/failpoints [{"name":"x","actions":"off"}]`, "null",
			func() error { return debug.SetFailpoint(ctx, "x", "off") },
		},
		{
			`POST /upcall/v1/validate {"tenants":[]}`, `{"tenants":[]}`,
			func() error {
				return fails(up.Validate(ctx, neon.ValidateRequest{}))
			},
		},
	})
	k.answer = `{"tenants":[]}`
	_, err := up.ReAttach(ctx, neon.ReAttachRequest{Node: 3})
	if !strings.HasPrefix(k.asked, `POST /upcall/v1/re-attach {"node_id":3`) || err != nil {
		t.Errorf("%s, %v", k.asked, err)
	}
	k.answer = "null"
	err = keepers.Register(ctx, neon.SafekeeperUpsert{ID: 3})
	if !strings.HasPrefix(k.asked, "POST "+keeper+`/3 {"id":3,`) || err != nil {
		t.Errorf("%s, %v", k.asked, err)
	}
}

func TestRefusalIsAStatusErrorWithTheControllersText(t *testing.T) {
	k := newController(t)
	for answer, msg := range map[string]string{
		`{"msg":"Node 3 not registered"}`: "Node 3 not registered",
		"<html>":                          "<html>",
		strings.Repeat("x", 999):          strings.Repeat("x", 200),
	} {
		k.status, k.answer = http.StatusNotFound, answer
		_, err := k.Nodes().Get(t.Context(), 3)
		var s *client.StatusError
		if !errors.As(err, &s) || s.Msg != msg || client.StatusOf(err) != http.StatusNotFound {
			t.Errorf("%s: %v", answer, err)
		}
	}
	k.status, k.answer = http.StatusOK, "no JSON"
	if _, err := k.Nodes().Get(t.Context(), 3); err == nil || client.StatusOf(err) != 0 {
		t.Errorf("garbage: %v", err)
	}
}

func TestTriesOfOneCallHaveOneIDAndGoFromReplicaToReplica(t *testing.T) {
	var ids, keys []string
	refuse := true
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ids = append(ids, r.Header.Get("X-Request-Id"))
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		if refuse {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	a, b := httptest.NewServer(h), httptest.NewServer(h)
	t.Cleanup(a.Close)
	t.Cleanup(b.Close)
	hosts := client.At(a.URL, b.URL)
	if hosts(0) != a.URL || hosts(1) != b.URL || hosts(2) != a.URL {
		t.Error("the addresses do not take turns")
	}
	var tries []int
	c := client.New(client.Options{Address: hosts, Retry: func(f client.Failure) (
		time.Duration, bool,
	) {
		tries = append(tries, f.Tries)
		refuse = f.Tries < 3
		return 0, client.StatusOf(f.Err) == http.StatusServiceUnavailable
	}})
	defer c.Close()
	if err := c.Cluster().StepDown(t.Context()); err != nil || fmt.Sprint(tries) != "[1 2 3]" {
		t.Errorf("tries %v, %v", tries, err)
	}
	if err := c.Cluster().StepDown(t.Context()); err != nil {
		t.Error(err)
	}
	for name, got := range map[string][]string{"request ids": ids, "keys": keys} {
		if len(got) != 5 || got[0] == "" || got[0] != got[3] || got[4] == got[0] {
			t.Errorf("%s %q", name, got)
		}
	}
	ctx := client.WithIdempotencyKey(client.WithRequestID(t.Context(), "trace"), "mine")
	_, _ = c.Nodes().List(ctx)
	if err := c.Cluster().StepDown(ctx); err != nil || ids[6] != "trace" || keys[6] != "mine" ||
		ids[5] != "trace" || keys[5] != "" {
		t.Errorf("request ids %q, keys %q, %v", ids, keys, err)
	}
}

func TestRetryWaitsAsTheControllerAsks(t *testing.T) {
	refused := &client.StatusError{Status: http.StatusServiceUnavailable}
	asks := &client.StatusError{Status: 503, RetryAfter: 3 * time.Second}
	for name, c := range map[string]struct {
		tries int
		err   error
		pause time.Duration
		again bool
	}{
		"first":     {1, errors.New("no route"), 10 * time.Millisecond, true},
		"third":     {3, refused, 40 * time.Millisecond, true},
		"late":      {500, refused, time.Second, true},
		"asked for": {1, asks, 3 * time.Second, true},
		"conflict":  {1, &client.StatusError{Status: http.StatusConflict}, 0, false},
	} {
		pause, again := client.RetryUnavailable(client.Failure{Tries: c.tries, Err: c.err})
		if pause != c.pause || again != c.again {
			t.Errorf("%s: %s, %t", name, pause, again)
		}
	}
}

// transport answers without a network, so that time may be virtual.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRetryEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := client.New(client.Options{
			Address: client.At("http://controller"), Retry: client.RetryUnavailable,
			Transport: transport(func(*http.Request) (*http.Response, error) {
				return &http.Response{
					StatusCode: 503, Header: http.Header{"Retry-After": {"2"}}, Body: http.NoBody,
				}, nil
			}),
		})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		begun := time.Now()
		err := c.Cluster().Ready(ctx)
		if client.StatusOf(err) != 503 || !errors.Is(err, context.DeadlineExceeded) ||
			time.Since(begun) != 5*time.Second {
			t.Errorf("after %s: %v", time.Since(begun), err)
		}
	})
}

func TestTryTimeoutBoundsOneTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := client.New(client.Options{
			Address: client.At("http://controller"),
			Transport: transport(func(r *http.Request) (*http.Response, error) {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}),
		})
		begun := time.Now()
		err := c.WithTryTimeout(time.Second).Cluster().Ready(t.Context())
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != time.Second {
			t.Errorf("after %s: %v", time.Since(begun), err)
		}
	})
}

func TestRedirectsAreFollowedOnlyOnRequest(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/control/v1/step_down" {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
			return
		}
		if r.Method != http.MethodPut || r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("redirected: %s %v", r.Method, r.Header)
		}
	}))
	t.Cleanup(server.Close)
	opts := client.Options{Address: client.At(server.URL), Token: "secret"}
	err := client.New(opts).Cluster().StepDown(t.Context())
	if client.StatusOf(err) != http.StatusTemporaryRedirect {
		t.Errorf("error %v", err)
	}
	opts.FollowRedirects = true
	if err := client.New(opts).Cluster().StepDown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAllTenantsAreListedPageByPage(t *testing.T) {
	pages := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		one := func(id string) { fmt.Fprintf(w, `[{"tenant_id":"%s"}]`, id) }
		switch after := r.FormValue("start_after"); {
		case after == "" || !pages:
			one(timelineText)
		case after == timelineText:
			one("f" + tenantText[1:])
		default:
			_, _ = io.WriteString(w, "[]")
		}
	}))
	t.Cleanup(server.Close)
	c := client.New(client.Options{Address: client.At(server.URL)})
	list := func() (n int, err error) {
		for _, err := range c.Tenants().All(t.Context(), 1) {
			if err != nil {
				return n, err
			}
			n++
		}
		return n, nil
	}
	if n, err := list(); n != 2 || err != nil {
		t.Errorf("%d tenants, %v", n, err)
	}
	pages = false
	if n, err := list(); n != 1 || err == nil {
		t.Errorf("without pages: %d tenants, %v", n, err)
	}
}
