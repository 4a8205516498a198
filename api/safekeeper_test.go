package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"quorate/api/auth"
	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/controller"
	"quorate/internal/safekeeping"
)

// The rows of the tables of all routes that are about safekeepers.
func init() {
	maps.Copy(bodies, map[string]string{
		"POST /control/v1/safekeeper/:safekeeper_id":                          `{"id":98,"region_id":"r","version":5957,"host":"sk","port":1,"http_port":2,"https_port":3,"availability_zone_id":"z","active":true}`,
		"POST /control/v1/safekeeper/:safekeeper_id/scheduling_policy":        `{"scheduling_policy":"Pause"}`,
		"POST /v1/tenant/:tenant_id/timeline/:timeline_id/safekeeper_migrate": `{"new_sk_set":[1,2,4]}`,
		"POST /debug/v1/tenant/:tenant_id/timeline/:timeline_id/import": `{"tenant_id":"` +
			tenantA +
			`","timeline_id":"` + timelineX +
			`","start_lsn":"0/8","sk_set":[1],"force_upsert":true}`,
	})
	wantScopes[auth.PageserverAPI] = append(wantScopes[auth.PageserverAPI],
		"POST /v1/tenant/:tenant_id/timeline/:timeline_id/safekeeper_migrate",
		"POST /v1/tenant/:tenant_id/timeline/:timeline_id/safekeeper_migrate_abort",
		"POST /debug/v1/tenant/:tenant_id/timeline/:timeline_id/import")
	wantScopes[auth.Infra] = append(wantScopes[auth.Infra],
		"GET /control/v1/safekeeper", "GET /control/v1/safekeeper/:safekeeper_id",
		"POST /control/v1/safekeeper/:safekeeper_id")
	wantScopes[auth.Admin] = append(wantScopes[auth.Admin],
		"POST /control/v1/safekeeper/:safekeeper_id/scheduling_policy",
		"PUT /control/v1/safekeeper/:safekeeper_id/gone",
		"GET /debug/v1/tenant/:tenant_id/timeline/:timeline_id/locate")
}

var safekeeperReady = []string{
	"GET /debug/v1/tenant/:tenant_id/timeline/:timeline_id/locate",
	"POST /v1/tenant/:tenant_id/timeline/:timeline_id/safekeeper_migrate",
	"POST /v1/tenant/:tenant_id/timeline/:timeline_id/safekeeper_migrate_abort",
}

// fakeSafekeepers answers as told, and success when not told.
type fakeSafekeepers struct {
	mu   sync.Mutex
	log  []string
	down map[neon.NodeID]bool
	load map[neon.NodeID]safekeeping.Load
	at   map[neon.NodeID]neon.Lsn // how far logs reach
}

func (f *fakeSafekeepers) note(id neon.NodeID, format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down[id] {
		return errors.New("down")
	}
	f.log = append(f.log, fmt.Sprintf(format, args...))
	return nil
}

func (f *fakeSafekeepers) took() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.Sort(f.log)
	out := f.log
	f.log = nil
	return out
}

func (f *fakeSafekeepers) BaseURL(sk *fsm.Safekeeper) string {
	return fmt.Sprintf("http://%s:%d", sk.Host, sk.HTTPPort)
}

func (f *fakeSafekeepers) CreateTimeline(
	_ context.Context, sk *fsm.Safekeeper, body neon.SafekeeperTimelineCreate,
) error {
	return f.note(sk.ID, "create on %d: %s version %d at %s generation %d of %d", sk.ID,
		body.Timeline, body.PgVersion, body.StartLsn, body.Membership.Generation,
		len(body.Membership.Members))
}

func (f *fakeSafekeepers) PullTimeline(
	_ context.Context, sk *fsm.Safekeeper, body neon.PullTimelineRequest,
) (neon.PullTimelineResponse, error) {
	return neon.PullTimelineResponse{}, f.note(sk.ID, "pull on %d from %v generation %d", sk.ID,
		body.HTTPHosts, body.Membership.Generation)
}

