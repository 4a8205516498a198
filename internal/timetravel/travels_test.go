package timetravel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
	"quorate/internal/decide"
)

var (
	tenantOne = neon.TenantID{1}
	then      = neon.TimeTravel{To: "then", DoneIfAfter: "later"}
)

// world is a tenant, and the pageservers that put its data back.
type world struct {
	*fsmtest.Faulty
	t       *testing.T
	travels *Travels

	silent   []neon.NodeID
	await    func() error
	observed map[neon.NodeID]*neon.LocationConfig

	mu    sync.Mutex
	calls []string
	call  func(ctx context.Context, node neon.NodeID, shard neon.ShardID) error
}

// newWorld has nodes and no tenant.
func newWorld(t *testing.T, nodes int) *world {
	w := &world{Faulty: fsmtest.NewFaulty(t), t: t}
	w.Upgrade(t)
	w.AddNodes(t, nodes, neon.MakeAZ("a"))
	w.travels = w.leader()
	return w
}

// leader is what a leader knows at the beginning of its term.
func (w *world) leader() *Travels {
	travels := New(w, w, w, slog.New(slog.DiscardHandler))
	w.Subscribe(travels.Changed)
	return travels
}

func (w *world) Await(_ context.Context, index uint64, shards ...neon.ShardID) error {
	if r, ok := w.State().Travel(shards[0].Tenant); ok && index < r.Began {
		w.t.Errorf("it waits for the state of %d, and the record is of %d", index, r.Began)
	}
	if w.await != nil {
		return w.await()
	}
	return nil
}
func (w *world) Kick(...neon.ShardID) {}

func (w *world) Silent() []neon.NodeID { return w.silent }

func (w *world) Status(neon.ShardID) decide.ShardStatus {
	return decide.ShardStatus{Observed: w.observed}
}

func (w *world) Call(
	ctx context.Context, n *fsm.Node, shard neon.ShardID, c neon.ShardCall,
) (int, []byte, error) {
	w.mu.Lock()
	w.calls = append(w.calls, fmt.Sprintf("shard %d of %d on %d: %s %s", shard.Number, shard.Count,
		n.ID, c.Method, c.Path))
	call := w.call
	w.mu.Unlock()
	if call != nil {
		if err := call(ctx, n.ID, shard); err != nil {
			return 0, nil, err
		}
	}
	return http.StatusOK, nil, nil
}

func (w *world) took() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := w.calls
	w.calls = nil
	return calls
}

func (w *world) answers(call func(context.Context, neon.NodeID, neon.ShardID) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.call = call
}

// tenant creates one with a policy.
func (w *world) tenant(policy neon.Placement) {
	sh := fsm.NewShard{}
	if policy.Kind == neon.PlaceAttached {
		sh.Attached = 1
	}
	w.Must(fsm.CreateTenant{
		ID: tenantOne, Stripe: 8, Policy: policy, Scheduling: neon.ShardActive,
		Shards: []fsm.NewShard{sh},
	})
}

// attach does what a change of the policy would do.
func (w *world) attach() error {
	tenant, _ := w.State().Tenant(tenantOne)
	_, err := w.Commit(fsm.RequestID{}, fsm.UpdateTenant{
		ID: tenantOne, Sequence: tenant.Sequence, Policy: new(neon.Attached(0)),
	})
	return err
}

func (w *world) recorded() bool {
	_, ok := w.State().Travel(tenantOne)
	return ok
}

// run does the leader's work and returns what ends it.
func (w *world) run(travels *Travels) (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan struct{})
	go func() { travels.Run(ctx); close(ended) }()
	return func() { cancel(); <-ended }
}

// answered is an error that a pageserver answered with.
type answered int

func (e answered) Error() string   { return "broken" }
func (e answered) HTTPStatus() int { return int(e) }
func (e answered) Message() string { return "broken" }

