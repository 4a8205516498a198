package split

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
	"quorate/internal/contract"
	"quorate/scheduler"
)

// splitter is what pageservers have of one tenant, on whichever node.
type splitter struct {
	mu        sync.Mutex
	log       *fsmtest.Faulty
	locations map[neon.ShardID]*neon.LocationConfig // nil: changing
	asked     []neon.ShardID
	detached  []neon.ShardID
	kicked    []string
	tops      []neon.TopTenant
	holds     bool // no location is given up
	timelines map[neon.ShardID][]neon.TimelineID
	deleted   []neon.ShardID // on which a timeline was deleted

	// before happens when a split is asked for, and its error is the answer; after
	// happens when it is done.
	before func(parent neon.ShardID) error
	after  func(parent neon.ShardID) error
}

func attachedAs(g neon.Generation) *neon.LocationConfig {
	return &neon.LocationConfig{Mode: neon.AttachedSingle, Generation: &g}
}

func (f *splitter) ShardSplit(
	_ context.Context, _ *fsm.Node, shard neon.ShardID, req neon.ShardSplitRequest, _ time.Duration,
) ([]neon.ShardID, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, shard)
	if f.before != nil {
		if err := f.before(shard); err != nil {
			return nil, err
		}
	}
	children := shard.Children(neon.ShardCount(req.Count))
	for _, id := range children {
		f.locations[id] = f.locations[shard]
		f.timelines[id] = append(f.timelines[id], f.timelines[shard]...)
	}
	delete(f.locations, shard)
	if f.after != nil {
		if err := f.after(shard); err != nil {
			return nil, err
		}
	}
	return children, nil
}

func (f *splitter) Location(
	_ context.Context, _ *fsm.Node, shard neon.ShardID,
) (*neon.LocationConfig, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	conf, ok := f.locations[shard]
	return conf, ok, nil
}

func (f *splitter) Detach(_ context.Context, _ *fsm.Node, shard neon.ShardID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.holds {
		return errors.New("not now")
	}
	f.detached = append(f.detached, shard)
	delete(f.locations, shard)
	return nil
}

func (f *splitter) TimelineIDs(
	_ context.Context, _ *fsm.Node, shard neon.ShardID,
) ([]neon.TimelineID, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.timelines[shard]), nil
}

func (f *splitter) TimelineDelete(
	_ context.Context, _ *fsm.Node, shard neon.ShardID, timeline neon.TimelineID,
) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deleted = append(f.deleted, shard)
	f.timelines[shard] = slices.DeleteFunc(f.timelines[shard],
		func(id neon.TimelineID) bool { return id == timeline })
	return http.StatusAccepted, nil
}

func (f *splitter) kick(what string, shard neon.ShardID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kicked = append(f.kicked, what+" "+shard.String()[33:])
	return nil
}

func (f *splitter) HeatmapUpload(_ context.Context, _ *fsm.Node, shard neon.ShardID) error {
	return f.kick("heatmap", shard)
}

func (f *splitter) SecondaryDownload(
	_ context.Context, _ *fsm.Node, shard neon.ShardID, wait time.Duration,
) (bool, neon.SecondaryProgress, error) {
	return wait == 0, neon.SecondaryProgress{}, f.kick("download", shard)
}

func (f *splitter) TopTenants(
	context.Context, *fsm.Node, neon.TopTenantsRequest,
) ([]neon.TopTenant, error) {
	return f.tops, nil
}

func (f *splitter) AwaitTerm(context.Context) error { return nil }

func (f *splitter) AwaitNoWorker(context.Context, ...neon.ShardID) error { return nil }
func (f *splitter) Await(context.Context, uint64, ...neon.ShardID) error { return nil }
func (f *splitter) Kick(...neon.ShardID)                                 {}

func (f *splitter) Silent() []neon.NodeID                 { return nil }
func (f *splitter) Loads() map[neon.NodeID]scheduler.Load { return nil }

var tenantOne = neon.TenantID{1}

// splitWorld is a tenant with shards that are attached, and a leader.
func splitWorld(t *testing.T, count neon.ShardCount, o Options) (*Splitter, *splitter) {
	l := fsmtest.NewFaulty(t)
	l.AddNodes(t, 3, neon.MakeAZ("a"))
	create := fsm.CreateTenant{
		ID: tenantOne, Count: count, Stripe: 8, Policy: neon.Attached(1),
		Scheduling: neon.ShardActive,
	}
	var err error
	create.Shards, err = scheduler.New(l.State(), nil).PlaceTenant(tenantOne, count,
		neon.Attached(0))
	if err != nil {
		t.Fatal(err)
	}
	l.Must(create)
	f := &splitter{
		log: l, locations: make(map[neon.ShardID]*neon.LocationConfig),
		timelines: make(map[neon.ShardID][]neon.TimelineID),
	}
	for sh := range l.State().TenantShards(tenantOne) {
		l.Must(fsm.IssueGenerations{Items: []fsm.Issue{{Shard: sh.ID, Node: sh.Attached}}})
		f.locations[sh.ID] = attachedAs(1)
	}
	return New(Deps{
		Log: l, Reconciler: f, Pageservers: f, Options: o, Logger: slog.New(slog.DiscardHandler),
	}), f
}