func (f *fakeSafekeepers) SwitchMembership(
	_ context.Context, sk *fsm.Safekeeper, _ neon.TimelineRef, conf neon.Membership,
) (neon.MembershipSwitched, error) {
	f.mu.Lock()
	at := f.at[sk.ID]
	f.mu.Unlock()
	return neon.MembershipSwitched{
		Current: conf, LastLogTerm: 1, FlushLsn: at,
	}, f.note(sk.ID, "switch %d to generation %d", sk.ID, conf.Generation)
}

func (f *fakeSafekeepers) ExcludeTimeline(
	_ context.Context, sk *fsm.Safekeeper, _ neon.TimelineRef, conf neon.Membership,
) error {
	return f.note(sk.ID, "exclude %d by generation %d", sk.ID, conf.Generation)
}

func (f *fakeSafekeepers) NotifySafekeepers(_ context.Context, n neon.NotifySafekeepers) error {
	var ids []neon.NodeID
	for _, k := range n.Safekeepers {
		ids = append(ids, k.ID)
	}
	return f.note(0, "notify %v generation %d", ids, n.Generation)
}

func (f *fakeSafekeepers) Loads() map[neon.NodeID]safekeeping.Load { return f.load }

func upsert(id int) string {
	return fmt.Sprintf(
		`{"id":%d,"created_at":"2023-10-25T09:11:25Z","updated_at":"2023-10-25T09:11:25Z","region_id":"aws-us-east-2","host":"sk%d","port":5454,"http_port":7676,"version":5957,"availability_zone_id":"az-%d"`,
		id, id, id)
}

func (w *world) addSafekeepers(n int) {
	w.t.Helper()
	for i := 1; i <= n; i++ {
		w.must(fsm.UpsertSafekeeper{
			ID: neon.NodeID(i), Host: fmt.Sprintf("sk%d", i), Port: 5454, HTTPPort: 7676,
			AZ: neon.MakeAZ(fmt.Sprintf("az-%d", i)),
		})
		w.must(fsm.SetSafekeeperScheduling{Safekeeper: neon.NodeID(i), To: neon.SafekeeperActive})
	}
}

func TestSafekeepersAreRegisteredDescribedAndConfigured(t *testing.T) {
	w := newWorld(t, setup{})
	r := w.replicas[0]
	const path = "/control/v1/safekeeper"
	sk := func(https, policy string) string {
		return `{"id":1,"region_id":"aws-us-east-2","version":5957,"host":"sk1","port":5454,"http_port":7676,"https_port":` +
			https +
			`,"availability_zone_id":"az-1","scheduling_policy":"` + policy + `"}`
	}
	play(t, r, []step{
		{"GET", path, "", 200, `[]`},
		{"GET", path + "/1", "", 404, `{"msg":"NotFound: unknown instance id"}`},
		{"POST", path + "/2", upsert(1) + `}`, 400, `{"msg":"\"id mismatch: url=2, body=1\""}`},
		{
			"POST", path + "/0", upsert(0) + `}`, 400,
			`{"msg":"\"id not allowed to be zero or negative: 0\""}`,
		},
		{
			"POST", path + "/1", strings.Replace(upsert(1), "5957", "-1", 1) + `}`, 500,
			`{"msg":"negative version: -1"}`,
		},
		{
			"POST", path + "/1/scheduling_policy", `{"scheduling_policy":"Active"}`, 500,
			`{"msg":"unexpected number of rows (0)"}`,
		},
		{"POST", path + "/1", upsert(1) + `,"https_port":7677,"active":true}`, 204, ``},
		{"GET", path + "/1", "", 200, sk("7677", "Activating")},
		{"POST", path + "/1/scheduling_policy", `{"scheduling_policy":"Pause"}`, 200, `null`},
		{"POST", path + "/1", upsert(1) + `,"https_port":null}`, 204, ``},
		{"GET", path, "", 200, `[` + sk("null", "Pause") + `]`}, // the way back from https
	})
	secure := newWorld(t, setup{options: controller.Options{UseHTTPSSafekeepers: true}})
	secure.replicas[0].do("POST", path+"/1", upsert(1)+`}`).want(t, 412,
		`{"msg":"Precondition failed: cannot upsert safekeeper 1: https is enabled, but https port is not specified"}`)
}

