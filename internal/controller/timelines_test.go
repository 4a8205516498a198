package controller

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/failpoint"
)

var timelineOne = neon.TimelineID{1}

// timelines makes a Timelines with the fake of all that puts timelines on safekeepers.
func (w *world) timelines() (*Timelines, *fakeKeepers) {
	k := &fakeKeepers{}
	return NewTimelines(w.Deps, k, k, &w.creating), k
}

// answers makes every creation succeed.
func (w *world) answers(rest string) {
	w.calls.create = func(
		_ neon.NodeID, _ neon.ShardID, req neon.TimelineCreateRequest,
	) (neon.TimelineInfo, error) {
		return info(w.t, req.Timeline, rest), nil
	}
}

// All shards begin where the first one did, whatever the client left open.
func TestATimelineBeginsWhereTheFirstShardBegan(t *testing.T) {
	ancestor, other := neon.TimelineID{2}, neon.TimelineID{3}
	lsn, chosen := neon.Lsn(0x30), neon.Lsn(0x20)
	for name, c := range map[string]struct {
		req    neon.TimelineCreateRequest
		pinned string // what the other shards are asked
	}{
		"a branch": {
			neon.TimelineCreateRequest{Branch: &neon.TimelineBranch{Ancestor: ancestor}},
			fmt.Sprintf(`"ancestor_timeline_id":"%s","ancestor_start_lsn":"0/20"`, ancestor),
		},
		"a branch at an LSN": {
			neon.TimelineCreateRequest{
				Branch: &neon.TimelineBranch{Ancestor: ancestor, StartLsn: &lsn},
			}, fmt.Sprintf(`"ancestor_timeline_id":"%s","ancestor_start_lsn":"0/30"`, ancestor),
		},
		"a bootstrap": {
			neon.TimelineCreateRequest{Bootstrap: &neon.TimelineBootstrap{}},
			fmt.Sprintf(`"existing_initdb_timeline_id":"%s"`, timelineOne),
		},
		"a bootstrap from another": {
			neon.TimelineCreateRequest{
				Bootstrap: &neon.TimelineBootstrap{ExistingInitdb: &other},
			}, fmt.Sprintf(`"existing_initdb_timeline_id":"%s"`, other),
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 3)
			w.tenant(tenantOne, 3)
			var mu sync.Mutex
			var order []neon.ShardNumber
			w.calls.create = func(
				_ neon.NodeID, id neon.ShardID, req neon.TimelineCreateRequest,
			) (neon.TimelineInfo, error) {
				mu.Lock()
				defer mu.Unlock()
				order = append(order, id.Number)
				return info(t, req.Timeline, fmt.Sprintf(`,"ancestor_lsn":"%s"`, chosen)), nil
			}
			timelines, keepers := w.timelines()
			c.req.Timeline = timelineOne
			was := fmt.Sprintf("%+v %+v", c.req.Branch, c.req.Bootstrap)
			resp, err := timelines.Create(t.Context(), tenantOne, c.req)
			if err != nil || resp.Info.Timeline != timelineOne || resp.Safekeepers != nil {
				t.Fatalf("%+v, %v", resp, err)
			}
			calls := w.calls.took()
			if len(calls) != 3 || order[0] != 0 {
				t.Fatalf("shards %v were asked: %q", order, calls)
			}
			for i, call := range calls[1:] {
				if !strings.HasPrefix(call, fmt.Sprintf("shard %d on %d: ", i+1, i+2)) ||
					!strings.Contains(call, c.pinned) {
					t.Errorf("asked %s, want %s", call, c.pinned)
				}
			}
			if now := fmt.Sprintf("%+v %+v", c.req.Branch, c.req.Bootstrap); now != was {
				t.Errorf("the request of the caller was changed to %s", now)
			}
			if len(keepers.created) > 0 {
				t.Errorf("put on safekeepers, which is not configured: %+v", keepers.created)
			}
		})
	}
}

