package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

// onEach are the requests that reach the owners of all shards of tenantOne.
func onEach(timelines *Timelines) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"archive": func(ctx context.Context) error {
			return timelines.Archive(ctx, tenantOne, timelineOne,
				neon.ArchivalRequest{State: neon.Archived})
		},
		"detach": func(ctx context.Context) error {
			_, err := timelines.DetachAncestor(ctx, tenantOne, timelineOne, "")
			return err
		},
		"gc": func(ctx context.Context) error {
			return timelines.ChangeGC(ctx, tenantOne, timelineOne, neon.BlockGC)
		},
		"lease": func(ctx context.Context) error {
			return timelines.LeaseLSN(ctx, tenantOne, timelineOne, neon.LeaseRequest{Lsn: 0x20})
		},
		"describe": func(ctx context.Context) error {
			_, err := timelines.Describe(ctx, tenantOne, timelineOne)
			return err
		},
	}
}

func TestARequestReachesTheOwnersOfAllShards(t *testing.T) {
	path := "timeline/" + timelineOne.String()
	for name, want := range map[string]string{
		"archive":  "PUT " + path + `/archival_config {"state":"Archived"}`,
		"detach":   "PUT " + path + "/detach_ancestor",
		"gc":       "POST " + path + "/block_gc",
		"lease":    "POST " + path + `/lsn_lease {"lsn":"0/20"}`,
		"describe": "GET " + path + "?include-image-consistent-lsn=true",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 3)
			ids := w.tenant(tenantOne, 2)
			// The intent is elsewhere already, but the newest generation is not.
			w.log.Must(fsm.SetIntents{Intents: []fsm.Intent{
				{Shard: ids[1], Sequence: w.shard(ids[1]).Sequence, Attached: 3},
			}})
			w.calls.call = func(neon.NodeID, neon.ShardID, neon.ShardCall) (int, string, error) {
				return 200, fmt.Sprintf(
					`{"timeline_id":"%s","last_record_lsn":"0/10","pg_version":16,"reparented_timelines":[]}`,
					timelineOne), nil
			}
			timelines, _ := w.timelines()
			if err := onEach(timelines)[name](t.Context()); err != nil {
				t.Error(err)
			}
			equal(t, "calls", w.calls.took(), []string{
				"shard 0 on 1: " + want, "shard 1 on 2: " + want,
			})
		})
	}
}

func TestRequestsForAllShardsAreRefusedWithoutACall(t *testing.T) {
	for name := range onEach(nil) {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			timelines, _ := w.timelines()
			request := onEach(timelines)[name]
			w.refuses(neon.NotFound, "Tenant not found", request)
			w.detached(tenantOne)
			w.refuses(neon.Conflict, "tenant has policy Detached", request)
			w.unreadable(map[string]func(context.Context) error{name: request})
			if calls := w.calls.took(); len(calls) > 0 {
				t.Errorf("asked %q", calls)
			}
		})
	}
}

// The outcome counts only if the shards still have the same owners afterwards.
func TestAnOutcomeOfASupersededOwnerCountsForNothing(t *testing.T) {
	for name := range onEach(nil) {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2)
			w.tenant(tenantOne, 2)
			w.calls.call = func(
				n neon.NodeID, _ neon.ShardID, _ neon.ShardCall,
			) (int, string, error) {
				if n == 1 {
					w.log.Must(fsm.ReAttach{Node: 1})
				}
				return 200, "null", nil
			}
			timelines, _ := w.timelines()
			w.fails(neon.Unavailable, "Tenant attachment changed, please retry",
				onEach(timelines)[name])
		})
	}
}