// One that is gone for good does not come back, and is waited for no more.
func TestASafekeeperThatIsGoneIsSettled(t *testing.T) {
	w := newWorld(t, setup{})
	r := w.replicas[0]
	w.addSafekeepers(2)
	const path = "/control/v1/safekeeper/1"
	r.do("PUT", path+"/gone", "").want(t, 412,
		`{"msg":"Precondition failed: SettleSafekeeper needs feature level 2 and the cluster is at 1: `+
			`all its members must run a version that knows it"}`)
	w.log.Upgrade(t)
	again := `{"msg":"Conflict: safekeeper 1 is gone for good: register it under another id"}`
	play(t, r, []step{
		{"PUT", "/control/v1/safekeeper/9/gone", "", 404, `{"msg":"NotFound: unknown instance id"}`},
		{
			"PUT", path + "/gone", "", 412,
			`{"msg":"Precondition failed: safekeeper 1 is Active and not decomissioned"}`,
		},
		{
			"POST", path + "/scheduling_policy", `{"scheduling_policy":"Decomissioned"}`, 200,
			`null`,
		},
		{"PUT", path + "/gone", "", 200, `null`},
		{"PUT", path + "/gone", "", 200, `null`},
		{"POST", path, upsert(1) + `}`, 409, again},
		{"POST", path + "/scheduling_policy", `{"scheduling_policy":"Active"}`, 409, again},
	})
	if g := r.do("GET", path, ""); !strings.Contains(g.body, `"gone":true`) {
		t.Errorf("it is described as %s", g.body)
	}
	if g := r.do("GET", "/control/v1/safekeeper/2", ""); strings.Contains(g.body, "gone") {
		t.Errorf("another one is described as %s", g.body)
	}
}

func TestTimelinesArePutOntoSafekeepers(t *testing.T) {
	w := newWorld(t,
		setup{options: controller.Options{OntoSafekeepers: true}, perTimeline: 3})
	r := w.replicas[0]
	w.addNodes(1)
	r.do("POST", "/v1/tenant", `{"new_tenant_id":"`+tenantA+`"}`)
	w.attach(tenantID(t, tenantA))
	const path = "/v1/tenant/" + tenantA + "/timeline"
	body := `{"new_timeline_id":"` + timelineX + `","pg_version":16}`
	w.addSafekeepers(2)
	r.do("POST", path, body).want(t, 500,
		`{"msg":"couldn't find 3 safekeepers in different AZs for new timeline (found: 2, total active: 2)"}`)

	w.addSafekeepers(4)
	w.keepers.load = map[neon.NodeID]safekeeping.Load{
		1: {Available: true, Timelines: 5}, 2: {Available: true, Timelines: 1},
		4: {Available: true},
	}
	want := `{"timeline_id":"` + timelineX +
		`","last_record_lsn":"0/10","ancestor_lsn":"0/8","pg_version":16,"x":[1,2],"safekeepers":{"tenant_id":"` +
		tenantA +
		`","timeline_id":"` + timelineX +
		`","generation":1,"safekeepers":[{"id":4,"hostname":"sk4"},{"id":2,"hostname":"sk2"},{"id":1,"hostname":"sk1"}]}}`
	w.keepers.down = map[neon.NodeID]bool{2: true}
	r.do("POST", path, body).want(t, http.StatusCreated, want)
	calls := func(ids ...int) (all []string) {
		for _, id := range ids {
			all = append(all, fmt.Sprintf(
				"create on %d: %s version 160000 at 0/10 generation 1 of 3", id, timelineX))
		}
		return all
	}
	if got := w.keepers.took(); !slices.Equal(got, calls(1, 4)) {
		t.Errorf("called %q", got)
	}
	tl, _ := neon.ParseTimelineID(timelineX)
	if op, ok := r.State().SafekeeperOp(2, tenantID(t, tenantA), tl); !ok || op.Kind != fsm.OpPull {
		t.Errorf("the one that was down owes %+v", op)
	}
	if text := r.do("GET", "/metrics", "").body; !strings.Contains(text,
		`reconciles_queued{sk_az="az-2",sk_hostname="sk2",sk_node_id="2"} 1`) {
		t.Errorf("what it owes is not in the metrics: %s", text)
	}

	// Others would be chosen now; the first choice holds.
	w.keepers.load, w.keepers.down = nil, nil
	r.do("POST", path, body).want(t, http.StatusCreated, want)
	if got := w.keepers.took(); !slices.Equal(got, calls(1, 2, 4)) {
		t.Errorf("called %q", got)
	}

	w.keepers.down = map[neon.NodeID]bool{1: true, 3: true}
	other := strings.Replace(body, timelineX, tenantB, 1)
	r.do("POST", path, other).want(t, 500,
		`{"msg":"not enough successful reconciliations to reach quorum size: 1 of 2 of total 3"}`)
	readOnly := `{"new_timeline_id":"` + tenantA + `","ancestor_timeline_id":"` + timelineX +
		`","read_only":true}`
	if g := r.do("POST", path, readOnly); g.status != http.StatusCreated ||
		!strings.HasSuffix(g.body, `"generation":1,"safekeepers":[]}}`) {
		t.Errorf("read-only: %d %s", g.status, g.body)
	}
}