func TestATimelineThatTheFirstShardRefusesIsCreatedOnNoOther(t *testing.T) {
	w := newWorld(t, 2)
	w.tenant(tenantOne, 2)
	w.Options.OntoSafekeepers = true
	timelines, keepers := w.timelines()
	create := func(ctx context.Context) error {
		_, err := timelines.Create(ctx, tenantOne, neon.TimelineCreateRequest{
			Timeline: timelineOne, Bootstrap: &neon.TimelineBootstrap{},
		})
		return err
	}
	bad := neon.ShardNumber(0)
	w.calls.create = func(
		_ neon.NodeID, id neon.ShardID, req neon.TimelineCreateRequest,
	) (neon.TimelineInfo, error) {
		if id.Number == bad {
			return neon.TimelineInfo{}, &statusError{409, neon.Conflict, "no"}
		}
		return info(t, req.Timeline, ""), nil
	}
	w.refuses(neon.Conflict, "no", create)
	if calls := w.calls.took(); len(calls) != 1 {
		t.Errorf("asked %q", calls)
	}
	bad = 1
	w.refuses(neon.Conflict, "no", create)
	if calls := w.calls.took(); len(calls) != 2 {
		t.Errorf("asked %q", calls)
	}
	// What is not on all shards is on no safekeeper.
	if len(keepers.created) > 0 {
		t.Errorf("put on safekeepers: %+v", keepers.created)
	}
}

// What a location has acknowledged that was superseded meanwhile counts for nothing.
func TestATimelineOfASupersededLocationIsToBeCreatedAgain(t *testing.T) {
	w := newWorld(t, 1)
	w.tenant(tenantOne, 1)
	w.Options.OntoSafekeepers = true
	w.calls.create = func(
		_ neon.NodeID, _ neon.ShardID, req neon.TimelineCreateRequest,
	) (neon.TimelineInfo, error) {
		w.log.Must(fsm.ReAttach{Node: 1})
		return info(t, req.Timeline, ""), nil
	}
	timelines, keepers := w.timelines()
	w.fails(neon.Unavailable, "Tenant attachment changed, please retry",
		func(ctx context.Context) error {
			_, err := timelines.Create(ctx, tenantOne, neon.TimelineCreateRequest{
				Timeline: timelineOne, Bootstrap: &neon.TimelineBootstrap{},
			})
			return err
		})
	if len(keepers.created) > 0 {
		t.Errorf("put on safekeepers: %+v", keepers.created)
	}
}

// Compute may still read from the origin of a migration, so it gets the timeline too.
func TestTheOriginOfAMigrationGetsTheTimelineToo(t *testing.T) {
	attached := &neon.LocationConfig{Mode: neon.AttachedStale}
	for name, c := range map[string]struct {
		seen  map[neon.NodeID]*neon.LocationConfig
		fail  error
		asked []neon.NodeID
		code  neon.Code // empty: no error
	}{
		"the origin": {
			map[neon.NodeID]*neon.LocationConfig{1: attached, 2: attached}, nil,
			[]neon.NodeID{1, 2}, "",
		},
		"one that has no such tenant any more": {
			map[neon.NodeID]*neon.LocationConfig{2: attached},
			&statusError{http.StatusNotFound, neon.NotFound, "no tenant"},
			[]neon.NodeID{1, 2}, "",
		},
		"one that fails": {
			map[neon.NodeID]*neon.LocationConfig{2: attached},
			&statusError{http.StatusConflict, neon.Conflict, "no"}, []neon.NodeID{1, 2},
			neon.Conflict,
		},
		"others": {
			map[neon.NodeID]*neon.LocationConfig{
				2: nil, 3: {Mode: neon.Secondary}, 4: attached, 9: attached,
			}, nil, []neon.NodeID{1}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 4)
			id := w.tenant(tenantOne, 1)[0]
			w.verdict(4, neon.NodeOffline)
			w.reality.status = map[neon.ShardID]decide.ShardStatus{id: {Observed: c.seen}}
			var asked []neon.NodeID
			w.calls.create = func(
				n neon.NodeID, _ neon.ShardID, req neon.TimelineCreateRequest,
			) (neon.TimelineInfo, error) {
				asked = append(asked, n)
				if n != 1 && c.fail != nil {
					return neon.TimelineInfo{}, c.fail
				}
				return info(t, req.Timeline, ""), nil
			}
			timelines, _ := w.timelines()
			resp, err := timelines.Create(t.Context(), tenantOne, neon.TimelineCreateRequest{
				Timeline: timelineOne, Bootstrap: &neon.TimelineBootstrap{},
			})
			if c.code != "" {
				w.fails(c.code, c.fail.Error(), func(context.Context) error { return err })
			} else if err != nil || resp.Info.Timeline != timelineOne {
				t.Errorf("%+v, %v", resp, err)
			}
			equal(t, "asked", asked, c.asked)
		})
	}
}

