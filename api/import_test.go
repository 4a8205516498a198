package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/contract"
	"quorate/internal/controller"
)

// heard is a control plane that hears how imports end.
type heard struct {
	mu  sync.Mutex
	err error
	all []neon.ImportComplete
}

func (h *heard) ImportComplete(_ context.Context, body neon.ImportComplete) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.all = append(h.all, body)
	}
	return h.err
}

func (h *heard) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
}

// drive does the leader's work on timelines until the condition holds.
func drive(t *testing.T, r *replica, done func(*fsm.State) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	wg.Go(func() { r.imports.Run(ctx) })
	wg.Go(func() { r.options.TimelineDeletions.Run(ctx) })
	for !done(r.State()) {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			t.Fatal("it never comes to that")
		}
	}
}

func timelineID(t testing.TB, s string) neon.TimelineID {
	id, err := neon.ParseTimelineID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

const importBody = `{"new_timeline_id":"` + timelineX +
	`","import_pgdata":{"location":{"LocalFs":{"path":"/x"}},"idempotency_key":"x"}}`

func TestImportIsReportedAndEnds(t *testing.T) {
	hook := &heard{err: fmt.Errorf("not now")}
	w := newWorld(t, setup{
		hook: hook, options: controller.Options{OntoSafekeepers: true}, perTimeline: 1,
	})
	shards := sharded(t, w)
	w.must(fsm.UpsertSafekeeper{ID: 1, Host: "sk", Port: 1, HTTPPort: 2, AZ: neon.MakeAZ("a")})
	w.must(fsm.SetSafekeeperScheduling{Safekeeper: 1, To: neon.SafekeeperActive})
	var tries atomic.Int32
	w.calls.answer = func(_ neon.NodeID, s neon.ShardID, call neon.ShardCall) (int, []byte, error) {
		if tries.Add(1) == 1 {
			return 503, nil, &statusError{503, "Import task still running"}
		}
		lsn := "0/1"
		if s.Number == 0 {
			lsn = "0/1500008"
		}
		return http.StatusOK, []byte(`{"timeline_id":"` + timelineX + `","last_record_lsn":"` +
			lsn + `","pg_version":16}`), nil
	}
	r := w.replicas[0]
	status := "/upcall/v1/timeline_import_status"
	about := func(shard neon.ShardID, gen int, rest string) string {
		return fmt.Sprintf(`{"tenant_shard_id":"%s","timeline_id":"%s","generation":%d%s}`, shard,
			timelineX, gen, rest)
	}
	report := func(text string) string { return `,"status":` + text }
	ref := tenantA + "/" + timelineX
	stranger := shards[0]
	stranger.Tenant[0]++
	play(t, r, []step{
		{
			"GET", status, about(shards[0], 1, ""), 404,
			`{"msg":"NotFound: import for ` + ref + ` not found"}`,
		},
		{
			"POST", status, about(shards[0], 1, report(`"Done"`)), 404,
			`{"msg":"NotFound: Import for ` + ref + ` not found"}`,
		},
		{"POST", "/v1/tenant/" + tenantA + "/timeline", importBody, 201,
			`{"timeline_id":"` + timelineX +
				`","last_record_lsn":"0/10","ancestor_lsn":"0/8","pg_version":16,"x":[1,2],"safekeepers":null}`},
		{"POST", "/v1/tenant/" + tenantA + "/timeline", importBody, 201,
			`{"timeline_id":"` + timelineX +
				`","last_record_lsn":"0/10","ancestor_lsn":"0/8","pg_version":16,"x":[1,2],"safekeepers":null}`},
		{"GET", status, about(shards[0], 1, ""), 200, `{"InProgress":null}`},
		{"GET", status, about(shards[0], 7, ""), 400, `{"msg":"\"Invalid generation\""}`},
		{
			"GET", status, about(stranger, 1, ""), 500,
			`{"msg":"` + stranger.String() + ` shard not found"}`,
		},
		{"GET", status, "", 400, `{"msg":"\"missing request body\""}`},
		{
			"POST", status, about(shards[0], 7, report(`"Done"`)), 412,
			`{"msg":"Precondition failed: Invalid generation"}`,
		},
		{"POST", status, about(shards[0], 1, report(
			`{"InProgress":{"V1":{"jobs":2,"completed":1,"import_plan_hash":3,"job_soft_size_limit":4}}}`)),
			200, `null`},
		{
			"GET", status, about(shards[0], 1, ""), 200,
			`{"InProgress":{"V1":{"jobs":2,"completed":1,"import_plan_hash":3,"job_soft_size_limit":4}}}`,
		},
		{"POST", status, about(shards[0], 1, report(`"Done"`)), 200, `null`},
		{"POST", status, about(shards[0], 1, report(`"Done"`)), 200, `null`},
		{
			"POST", status, about(shards[0], 1, report(`{"Error":"late"}`)), 500,
			`{"msg":"Update request is unexpected"}`,
		},
		{"GET", status, about(shards[1], 1, ""), 200, `{"InProgress":null}`},
		{"POST", status, about(shards[1], 1, report(`"Done"`)), 200, `null`},
	})
	if g := r.do("GET", "/control/v1/tenant/"+tenantA,
		""); strings.Count(g.body, `"is_importing":true`) != 2 {
		t.Errorf("described as %s", g.body)
	}
	if g := r.do("GET", "/debug/v1/tenant",
		""); strings.Count(g.body, `"importing":"Importing"`) != 2 {
		t.Errorf("dumped as %s", g.body)
	}
	drive(t, r, func(s *fsm.State) bool {
		tl, ok := s.Timeline(tenantID(t, tenantA), timelineID(t, timelineX))
		return ok && tl.StartLsn == 0x1500008
	})
	hook.fail(nil)
	drive(t, r, func(s *fsm.State) bool { return !s.Importing(tenantID(t, tenantA)) })
	if len(hook.all) != 1 || hook.all[0].Error != nil {
		t.Errorf("the control plane heard %+v", hook.all)
	}
	for _, c := range w.calls.calls() {
		if strings.Contains(c, "activate") &&
			!strings.Contains(c, "/activate_post_import?timeline_activate_timeout_ms=128 on") {
			t.Error(c)
		}
	}
	// A repeated creation does not begin it again.
	r.do("POST", "/v1/tenant/"+tenantA+"/timeline", importBody)
	if w.log.State().Importing(tenantID(t, tenantA)) {
		t.Error("a finished import has begun again")
	}
}

func TestContractFailedImportIsAnnouncedWithItsErrors(t *testing.T) {
	hook, points := &heard{}, &onePoint{}
	w := newWorld(t, setup{hook: hook, points: points})
	shards := sharded(t, w)
	r := w.replicas[0]
	r.do("POST", "/v1/tenant/"+tenantA+"/timeline", importBody)
	for i, text := range []string{`"Done"`, `{"Error":"no bucket"}`} {
		r.do("POST", "/upcall/v1/timeline_import_status", fmt.Sprintf(
			`{"tenant_shard_id":"%s","timeline_id":"%s","generation":1,"status":%s}`, shards[i],
			timelineX, text)).want(t, 200, "null")
	}
	drive(t, r, func(s *fsm.State) bool { return !s.Importing(tenantID(t, tenantA)) })
	if len(hook.all) != 1 || hook.all[0].Error == nil ||
		*hook.all[0].Error != `{"0102":"no bucket"}` {
		t.Errorf("the control plane heard %+v", hook.all)
	}
	if slices.ContainsFunc(w.calls.calls(),
		func(c string) bool { return strings.Contains(c, "activate") }) {
		t.Error("a timeline that was not imported was activated")
	}
	for _, name := range []string{
		"tenant-create-timeline-shared-lock", "timeline-import-pre-cplane-notification",
	} {
		if !slices.Contains(points.passed, name) {
			t.Errorf("%s was not passed, but %v", name, points.passed)
		}
		contract.Find(contract.Failpoint, name).Tick(t)
	}
}

// A deletion ends an import wherever it is, and its end is not reported afterwards.
func TestDeletionEndsAnImport(t *testing.T) {
	hook := &heard{err: fmt.Errorf("not now")}
	w := newWorld(t, setup{hook: hook})
	shards := sharded(t, w)
	w.calls.answer = func(neon.NodeID, neon.ShardID, neon.ShardCall) (int, []byte, error) {
		return http.StatusOK, []byte(
			`{"timeline_id":"` + timelineX + `","last_record_lsn":"0/1","pg_version":16}`), nil
	}
	r := w.replicas[0]
	r.do("POST", "/v1/tenant/"+tenantA+"/timeline", importBody)
	for _, s := range shards {
		r.do("POST", "/upcall/v1/timeline_import_status", fmt.Sprintf(
			`{"tenant_shard_id":"%s","timeline_id":"%s","generation":1,"status":"Done"}`, s,
			timelineX))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.imports.Run(ctx) })
	wg.Go(func() { r.options.TimelineDeletions.Run(ctx) })
	r.do("DELETE", "/v1/tenant/"+tenantA+"/timeline/"+timelineX, "").want(t, 200, `null`)
	hook.fail(nil)
	r.do("GET", "/upcall/v1/timeline_import_status", fmt.Sprintf(
		`{"tenant_shard_id":"%s","timeline_id":"%s","generation":1}`, shards[0], timelineX)).
		want(t, 404, `{"msg":"NotFound: import for `+tenantA+`/`+timelineX+` not found"}`)
	cancel()
	wg.Wait()
	if len(hook.all) > 0 {
		t.Errorf("the control plane heard %+v", hook.all)
	}
}