// What the pageservers refused to delete stays on the safekeepers, and so does what
// they have not finished deleting.
func TestSafekeepersDeleteAfterPageservers(t *testing.T) {
	w := newWorld(t,
		setup{options: controller.Options{OntoSafekeepers: true}, perTimeline: 1})
	r := w.replicas[0]
	w.addNodes(1)
	w.addSafekeepers(1)
	r.do("POST", "/v1/tenant", `{"new_tenant_id":"`+tenantA+`"}`)
	w.attach(tenantID(t, tenantA))
	path := "/v1/tenant/" + tenantA + "/timeline"
	r.do("POST", path, `{"new_timeline_id":"`+timelineX+`","pg_version":16}`)
	tl, _ := neon.ParseTimelineID(timelineX)
	answers := []int{http.StatusAccepted, http.StatusNotFound}
	w.calls.remove = func(neon.NodeID, neon.ShardID) (int, error) {
		if got, _ := r.State().Timeline(tenantID(t, tenantA), tl); got.Deleted {
			t.Error("deleted on safekeepers before the pageserver was done")
		}
		status := answers[0]
		answers = answers[1:]
		return status, nil
	}
	r.do("DELETE", path+"/"+timelineX, "").want(t, 200, `null`)
	if op, ok := r.State().SafekeeperOp(1, tenantID(t, tenantA), tl); !ok ||
		op.Kind != fsm.OpDelete {
		t.Errorf("the safekeeper owes %+v", op)
	}
	r.do("POST", path, `{"new_timeline_id":"`+timelineX+`","pg_version":16}`).want(t, 409,
		`{"msg":"Conflict: timeline `+tenantA+`/`+timelineX+` is being deleted"}`)
}