func TestANewTimelineIsPutOnSafekeepersOnce(t *testing.T) {
	lsn := neon.Lsn(0x10)
	branch := func(readOnly bool) neon.TimelineCreateRequest {
		return neon.TimelineCreateRequest{Branch: &neon.TimelineBranch{
			Ancestor: neon.TimelineID{2}, StartLsn: &lsn, ReadOnly: readOnly,
		}}
	}
	load := neon.TimelineCreateRequest{Import: &neon.TimelineImport{
		Location: []byte(`{"LocalFs":{"path":"x"}}`), IdempotencyKey: "k",
	}}
	for name, c := range map[string]struct {
		onto             bool
		req              neon.TimelineCreateRequest
		created, begun   int
		writable, answer bool
	}{
		"a branch":                        {true, branch(false), 1, 0, true, true},
		"a branch, not configured":        {false, branch(false), 0, 0, false, false},
		"a read-only one":                 {true, branch(true), 1, 0, false, true},
		"a read-only one, not configured": {false, branch(true), 1, 0, false, true},
		"an import":                       {true, load, 0, 1, false, false},
		"an import, not configured":       {false, load, 0, 1, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			w.tenant(tenantOne, 1)
			w.answers("")
			w.Options.OntoSafekeepers = c.onto
			timelines, keepers := w.timelines()
			c.req.Timeline = timelineOne
			resp, err := timelines.Create(t.Context(), tenantOne, c.req)
			if err != nil || (resp.Safekeepers != nil) != c.answer {
				t.Fatalf("%+v, %v", resp, err)
			}
			if len(keepers.created) != c.created || len(keepers.begun) != c.begun {
				t.Fatalf("created %+v, begun %+v", keepers.created, keepers.begun)
			}
			for _, k := range keepers.created {
				if k.Tenant != tenantOne || k.Info.Timeline != timelineOne ||
					k.Writable != c.writable || k.Imported {
					t.Errorf("created %+v", k)
				}
			}
			for _, ref := range keepers.begun {
				if ref != (neon.TimelineRef{Tenant: tenantOne, Timeline: timelineOne}) {
					t.Errorf("begun %+v", ref)
				}
			}
			keepers.err = neon.Errorf(neon.Unavailable, "no quorum")
			_, err = timelines.Create(t.Context(), tenantOne, c.req)
			if (err != nil) != (c.created+c.begun > 0) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestTimelinesAreRefusedWithoutACall(t *testing.T) {
	w := newWorld(t, 1)
	w.tenant(tenantOne, 1)
	w.detached(neon.TenantID{2})
	w.log.Must(fsm.BeginDeleteTimeline{Tenant: tenantOne, Timeline: timelineOne})
	w.answers("")
	timelines, keepers := w.timelines()
	create := func(id neon.TenantID, req neon.TimelineCreateRequest) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := timelines.Create(ctx, id, req)
			return err
		}
	}
	boot := neon.TimelineCreateRequest{
		Timeline: timelineOne, Bootstrap: &neon.TimelineBootstrap{},
	}
	branch := neon.TimelineCreateRequest{
		Timeline: neon.TimelineID{2}, Branch: &neon.TimelineBranch{Ancestor: timelineOne},
	}
	deleted := fmt.Sprintf("timeline %s is being deleted",
		neon.TimelineRef{Tenant: tenantOne, Timeline: timelineOne})
	w.refuses(neon.Conflict, deleted, create(tenantOne, boot))
	w.refuses(neon.Conflict, deleted, create(tenantOne, branch))
	w.refuses(neon.NotFound, "Tenant not found", create(neon.TenantID{9}, boot))
	w.refuses(neon.Conflict, "tenant has policy Detached", create(neon.TenantID{2}, boot))
	w.unreadable(map[string]func(context.Context) error{"create": create(tenantOne, boot)})
	if calls := w.calls.took(); len(calls) > 0 || len(keepers.created) > 0 {
		t.Errorf("asked %q, created %+v", calls, keepers.created)
	}
}

// A creation waits for a change of the policy that takes its time.
func TestACreationWaitsForAChangeOfThePolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.tenant(tenantOne, 1)
		w.answers("")
		points := failpoint.New(w.Logger, nil)
		if err := points.Configure("tenant-update-policy-exclusive-lock",
			"return(60000)"); err != nil {
			t.Fatal(err)
		}
		w.Failpoints, w.Locks = points, NewLocks(w.Logger)
		policy := make(chan error)
		go func() {
			policy <- NewTenants(w.Deps).SetPolicy(t.Context(), tenantOne,
				neon.PolicyRequest{Scheduling: new(neon.ShardPause)})
		}()
		synctest.Wait()
		timelines, _ := w.timelines()
		begun := time.Now()
		create := func(ctx context.Context) error {
			_, err := timelines.Create(ctx, tenantOne, neon.TimelineCreateRequest{
				Timeline: timelineOne, Bootstrap: &neon.TimelineBootstrap{},
			})
			return err
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := create(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a client that has gone: %v", err)
		}
		if calls := w.calls.took(); len(calls) > 0 {
			t.Errorf("asked %q", calls)
		}
		if err := create(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took != time.Minute {
			t.Errorf("created after %s", took)
		}
		if err := <-policy; err != nil {
			t.Error(err)
		}
	})
}