func TestEveryShardThatEverWasIsAskedFor(t *testing.T) {
	w := newWorld(t, 2)
	w.silent = []neon.NodeID{1}
	w.tenant(neon.Placement{})
	counts := []neon.ShardCount{2, 0, 2}
	ctx := decide.WithRequest(t.Context(), [32]byte{1})
	w.answers(func(context.Context, neon.NodeID, neon.ShardID) error {
		if err := w.attach(); neon.CodeOf(err) != neon.Conflict {
			t.Errorf("a policy was changed meanwhile: %v", err)
		}
		return nil
	})
	if err := w.travels.Travel(ctx, tenantOne, then, counts); err != nil {
		t.Fatal(err)
	}
	if !decide.HasActed(ctx) {
		t.Error("a later error may say that nothing was done")
	}
	if !slices.Equal(counts, []neon.ShardCount{2, 0, 2}) {
		t.Error("the counts of the caller are changed")
	}
	const call = "on 2: PUT time_travel_remote_storage?done_if_after=later&travel_to=then"
	if got, want := w.took(), []string{
		"shard 0 of 0 " + call, "shard 0 of 2 " + call, "shard 1 of 2 " + call,
	}; !slices.Equal(got, want) {
		t.Errorf("asked %q, not %q", got, want)
	}
	if w.recorded() {
		t.Error("it has not ended")
	}
	if err := w.attach(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// What a pageserver writes to, or may write to, is not put back in time.
func TestATenantThatIsOnAPageserverDoesNotTravel(t *testing.T) {
	stuck := neon.Errorf(neon.Timeout, "Timeout waiting for shard x")
	observed := func(w *world, conf *neon.LocationConfig) {
		w.tenant(neon.Placement{})
		w.observed = map[neon.NodeID]*neon.LocationConfig{1: conf}
	}
	for name, c := range map[string]struct {
		given func(*world)
		code  neon.Code
		text  string
	}{
		"it should be attached": {
			func(w *world) { w.tenant(neon.Attached(0)) }, neon.Internal,
			"We want tenant to be attached in shard with tenant_shard_id=",
		},
		"it should be a secondary": {
			func(w *world) { w.tenant(neon.Placement{Kind: neon.PlaceSecondary}) }, neon.Internal,
			"We want tenant to be attached in shard with tenant_shard_id=",
		},
		"it was seen": {
			func(w *world) { observed(w, &neon.LocationConfig{Mode: neon.AttachedStale}) },
			neon.Internal, "We observed attached=AttachedStale tenant in node_id=1 shard with",
		},
		"it is not known": {
			func(w *world) { observed(w, nil) }, neon.Internal,
			"It is not known whether node_id=1 has shard with tenant_shard_id=",
		},
		"it does not go": {
			func(w *world) {
				w.tenant(neon.Placement{})
				w.await = func() error { return stuck }
			}, neon.Timeout, "Timeout waiting for shard x",
		},
		"it is being deleted": {
			func(w *world) {
				w.tenant(neon.Placement{})
				w.Must(fsm.BeginDeleteTenant{ID: tenantOne})
			}, neon.Conflict, "is being deleted",
		},
		"no node is available": {
			func(w *world) {
				w.Must(fsm.SetNodeAvailability{
					Verdicts: []fsm.Verdict{{Node: 1, To: neon.NodeOffline}},
				})
			}, neon.Conflict, "Scheduling error: No pageservers found",
		},
		"it cannot be known": {
			func(w *world) { w.FailReads(stuck) }, neon.Timeout, "Timeout waiting",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			c.given(w)
			err := w.travels.Travel(t.Context(), tenantOne, then, []neon.ShardCount{0})
			if neon.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v", err)
			}
			if calls := w.took(); len(calls) > 0 || w.recorded() {
				t.Errorf("pageservers were asked: %q, recorded %v", calls, w.recorded())
			}
		})
	}
	w := newWorld(t, 1)
	observed(w, &neon.LocationConfig{Mode: neon.Detached})
	if err := w.travels.Travel(t.Context(), tenantOne, then, []neon.ShardCount{0}); err != nil {
		t.Error(err)
	}
}

// An answer, of whatever kind, says that nothing is under way any more.
func TestATimeTravelThatFailsEnds(t *testing.T) {
	w := newWorld(t, 1)
	w.answers(func(context.Context, neon.NodeID, neon.ShardID) error { return answered(500) })
	err := w.travels.Travel(t.Context(), tenantOne, then, []neon.ShardCount{1})
	if want := fmt.Sprintf(
		"Error doing time travel recovery for shard %s-0001 on node 1 (ps): broken",
		tenantOne); neon.CodeOf(err) != neon.Internal || err.Error() != want {
		t.Errorf("got %v", err)
	}
	if w.recorded() {
		t.Error("it has not ended")
	}
}