// A deletion that was recorded is finished by the leader without a request, one
// that all pageservers refuse is taken back.
func TestDeletionOfATimelineIsFinishedOrTakenBack(t *testing.T) {
	w := newWorld(t, setup{replicas: 2})
	sharded(t, w)
	path, ref := "/v1/tenant/"+tenantA+"/timeline", neon.TimelineRef{
		Tenant: tenantID(t, tenantA), Timeline: timelineID(t, timelineX),
	}
	recorded := func() bool { _, ok := w.log.State().TimelineDelete(ref); return ok }
	w.calls.remove = func(
		neon.NodeID, neon.ShardID,
	) (int, error) {
		return 0, &statusError{412, "has children"}
	}
	w.replicas[0].do("DELETE", path+"/"+timelineX, "").want(t, 500, `{"msg":"has children"}`)
	if recorded() {
		t.Error("a refused deletion is recorded")
	}
	w.calls.remove = func(_ neon.NodeID, s neon.ShardID) (int, error) {
		if s.Number == 0 {
			return 0, &statusError{503, "later"}
		}
		return http.StatusNotFound, nil
	}
	w.replicas[0].do("DELETE", path+"/"+timelineX, "").want(t, 503, `{"msg":"later"}`)
	if !recorded() {
		t.Error("a deletion that was begun is not recorded")
	}
	play(t, w.replicas[0], []step{
		{
			"POST", path, `{"new_timeline_id":"` + timelineX + `"}`, 409,
			`{"msg":"Conflict: timeline ` + ref.String() + ` is being deleted"}`,
		},
		{
			"POST", path,
			`{"new_timeline_id":"` + tenantB + `","ancestor_timeline_id":"` + timelineX + `"}`, 409,
			`{"msg":"Conflict: timeline ` + ref.String() + ` is being deleted"}`,
		},
	})
	w.calls.remove = nil
	w.setLeader(1)
	drive(t, w.replicas[1], func(*fsm.State) bool { return !recorded() })
}