// lead runs f while the splits are driven, and then lets them finish.
func lead(t *testing.T, p *Splitter, f func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Run(ctx)
	}()
	f()
	<-time.After(time.Minute) // of the bubble's time
	cancel()
	<-done
}

func TestSplitAsksEveryParentOnceAndKicksTheSecondaries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f := splitWorld(t, 2, Options{})
		lead(t, p, func() {
			begun := time.Now()
			shards, err := p.Split(t.Context(), tenantOne, neon.ShardSplitRequest{Count: 4})
			if err != nil || !slices.Equal(shards, neon.ShardIDs(tenantOne, 4)) {
				t.Errorf("%v, %v", shards, err)
			}
			if took := time.Since(begun); took != 0 {
				t.Errorf("the request saw the end of the split %s late", took)
			}
		})
		if len(f.asked) != 2 ||
			!slices.Equal(sorted(f.detached), neon.ShardIDs(tenantOne, 2)) && len(f.detached) < 2 {
			t.Errorf("asked %v, detached %v", f.asked, f.detached)
		}
		slices.Sort(f.kicked)
		if want := "download 0004,download 0104,download 0204,download 0304,heatmap 0004,heatmap 0104,heatmap 0204,heatmap 0304"; strings.Join(
			f.kicked, ",") != want {
			t.Errorf("kicked %v", f.kicked)
		}
		for sh := range p.Log.State().TenantShards(tenantOne) {
			if len(sh.Secondary) != 1 || sh.Generation != 1 {
				t.Errorf("child %+v", sh)
			}
		}
		if sp, ok := p.Log.State().Split(tenantOne); ok {
			t.Errorf("the split is still there: %+v", sp)
		}
	})
}

func sorted(ids []neon.ShardID) []neon.ShardID {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, neon.ShardID.Compare)
	return slices.Compact(ids)
}

func TestLostAnswerOfASplitIsRecognised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f := splitWorld(t, 2, Options{})
		f.after = func(neon.ShardID) error { return errors.New("connection reset") }
		lead(t, p, func() {
			if _, err := p.Split(t.Context(), tenantOne,
				neon.ShardSplitRequest{Count: 4}); err != nil {
				t.Error(err)
			}
		})
		if len(f.asked) != 2 {
			t.Errorf("asked %v", f.asked)
		}
	})
}

func TestFailedSplitSaysWhyAndIsRolledBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f := splitWorld(t, 2, Options{})
		bad := neon.ShardIDs(tenantOne, 2)[1]
		f.before = func(parent neon.ShardID) error {
			if parent == bad {
				return errors.New("pageserver says no")
			}
			return nil
		}
		lead(t, p, func() {
			_, err := p.Split(t.Context(), tenantOne, neon.ShardSplitRequest{Count: 4})
			if neon.CodeOf(err) != neon.Conflict ||
				err.Error() != "Failed to split "+bad.String()+": pageserver says no" {
				t.Errorf("%v", err)
			}
		})
		if got := sorted(f.detached); !slices.Equal(got, neon.ShardIDs(tenantOne, 4)) {
			t.Errorf("detached %v", got)
		}
		for sh := range p.Log.State().TenantShards(tenantOne) {
			if sh.ID.Count != 2 || sh.Generation != 2 {
				t.Errorf("parent %+v", sh)
			}
		}
	})
}

func TestSplitIsRolledBackHoweverLongTheReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f := splitWorld(t, 1, Options{})
		f.before = func(neon.ShardID) error { return errors.New(strings.Repeat("no ", 1<<19)) }
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		lead(t, p, func() {
			if _, err := p.Split(ctx, tenantOne,
				neon.ShardSplitRequest{Count: 2}); neon.CodeOf(err) != neon.Conflict {
				t.Errorf("%.100v", err)
			}
		})
		if p.Log.State().Splitting(tenantOne) {
			t.Error("the tenant stays frozen")
		}
	})
}