// A pageserver that does not answer may go on, and then nobody else is asked: what another
// one says does not tell that the first has ended. Then the leader carries it on, unless
// that is lost too: a call may take longer than it may for good.
func TestATimeTravelWithoutAnAnswerHoldsTheTenant(t *testing.T) {
	for name, heals := range map[string]bool{"once": true, "for good": false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 2)
			w.tenant(neon.Placement{})
			defer w.run(w.travels)()
			var down atomic.Bool
			down.Store(true)
			w.answers(func(context.Context, neon.NodeID, neon.ShardID) error {
				if down.Load() {
					w.silent = []neon.NodeID{1}
					return errors.New("cut off")
				}
				return nil
			})
			ctx := decide.WithRequest(t.Context(), [32]byte{1})
			if err := w.travels.Travel(ctx, tenantOne, then,
				[]neon.ShardCount{0}); neon.CodeOf(err) != neon.Internal {
				t.Error(err)
			}
			held := func(atLeast time.Duration) {
				t.Helper()
				time.Sleep(atLeast)
				if n := len(w.took()); !w.recorded() || n != 1 {
					t.Errorf("%s: asked %d times, recorded %v", name, n, w.recorded())
				}
				if err := w.attach(); neon.CodeOf(err) != neon.Conflict {
					t.Errorf("%s: attached while a pageserver may be at it: %v", name, err)
				}
			}
			held(callTime - time.Second)
			ctx = decide.WithRequest(t.Context(), [32]byte{2})
			if err := w.travels.Travel(ctx, tenantOne, then,
				[]neon.ShardCount{0}); neon.CodeOf(err) != neon.Unavailable {
				t.Errorf("%s: repeated: %v", name, err)
			}
			down.Store(!heals)
			time.Sleep(longestPause)
			if !heals {
				held(callTime - 2*longestPause)
				time.Sleep(3 * longestPause)
			}
			if w.recorded() {
				t.Errorf("%s: it has not ended", name)
			}
			ctx = decide.WithRequest(t.Context(), [32]byte{1})
			if _, done := w.State().Done(decide.NextStep(ctx)); done != heals {
				t.Errorf("%s: the request counts as done: %v", name, done)
			}
		})
	}
}

// A process that was replaced is at nothing. One whose node was deleted may be.
func TestARestartEndsWhatIsWaitedFor(t *testing.T) {
	for name, x := range map[string]struct {
		c    fsm.Command
		ends bool
	}{
		"restart": {fsm.ReAttach{Node: 1}, true}, "deletion": {fsm.DeleteNode{Node: 1}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 2)
			w.answers(func(_ context.Context, n neon.NodeID, _ neon.ShardID) error {
				w.answers(nil)
				return errors.New("cut off")
			})
			defer w.run(w.travels)()
			if w.travels.Travel(t.Context(), tenantOne, then, []neon.ShardCount{0}) == nil {
				t.Error("it has ended")
			}
			w.Must(x.c)
			time.Sleep(10 * time.Second)
			if w.recorded() == x.ends {
				t.Errorf("%s: recorded %v", name, w.recorded())
			}
		})
	}
}

// The leader dies inside, and the next one ends the record. A request that is carried again,
// or repeated, is answered as done, whatever has become of the tenant.
func TestATimeTravelThatALeaderHasEndedIsNotMadeAgain(t *testing.T) {
	for name, attached := range map[string]bool{"away": false, "attached since": true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1)
			w.tenant(neon.Placement{})
			gone := neon.Errorf(neon.Unavailable, "no leader")
			w.answers(func(context.Context, neon.NodeID, neon.ShardID) error {
				w.FailReads(gone)
				w.LoseProposals(gone)
				return nil
			})
			try := func(l *Travels) error {
				ctx := decide.ByClient(decide.WithRequest(t.Context(), [32]byte{1}))
				return l.Travel(ctx, tenantOne, then, []neon.ShardCount{0})
			}
			if err := try(w.travels); err == nil {
				t.Error("it has ended")
			}
			w.FailReads(nil)
			w.LoseProposals(nil)
			w.answers(nil)
			next := w.leader()
			stop := w.run(next)
			time.Sleep(time.Second)
			stop()
			if w.recorded() {
				t.Error("the next leader has not ended it")
			}
			if attached {
				if err := w.attach(); err != nil {
					t.Error(err)
				}
			}
			w.took()
			if err := try(next); err != nil {
				t.Errorf("%s: done, and answered %v", name, err)
			}
			if calls := w.took(); len(calls) > 0 {
				t.Errorf("%s: put back once more: %q", name, calls)
			}
		})
	}
}

// A leader that has died has left it on a pageserver. The next one asks for all again.
func TestTheNextLeaderEndsATimeTravel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.tenant(neon.Placement{})
		gone := neon.Errorf(neon.Unavailable, "no leader")
		w.answers(func(context.Context, neon.NodeID, neon.ShardID) error {
			w.FailReads(gone)
			w.LoseProposals(gone)
			return nil
		})
		if err := w.travels.Travel(t.Context(), tenantOne, then,
			[]neon.ShardCount{0, 2}); err == nil {
			t.Error("it has ended")
		}
		w.FailReads(nil)
		w.LoseProposals(nil)
		w.answers(nil)
		w.took()
		defer w.run(w.leader())()
		time.Sleep(time.Second)
		if calls := w.took(); w.recorded() || len(calls) != 3 {
			t.Errorf("asked %q, recorded %v", calls, w.recorded())
		}
	})
}