// Clients go by these errors: some are final, others are tried again.
func TestErrorsOfShardsAreThoseOfTheOperation(t *testing.T) {
	answer := func(status int, msg string) error {
		return &statusError{status, neon.Conflict, msg}
	}
	missing := "NotFound: tenant " + tenantOne.String() + "-0102"
	for _, c := range []struct {
		request string
		err     error
		code    neon.Code
		text    string
	}{
		{"archive", answer(412, "has a child"), neon.PreconditionFailed, "has a child"},
		{"archive", answer(409, "other"), neon.Conflict, "other"},
		{"archive", neon.Errorf(neon.Unavailable, "gone"), neon.Unavailable, "gone"},
		{"detach", answer(409, "Conflict: no ancestor"), neon.Conflict, "2 (ps): no ancestor"},
		{"detach", answer(400, "too many"), neon.BadRequest, "2 (ps): too many"},
		{"detach", answer(500, "again"), neon.Internal, "2 (ps): again"},
		{"detach", answer(503, "busy"), neon.Conflict, "busy"},
		{"gc", answer(404, "none"), neon.Conflict, "none"},
		{
			"lease", answer(404, missing), neon.Unavailable,
			"Timeline is not attached to the pageserver 2 yet, please retry",
		},
		{"lease", answer(404, "NotFound: timeline"), neon.Conflict, "NotFound: timeline"},
		{"describe", answer(500, "broken"), neon.Unavailable, "broken"},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 3)
			w.tenant(tenantOne, 3)
			var asked [4]atomic.Int32
			w.calls.call = func(
				n neon.NodeID, _ neon.ShardID, _ neon.ShardCall,
			) (int, string, error) {
				asked[n].Add(1)
				if n == 2 {
					return 0, "", c.err
				}
				return 200, "null", nil
			}
			timelines, _ := w.timelines()
			w.fails(c.code, c.text, onEach(timelines)[c.request])
			// What some shards have begun is not given up because of another.
			for n, want := range map[int]int32{1: 1, 2: max(1, asked[2].Load()), 3: 1} {
				if got := asked[n].Load(); got != want {
					t.Errorf("%s: node %d was asked %d times", c.request, n, got)
				}
			}
		})
	}
}

func TestShardsHaveToAgreeOnADetachedAncestor(t *testing.T) {
	a, b := neon.TimelineID{0xa}, neon.TimelineID{0xb}
	body := func(ids ...neon.TimelineID) string {
		text := ""
		for i, id := range ids {
			if i > 0 {
				text += ","
			}
			text += `"` + id.String() + `"`
		}
		return `{"reparented_timelines":[` + text + `]}`
	}
	for name, c := range map[string]struct {
		bodies [3]string
		code   neon.Code // empty: no error
		text   string
	}{
		"in another order": {[3]string{body(b, a), body(a, b), body(b, a)}, "", ""},
		"one has fewer": {
			[3]string{body(a, b), body(a), body(a, b)}, neon.Internal,
			"pageservers returned mixed results for ancestor detach; manual intervention is required.",
		},
		"the last one has fewer": {
			[3]string{body(a, b), body(a, b), body(a)}, neon.Internal, "mixed results",
		},
		"one is cut off": {
			[3]string{body(a), `{"reparented`, body(a)}, neon.Internal,
			"2 (ps): error decoding body",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 3)
			w.tenant(tenantOne, 3)
			w.calls.call = func(
				n neon.NodeID, _ neon.ShardID, _ neon.ShardCall,
			) (int, string, error) {
				return 200, c.bodies[n-1], nil
			}
			timelines, _ := w.timelines()
			done, err := timelines.DetachAncestor(t.Context(), tenantOne, timelineOne,
				"no_ancestor_and_reparent")
			if c.code == "" {
				if err != nil {
					t.Fatal(err)
				}
				equal(t, "reparented", done.Reparented, []neon.TimelineID{a, b})
			} else {
				w.fails(c.code, c.text, func(context.Context) error { return err })
			}
			path := "PUT timeline/" + timelineOne.String() +
				"/detach_ancestor?detach_behavior=no_ancestor_and_reparent"
			if calls := w.calls.took(); len(calls) != 3 || calls[0] != "shard 0 on 1: "+path {
				t.Errorf("asked %q", calls)
			}
		})
	}
}