// The order of a migration is what makes it safe: see Timelines.advance.
func TestSafekeeperMigration(t *testing.T) {
	w := newWorld(t,
		setup{options: controller.Options{OntoSafekeepers: true}, perTimeline: 2})
	r := w.replicas[0]
	w.addNodes(1)
	w.addSafekeepers(2)
	r.do("POST", "/v1/tenant", `{"new_tenant_id":"`+tenantA+`"}`)
	w.attach(tenantID(t, tenantA))
	r.do("POST", "/v1/tenant/"+tenantA+"/timeline",
		`{"new_timeline_id":"`+timelineX+`","pg_version":16}`)
	w.addSafekeepers(4)
	w.must(fsm.SetSafekeeperScheduling{Safekeeper: 4, To: neon.SafekeeperDecomissioned})
	w.keepers.took()
	path := "/v1/tenant/" + tenantA + "/timeline/" + timelineX + "/safekeeper_migrate"
	locate := "/debug/v1/tenant/" + tenantA + "/timeline/" + timelineX + "/locate"
	play(t, r, []step{
		{"GET", locate, "", 200, `{"generation":1,"sk_set":[1,2],"new_sk_set":null}`},
		{
			"GET", strings.Replace(locate, timelineX, tenantB, 1), "", 404,
			`{"msg":"NotFound: Timeline ` + tenantA + `/` + tenantB + ` not found"}`,
		},
		{"POST", path, `{"new_sk_set":[9]}`, 400, `{"msg":"\"safekeeper 9 does not exist\""}`},
		{"POST", path, `{"new_sk_set":[]}`, 400, `{"msg":"\"new safekeeper set is empty\""}`},
		{
			"POST", path, `{"new_sk_set":[1]}`, 400,
			`{"msg":"\"new safekeeper set must have at least 2 safekeepers\""}`,
		},
		{
			"POST", path, `{"new_sk_set":[1,1]}`, 400,
			`{"msg":"\"duplicate safekeeper id in the set [1, 1]\""}`,
		},
		{"POST", path, `{"new_sk_set":[1,4]}`, 400, `{"msg":"\"safekeeper 4 is decomissioned\""}`},
		{
			"POST", strings.Replace(path, timelineX, tenantB, 1), `{"new_sk_set":[1,3]}`, 404,
			`{"msg":"NotFound: timeline ` + tenantA + `/` + tenantB +
				` doesn't exist in timelines table"}`,
		},
	})
	w.keepers.at = map[neon.NodeID]neon.Lsn{1: 0x20, 2: 0x10}
	r.do("POST", path, `{"new_sk_set":[2,3]}`).want(t, 500,
		`{"msg":"not enough successful reconciliations to reach quorum size: 0 of 2 of total 2"}`)
	play(t, r, []step{
		{"GET", locate, "", 200, `{"generation":2,"sk_set":[1,2],"new_sk_set":[2,3]}`},
		{
			"POST", path, `{"new_sk_set":[1,3]}`, 409,
			`{"msg":"Conflict: the timeline is already migrating to a different safekeeper set: [2, 3]"}`,
		},
		{"POST", path + "_abort", ``, 200, `null`},
		{"POST", path + "_abort", ``, 200, `null`},
		{"GET", locate, "", 200, `{"generation":3,"sk_set":[1,2],"new_sk_set":null}`},
	})
	w.keepers.took()
	w.keepers.at = map[neon.NodeID]neon.Lsn{1: 0x20, 2: 0x20, 3: 0x20}
	r.do("POST", path, `{"new_sk_set":[2,3]}`).want(t, 200, `null`)
	r.do("POST", path, `{"new_sk_set":[2,3]}`).want(t, 200, `null`)
	w.keepers.mu.Lock()
	order := strings.Join(w.keepers.log, "; ")
	w.keepers.mu.Unlock()
	at := -1
	for _, call := range []string{
		"notify [1 2 3] generation 4", "switch 1 to generation 4", "pull on 3",
		"switch 3 to generation 4", "switch 3 to generation 5", "exclude 1 by generation 5",
		"notify [2 3] generation 5",
	} {
		i := strings.Index(order, call)
		if i <= at {
			t.Fatalf("%q is not in its place in %s", call, order)
		}
		at = i
	}
	play(t, r, []step{
		{"GET", locate, "", 200, `{"generation":5,"sk_set":[2,3],"new_sk_set":null}`},
		{"POST", "/debug/v1/tenant/" + tenantA + "/timeline/" + tenantB + "/import",
			`{"tenant_id":"` + tenantA +
				`","timeline_id":"` + tenantB +
				`","start_lsn":"0/8","sk_set":[1],"force_upsert":false}`, 200, `null`},
		{
			"GET", strings.Replace(locate, timelineX, tenantB, 1), "", 200,
			`{"generation":1,"sk_set":[1],"new_sk_set":null}`,
		},
		{"POST", "/debug/v1/tenant/" + tenantA + "/timeline/" + tenantB + "/import",
			`{"tenant_id":"` + tenantB +
				`","timeline_id":"` + tenantB +
				`","start_lsn":"0/8","sk_set":[1],"force_upsert":false}`, 400,
			`{"msg":"\"tenant id or timeline id mismatch: url=` + tenantA + `/` + tenantB +
				`, body=` + tenantB + `/` + tenantB + `\""}`},
	})
	if n := r.State().SafekeeperOpCount(); n != 0 {
		t.Errorf("%d operations are owed", n)
	}
}