func TestARequestThatIsRepeatedTakesTheRecordOver(t *testing.T) {
	w := newWorld(t, 1)
	w.Must(fsm.BeginTravel{
		Tenant: tenantOne, To: then.To, DoneIfAfter: then.DoneIfAfter, Counts: []neon.ShardCount{0},
	})
	if err := w.travels.Travel(t.Context(), tenantOne, neon.TimeTravel{To: "before"},
		[]neon.ShardCount{0}); neon.CodeOf(err) != neon.Conflict || !w.recorded() {
		t.Errorf("another one: %v", err)
	}
	if err := w.travels.Travel(t.Context(), tenantOne, then,
		[]neon.ShardCount{0}); err != nil || w.recorded() {
		t.Errorf("%v, recorded %v", err, w.recorded())
	}
	if calls := w.took(); len(calls) != 1 {
		t.Errorf("asked %q", calls)
	}
}

// A later try of a request whose answer was lost puts nothing back once more: the tenant may
// have been attached since, and have written.
func TestATimeTravelThatWasMadeIsNotMadeAgain(t *testing.T) {
	w := newWorld(t, 1)
	for range 2 {
		ctx := decide.WithRequest(t.Context(), [32]byte{1})
		if err := w.travels.Travel(ctx, tenantOne, then, []neon.ShardCount{0}); err != nil {
			t.Fatal(err)
		}
	}
	if calls := w.took(); len(calls) != 1 {
		t.Errorf("asked %q", calls)
	}
}

// What keeps a leader from carrying it on does not keep the tenant frozen for good: no
// call of the leader before lasts that long.
func TestALeftOverRecordEndsAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.tenant(neon.Placement{})
		w.await = func() error { return neon.Errorf(neon.Timeout, "stuck") }
		w.Must(fsm.BeginTravel{Tenant: tenantOne, Counts: []neon.ShardCount{0}})
		defer w.run(w.travels)()
		time.Sleep(callTime - time.Minute)
		if !w.recorded() {
			t.Error("it has ended while a pageserver may be at it")
		}
		time.Sleep(3 * time.Minute)
		if w.recorded() || len(w.took()) > 0 {
			t.Error("it has not ended")
		}
	})
}

// Two requests for one tenant do not work side by side.
func TestRequestsForOneTenantTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		at, most := 0, 0
		w.answers(func(context.Context, neon.NodeID, neon.ShardID) error {
			at++
			most = max(most, at)
			time.Sleep(time.Second)
			at--
			return nil
		})
		defer w.run(w.travels)()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := w.travels.Travel(t.Context(), tenantOne, then,
					[]neon.ShardCount{0}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if calls := w.took(); most != 1 || len(calls) != 3 {
			t.Errorf("%d at a time, %d calls", most, len(calls))
		}
	})
}

// A leader that was deposed unawares stops at the next shard.
func TestATimeTravelThatSomebodyElseHasEndedStops(t *testing.T) {
	w := newWorld(t, 1)
	w.answers(func(context.Context, neon.NodeID, neon.ShardID) error {
		r, _ := w.State().Travel(tenantOne)
		w.Must(fsm.EndTravel{Tenant: tenantOne, Began: r.Began})
		return nil
	})
	if err := w.travels.Travel(t.Context(), tenantOne, then,
		[]neon.ShardCount{2}); neon.CodeOf(err) != neon.Conflict {
		t.Error(err)
	}
	if calls := w.took(); len(calls) != 1 {
		t.Errorf("asked %q", calls)
	}
}

// Members of the first version know no record. The tenant is looked at before each shard.
func TestATenantTravelsWithoutARecordBeforeTheUpgrade(t *testing.T) {
	w := &world{Faulty: fsmtest.NewFaulty(t), t: t}
	w.AddNodes(t, 1, neon.MakeAZ("a"))
	w.travels = w.leader()
	w.answers(func(context.Context, neon.NodeID, neon.ShardID) error {
		if _, ok := w.State().Tenant(tenantOne); !ok {
			w.tenant(neon.Attached(0))
		}
		return nil
	})
	if err := w.travels.Travel(t.Context(), tenantOne, then,
		[]neon.ShardCount{4}); neon.CodeOf(err) != neon.Internal || w.recorded() {
		t.Errorf("%v, recorded %v", err, w.recorded())
	}
	if calls := w.took(); len(calls) != 1 {
		t.Errorf("asked %q", calls)
	}
}