func TestLocateNamesTheSafekeepersOfATimeline(t *testing.T) {
	w := newWorld(t, 1)
	w.tenant(tenantOne, 1)
	for id := range neon.NodeID(4) {
		w.log.Must(fsm.UpsertSafekeeper{ID: id + 1, Host: "sk"})
	}
	ref := neon.TimelineRef{Tenant: tenantOne, Timeline: timelineOne}
	timelines, _ := w.timelines()
	locate := func(ref neon.TimelineRef) func(context.Context) error {
		return func(ctx context.Context) error { _, err := timelines.Locate(ctx, ref); return err }
	}
	w.refuses(neon.NotFound, fmt.Sprintf("Timeline %s not found", ref), locate(ref))
	if err := timelines.ImportRecord(t.Context(), ref, neon.TimelineImportRequest{
		Tenant: tenantOne, Timeline: timelineOne, Set: neon.List[neon.NodeID]{1, 2, 3},
	}); err != nil {
		t.Fatal(err)
	}
	l, err := timelines.Locate(t.Context(), ref)
	if err != nil || l.Generation != 1 || l.NewSet != nil {
		t.Errorf("%+v, %v", l, err)
	}
	equal(t, "set", l.Set, []neon.NodeID{1, 2, 3})
	w.log.Must(fsm.BeginMembership{
		Tenant: tenantOne, Timeline: timelineOne, Generation: 1, NewSet: []neon.NodeID{2, 3, 4},
	})
	l, err = timelines.Locate(t.Context(), ref)
	if err != nil || l.Generation != 2 || l.NewSet == nil {
		t.Fatalf("%+v, %v", l, err)
	}
	equal(t, "new set", *l.NewSet, []neon.NodeID{2, 3, 4})
	w.refuses(neon.BadRequest, "tenant id or timeline id mismatch", func(ctx context.Context) error {
		return timelines.ImportRecord(ctx, ref, neon.TimelineImportRequest{
			Tenant: tenantOne, Timeline: neon.TimelineID{9},
		})
	})
	w.refuses(neon.BadRequest, "LSN FFFFFFFF/FFFFFFFF is no position", func(ctx context.Context) error {
		return timelines.ImportRecord(ctx, ref, neon.TimelineImportRequest{
			Tenant: tenantOne, Timeline: timelineOne, StartLsn: math.MaxUint64,
		})
	})
	if calls := w.calls.took(); len(calls) > 0 {
		t.Errorf("pageservers were asked: %q", calls)
	}
	w.unreadable(map[string]func(context.Context) error{"locate": locate(ref)})
}