// Without a log, a timeline can be read up to the lowest LSN of all shards.
func TestADescriptionHasTheLowestImageConsistentLSN(t *testing.T) {
	describe := func(lsn string) string {
		if lsn != "" {
			lsn = `,"image_consistent_lsn":"` + lsn + `"`
		}
		return fmt.Sprintf(`{"timeline_id":"%s","last_record_lsn":"0/10","pg_version":16%s}`,
			timelineOne, lsn)
	}
	low := neon.Lsn(0x20)
	for name, c := range map[string]struct {
		lsns [3]string
		want *neon.Lsn
	}{
		"all know theirs":       {[3]string{"0/30", "0/20", "0/40"}, &low},
		"the last is lowest":    {[3]string{"0/30", "0/40", "0/20"}, &low},
		"the first has none":    {[3]string{"", "0/20", "0/40"}, nil},
		"the last has none":     {[3]string{"0/20", "0/30", ""}, nil},
		"only one has any":      {[3]string{"", "0/20", ""}, nil},
		"none of them has some": {[3]string{"", "", ""}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 3)
			w.tenant(tenantOne, 3)
			w.calls.call = func(
				n neon.NodeID, _ neon.ShardID, _ neon.ShardCall,
			) (int, string, error) {
				return 200, describe(c.lsns[n-1]), nil
			}
			timelines, _ := w.timelines()
			d, err := timelines.Describe(t.Context(), tenantOne, timelineOne)
			if err != nil || len(d.Shards) != 3 || d.Shards[0].Timeline != timelineOne {
				t.Fatalf("%+v, %v", d, err)
			}
			if got := d.ImageConsistentLsn; (got == nil) != (c.want == nil) ||
				got != nil && *got != *c.want {
				t.Errorf("it can be read up to %v, want %v", got, c.want)
			}
		})
	}
	w := newWorld(t, 1)
	w.tenant(tenantOne, 1)
	w.calls.call = func(neon.NodeID, neon.ShardID, neon.ShardCall) (int, string, error) {
		return 200, `{"timeline_id":`, nil
	}
	timelines, _ := w.timelines()
	w.fails(neon.Unavailable, "1 (ps): error decoding body", onEach(timelines)["describe"])
}

// Heatmap downloads are advice. Shards that are not attached anywhere are left out.
func TestHeatmapLayersAreFetchedWhereAShardIsAttached(t *testing.T) {
	w := newWorld(t, 3)
	ids := w.tenant(tenantOne, 3)
	w.log.Must(fsm.DeleteNode{Node: 3})
	timelines, _ := w.timelines()
	failed := errors.New("failed")
	w.calls.call = func(neon.NodeID, neon.ShardID, neon.ShardCall) (int, string, error) {
		return 0, "", failed
	}
	call := func(n int) string {
		return fmt.Sprintf(
			"shard %d on %d: POST timeline/%s/download_heatmap_layers?recurse=true&concurrency=4",
			n, n+1, timelineOne)
	}
	for id, want := range map[neon.ShardID][]string{
		neon.Unsharded(tenantOne):               {call(0), call(1)},
		ids[1]:                                  {call(1)},
		ids[2]:                                  nil,
		{Tenant: tenantOne, Count: 7}:           nil,
		{Tenant: neon.TenantID{9}, Number: 250}: nil,
	} {
		if err := timelines.DownloadHeatmapLayers(t.Context(), id, timelineOne,
			neon.HeatmapDownload{Concurrency: new(uint64(4)), Recurse: true}); err != nil {
			t.Error(err)
		}
		equal(t, id.String(), w.calls.took(), want)
	}
	w.unreadable(map[string]func(context.Context) error{
		"heatmap": func(ctx context.Context) error {
			return timelines.DownloadHeatmapLayers(ctx, ids[0], timelineOne,
				neon.HeatmapDownload{})
		},
		"secondaries": func(ctx context.Context) error {
			_, _, err := timelines.DownloadSecondaries(ctx, tenantOne, nil)
			return err
		},
	})
}