// A pageserver that has the parent and children at once has failed in the middle:
// its split is neither believed nor asked for again.
func TestHalfASplitIsNeverCommitted(t *testing.T) {
	for name, spoil := range map[string]func(
		f *splitter, parent neon.ShardID, children []neon.ShardID,
	){
		"the parent is there too": func(
			f *splitter, parent neon.ShardID, _ []neon.ShardID,
		) {
			f.locations[parent] = attachedAs(1)
		},
		"a child is missing": func(
			f *splitter, _ neon.ShardID, children []neon.ShardID,
		) {
			delete(f.locations, children[1])
		},
		"another generation": func(
			f *splitter, _ neon.ShardID, children []neon.ShardID,
		) {
			f.locations[children[0]] = attachedAs(2)
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			p, f := splitWorld(t, 1, Options{})
			f.after = func(
				parent neon.ShardID,
			) error {
				spoil(f, parent, parent.Children(2))
				return nil
			}
			lead(t, p, func() {
				if _, err := p.Split(t.Context(), tenantOne,
					neon.ShardSplitRequest{Count: 2}); neon.CodeOf(err) != neon.Conflict {
					t.Errorf("%s: %v", name, err)
				}
			})
			if tenant, _ := p.Log.State().Tenant(tenantOne); tenant.Count != 1 ||
				p.Log.State().Splitting(tenantOne) || len(f.asked) != 1 {
				t.Errorf("%s: %+v after %d tries", name, tenant, len(f.asked))
			}
		})
	}
}

// A leader that takes up a split again believes what it finds, and asks only where nothing
// was done.
func TestSplitGoesOnFromWhatIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f := splitWorld(t, 2, Options{})
		c, err := decideSplit(p.Log.State(), tenantOne, neon.ShardSplitRequest{Count: 4})
		if err != nil {
			t.Fatal(err)
		}
		f.log.Must(c)
		first := neon.ShardIDs(tenantOne, 2)[0]
		p.had.put(first, inventory{began: p.Log.State().Index})
		_, _ = f.ShardSplit(t.Context(), nil, first, neon.ShardSplitRequest{Count: 4}, 0)
		f.locations[first] = nil // and is still at it
		f.asked = nil
		go func() {
			<-time.After(10 * time.Second)
			f.mu.Lock()
			defer f.mu.Unlock()
			delete(f.locations, first)
		}()
		lead(t, p, func() {
			if _, err := p.Split(t.Context(), tenantOne,
				neon.ShardSplitRequest{Count: 4}); err != nil {
				t.Error(err)
			}
		})
		if len(f.asked) != 1 || f.asked[0] == first {
			t.Errorf("asked %v", f.asked)
		}
	})
}

func TestPageserverGoneInTheMiddleEndsTheSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f := splitWorld(t, 1, Options{})
		parent := neon.ShardIDs(tenantOne, 1)[0]
		sh, _ := p.Log.State().Shard(parent)
		f.after = func(
			neon.ShardID,
		) error {
			f.locations[parent] = nil
			return errors.New("no answer")
		}
		go func() {
			<-time.After(5 * time.Second)
			f.log.Must(fsm.SetNodeAvailability{
				Verdicts: []fsm.Verdict{{Node: sh.Attached, To: neon.NodeOffline}},
			})
		}()
		lead(t, p, func() {
			_, err := p.Split(t.Context(), tenantOne, neon.ShardSplitRequest{Count: 2})
			if want := "Failed to split " + parent.String() + ": pageserver " +
				sh.Attached.String() + " is not available"; err == nil || err.Error() != want {
				t.Errorf("%v", err)
			}
		})
		if p.Log.State().Splitting(tenantOne) || len(f.detached) != 0 {
			t.Errorf("frozen %v, detached %v", p.Log.State().Splitting(tenantOne), f.detached)
		}
	})
}

func TestOthersWaitForTheEndOfASplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f := splitWorld(t, 1, Options{})
		f.before = func(neon.ShardID) error {
			f.mu.Unlock()
			<-time.After(5 * time.Second)
			f.mu.Lock()
			return nil
		}
		lead(t, p, func() {
			go func() { _, _ = p.Split(t.Context(), tenantOne, neon.ShardSplitRequest{Count: 2}) }()
			<-time.After(time.Second)
			began := time.Now()
			if err := AwaitEnd(t.Context(), p.Log, tenantOne); err != nil {
				t.Error(err)
			}
			if tenant, _ := p.Log.State().Tenant(tenantOne); tenant.Count != 2 ||
				time.Since(began) > 5*time.Second {
				t.Errorf("after %s the tenant is %+v", time.Since(began), tenant)
			}
		})
	})
}