// The error that a client of a cut-off request gets must not say that nothing was done.
func TestATimelineRequestHasActedFromItsFirstCallOn(t *testing.T) {
	w := newWorld(t, 1)
	w.tenant(tenantOne, 1)
	timelines, _ := w.timelines()
	acted := false
	ctx := decide.WithRequest(t.Context(), [32]byte{1})
	w.calls.create = func(
		neon.NodeID, neon.ShardID, neon.TimelineCreateRequest,
	) (neon.TimelineInfo, error) {
		acted = decide.HasActed(ctx)
		return neon.TimelineInfo{}, errors.New("cut off")
	}
	_, err := timelines.Create(ctx, tenantOne, neon.TimelineCreateRequest{
		Timeline: timelineOne, Bootstrap: &neon.TimelineBootstrap{},
	})
	if err == nil || !acted {
		t.Errorf("%v, acted %v", err, acted)
	}
}

// A leader that died may have left the creation running on a pageserver.
func TestACreationThatIsUnderWayIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.tenant(tenantOne, 2)
		end := time.Now().Add(20 * time.Second)
		w.calls.create = func(
			_ neon.NodeID, _ neon.ShardID, req neon.TimelineCreateRequest,
		) (neon.TimelineInfo, error) {
			if time.Now().Before(end) {
				return neon.TimelineInfo{}, &statusError{429, neon.Conflict, "in progress"}
			}
			return info(t, req.Timeline, ""), nil
		}
		timelines, _ := w.timelines()
		if _, err := timelines.Create(t.Context(), tenantOne, neon.TimelineCreateRequest{
			Timeline: timelineOne, Bootstrap: &neon.TimelineBootstrap{},
		}); err != nil {
			t.Error(err)
		}
	})
}

// A branch without a start begins where its ancestor ends. When it is asked for once more,
// the ancestor has gone on, and the pageserver takes it for another branch.
func TestABranchThatExistsIsFound(t *testing.T) {
	ancestor, other := neon.TimelineID{2}, neon.TimelineID{3}
	lsn := neon.Lsn(0x30)
	for name, c := range map[string]struct {
		branch  neon.TimelineBranch
		existed string
		ok      bool
	}{
		"the same":          {neon.TimelineBranch{Ancestor: ancestor}, ancestor.String(), true},
		"of another":        {neon.TimelineBranch{Ancestor: ancestor}, other.String(), false},
		"at a given LSN":    {neon.TimelineBranch{Ancestor: ancestor, StartLsn: &lsn}, ancestor.String(), false},
		"nothing is to see": {neon.TimelineBranch{Ancestor: ancestor}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			w.tenant(tenantOne, 1)
			w.calls.create = func(
				neon.NodeID, neon.ShardID, neon.TimelineCreateRequest,
			) (neon.TimelineInfo, error) {
				return neon.TimelineInfo{}, &statusError{409, neon.Conflict, "it exists"}
			}
			w.calls.call = func(neon.NodeID, neon.ShardID, neon.ShardCall) (int, string, error) {
				if c.existed == "" {
					return 0, "", &statusError{404, neon.NotFound, "none"}
				}
				return 200, fmt.Sprintf(`{"timeline_id":"%s","last_record_lsn":"0/10",`+
					`"pg_version":16,"ancestor_timeline_id":"%s","ancestor_lsn":"0/8"}`,
					timelineOne, c.existed), nil
			}
			timelines, _ := w.timelines()
			_, err := timelines.Create(t.Context(), tenantOne, neon.TimelineCreateRequest{
				Timeline: timelineOne, Branch: &c.branch,
			})
			if (err == nil) != c.ok || !c.ok && neon.CodeOf(err) != neon.Conflict {
				t.Errorf("got %v", err)
			}
		})
	}
}