func TestSecondaryDownloadsAddUp(t *testing.T) {
	const warm = `{"heatmap_mtime":"%s","layers_downloaded":%d,"layers_total":4,` +
		`"bytes_downloaded":%d,"bytes_total":40}`
	older, newer := "2026-01-01T00:00:00.000Z", "2026-01-02T00:00:00.000Z"
	type reply struct {
		status int
		body   string
		err    error
	}
	full := reply{200, fmt.Sprintf(warm, newer, 4, 40), nil}
	half := reply{202, fmt.Sprintf(warm, older, 2, 20), nil}
	none, cut := reply{err: &statusError{500, neon.Conflict, "broken"}}, reply{200, "[", nil}
	for name, c := range map[string]struct {
		replies       []reply
		status        int
		layers, total uint64
		code          neon.Code // empty: no error
		text          string
	}{
		"all are warm":           {[]reply{full, full}, 200, 8, 8, "", ""},
		"the first one is not":   {[]reply{half, full}, 202, 6, 8, "", ""},
		"the last one is not":    {[]reply{full, half}, 202, 6, 8, "", ""},
		"one fails":              {[]reply{none, full}, 200, 4, 4, "", ""},
		"one answers in no JSON": {[]reply{cut, half}, 202, 2, 4, "", ""},
		"all fail": {
			[]reply{none, none}, 0, 0, 0, neon.Conflict, "Error from pageserver: broken",
		},
		"all answer in no JSON": {[]reply{cut}, 0, 0, 0, neon.Conflict, "Error from pageserver"},
		"there is no secondary": {
			nil, 0, 0, 0, neon.NotFound, fmt.Sprintf("Tenant %s not found", tenantOne),
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 4)
			create := fsm.CreateTenant{
				ID: tenantOne, Count: 2, Stripe: 8, Policy: neon.Attached(1),
				Scheduling: neon.ShardActive, Shards: []fsm.NewShard{{Attached: 4}, {Attached: 4}},
			}
			for i := range c.replies {
				create.Shards[i].Secondary = []neon.NodeID{neon.NodeID(i + 1)}
			}
			w.log.Must(create)
			w.calls.call = func(
				n neon.NodeID, _ neon.ShardID, _ neon.ShardCall,
			) (int, string, error) {
				r := c.replies[n-1]
				return r.status, r.body, r.err
			}
			timelines, _ := w.timelines()
			status, sum, err := timelines.DownloadSecondaries(t.Context(), tenantOne,
				new(1500*time.Millisecond))
			if status != c.status || sum.LayersDownloaded != c.layers ||
				sum.LayersTotal != c.total || sum.BytesDownloaded != 10*c.layers ||
				sum.BytesTotal != 10*c.total {
				t.Errorf("%d %+v", status, sum)
			}
			if c.code != "" {
				w.fails(c.code, c.text, func(context.Context) error { return err })
			} else if err != nil {
				t.Error(err)
			}
			if c.layers >= 6 && (sum.HeatmapMtime == nil ||
				!sum.HeatmapMtime.Equal(time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))) {
				t.Errorf("heatmap of %v", sum.HeatmapMtime)
			}
			for i, call := range w.calls.took() {
				if want := fmt.Sprintf("shard %d on %d: POST secondary/download?wait_ms=1500", i,
					i+1); call != want {
					t.Errorf("asked %s, want %s", call, want)
				}
			}
		})
	}
}

// A pageserver that hangs does not hold a request for heatmap layers for long.
func TestARequestForHeatmapLayersIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.tenant(tenantOne, 1)
		w.Pageservers = hanging{w.calls}
		timelines, _ := w.timelines()
		begun := time.Now()
		if err := timelines.DownloadHeatmapLayers(t.Context(), neon.Unsharded(tenantOne),
			timelineOne, neon.HeatmapDownload{}); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took != heatmapTime {
			t.Errorf("it was answered after %s", took)
		}
	})
}

// hanging is pageservers that answer no call.
type hanging struct{ Pageservers }

func (hanging) Call(
	ctx context.Context, _ *fsm.Node, _ neon.ShardID, _ neon.ShardCall,
) (int, []byte, error) {
	<-ctx.Done()
	return http.StatusOK, nil, context.Cause(ctx)
}