func TestShardsOfAutomaticSplits(t *testing.T) {
	o := Options{Threshold: 1000, MaxShards: 16, InitialThreshold: 100, InitialShards: 2}
	for _, tc := range []struct {
		o    Options
		have int
		size uint64
		want int
	}{
		{o, 1, 100, 1}, {o, 1, 101, 2}, {o, 1, 2000, 2}, {o, 1, 2001, 4}, {o, 2, 2000, 2},
		{o, 2, 2001, 4},
		{o, 4, 1 << 60, 16}, {o, 16, 1 << 60, 16}, {o, 1, 1<<64 - 1, 16},
		{o, 3, 3000, 3}, {o, 3, 3001, 3}, {o, 3, 6001, 6},
		{Options{MaxShards: 5, Threshold: 10}, 1, 1000, 4},
		{Options{MaxShards: 8, InitialThreshold: 10, InitialShards: 8}, 1, 11, 8},
		{Options{MaxShards: 8, InitialThreshold: 10, InitialShards: 8}, 2, 11, 2},
		{Options{MaxShards: 255, Threshold: 1}, 1, 1 << 40, 128},
	} {
		if got := tc.o.shards(tc.have, tc.size); got != tc.want {
			t.Errorf("%d shards and %d bytes with %+v: %d, want %d", tc.have, tc.size, tc.o, got,
				tc.want)
		}
	}
}

func TestFailingTenantIsTriedLessAndLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f := splitWorld(t, 1, Options{Threshold: 1, MaxShards: 2})
		f.tops = []neon.TopTenant{{
			Shard: neon.ShardIDs(tenantOne, 1)[0], MaxLogicalSize: 100, MaxLogicalSizePerShard: 100,
		}}
		f.before = func(parent neon.ShardID) error {
			g := neon.Generation(0)
			for sh := range p.Log.State().TenantShards(tenantOne) {
				g = sh.Generation
			}
			f.locations[parent] = attachedAs(g + 1) // as it will be after the abort
			return errors.New("no")
		}
		lead(t, p, func() { <-time.After(time.Hour) })
		if n := len(f.asked); n < 4 || n > 7 {
			t.Errorf("tried %d times in an hour", n)
		}
	})
}

// points are failpoints at which requests fail, and what was passed.
type points struct {
	mu     sync.Mutex
	fails  string
	passed []string
}

func (p *points) pass(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.passed = append(p.passed, name)
	return name == p.fails
}

func (p *points) Armed(name string) bool                        { return p.fails == name }
func (p *points) Sleep(_ context.Context, name string) error    { p.pass(name); return nil }
func (p *points) Pausable(_ context.Context, name string) error { p.pass(name); return nil }
func (p *points) Return(_ context.Context, name string) (string, bool, error) {
	return "1", p.pass(name), nil
}

func TestFailpointsOfSplits(t *testing.T) {
	for name, want := range map[string]struct {
		code  neon.Code
		count neon.ShardCount // afterwards
	}{
		"shard-split-validation":    {neon.BadRequest, 2},
		"shard-split-post-begin":    {neon.Internal, 2},
		"shard-split-post-remote":   {neon.Conflict, 2},
		"shard-split-pre-complete":  {neon.Conflict, 2},
		"shard-split-post-complete": {neon.Internal, 4},
		"":                          {"", 4},
	} {
		synctest.Test(t, func(t *testing.T) {
			p, _ := splitWorld(t, 2, Options{})
			at := &points{fails: name}
			p.Failpoints = at
			lead(t, p, func() {
				_, err := p.Split(t.Context(), tenantOne, neon.ShardSplitRequest{Count: 4})
				if err == nil && want.code != "" ||
					err != nil && (neon.CodeOf(err) != want.code || err.Error() != "failpoint") {
					t.Errorf("%s: %v", name, err)
				}
			})
			if tenant, _ := p.Log.State().Tenant(tenantOne); tenant.Count != want.count ||
				p.Log.State().Splitting(tenantOne) {
				t.Errorf("%s: %+v", name, tenant)
			}
			// Each once, and the two after the call once for each parent.
			if name == "" && len(at.passed) != 9 {
				t.Errorf("passed %v", at.passed)
			}
		})
		if name != "" {
			contract.Find(contract.Failpoint, name).Tick(t)
		}
	}
}

// A test that makes splits pause after each pageserver looks at one that was split while
// the next was not.
func TestAPauseBetweenPageserversHoldsTheNextOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f := splitWorld(t, 2, Options{})
		p.Failpoints = &holding{points: points{fails: "shard-split-post-remote-sleep"}}
		var asked []time.Time
		f.before = func(neon.ShardID) error { asked = append(asked, time.Now()); return nil }
		lead(t, p, func() {
			if _, err := p.Split(t.Context(), tenantOne,
				neon.ShardSplitRequest{Count: 4}); err != nil {
				t.Error(err)
			}
		})
		if len(asked) != 2 || asked[1].Sub(asked[0]) < holdTime {
			t.Errorf("asked at %v", asked)
		}
	})
}

const holdTime = 3 * time.Second

// holding sleeps at the place that is set.
type holding struct{ points }

func (h *holding) Sleep(_ context.Context, name string) error {
	if name == h.fails {
		<-time.After(holdTime)
	}
	return nil
}
