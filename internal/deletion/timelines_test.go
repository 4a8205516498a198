package deletion

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
	"quorate/internal/decide"
	"quorate/internal/duty"
)

var timelineOne = neon.TimelineRef{Tenant: tenantOne, Timeline: neon.TimelineID{2}}

// shards answer how far the deletion of a timeline is.
type shards struct {
	hold   func(shard neon.ShardNumber) // while a call is under way
	mu     sync.Mutex
	asked  []neon.ShardNumber
	nodes  []neon.NodeID // that were asked
	answer func(shard neon.ShardNumber) (status int, err error)

	branches func(node neon.NodeID, shard neon.ShardNumber) (bool, error) // nil: there are none
}

func (f *shards) HasBranches(
	_ context.Context, node *fsm.Node, shard neon.ShardID, _ neon.TimelineID,
) (bool, error) {
	if f.branches == nil {
		return false, nil
	}
	return f.branches(node.ID, shard.Number)
}

func (f *shards) TimelineDelete(
	_ context.Context, node *fsm.Node, shard neon.ShardID, _ neon.TimelineID,
) (int, error) {
	if f.hold != nil {
		f.hold(shard.Number)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked, f.nodes = append(f.asked, shard.Number), append(f.nodes, node.ID)
	if f.answer == nil {
		return http.StatusNotFound, nil
	}
	return f.answer(shard.Number)
}

func (f *shards) set(answer func(neon.ShardNumber) (int, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func (f *shards) calls() []neon.ShardNumber {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]neon.ShardNumber(nil), f.asked...)
}

// answered is an error that a pageserver answered with.
type answered struct {
	status int
	text   string
}

func (e answered) Error() string   { return e.text }
func (e answered) HTTPStatus() int { return e.status }
func (e answered) Message() string { return e.text }

type timelineWorld struct {
	*fsmtest.Faulty
	shards    shards
	turns     duty.Turns[neon.TimelineRef]
	creating  duty.Turns[neon.TimelineRef]
	timelines *Timelines
	observed  map[neon.NodeID]*neon.LocationConfig
}

// Status says where shards were seen besides on their owners.
func (w *timelineWorld) Status(neon.ShardID) decide.ShardStatus {
	return decide.ShardStatus{Observed: w.observed}
}

// newTimelineWorld has a tenant with four shards on node 1.
func newTimelineWorld(t *testing.T) *timelineWorld {
	w := &timelineWorld{Faulty: fsmtest.NewFaulty(t)}
	w.AddNodes(t, 1, neon.MakeAZ("a"))
	create(w.Faulty, tenantOne, 4)
	w.Attach(t, tenantOne)
	w.timelines = NewTimelines(w, w, &w.shards, &w.turns, &w.creating,
		slog.New(slog.DiscardHandler))
	w.Subscribe(w.timelines.Changed)
	return w
}

func (w *timelineWorld) delete(ctx context.Context) (Stage, error) {
	return w.timelines.Delete(ctx, timelineOne.Tenant, timelineOne.Timeline)
}

// run does the leader's work and returns what ends it.
func (w *timelineWorld) run(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { w.timelines.Run(ctx); close(ended) }()
	return func() { cancel(); <-ended }
}

func (w *timelineWorld) recorded() bool {
	_, ok := w.State().TimelineDelete(timelineOne)
	return ok
}

// The origin of a move has the timeline still, and goes on uploading: it is asked before the
// new owner, and the deletion is not over while it has something left.
func TestTheOriginOfAMoveIsAskedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTimelineWorld(t)
		w.AddNodes(t, 3, neon.MakeAZ("a"))
		w.observed = map[neon.NodeID]*neon.LocationConfig{
			1: {Mode: neon.AttachedMulti}, 2: {Mode: neon.AttachedStale}, 3: {Mode: neon.Secondary},
		}
		calls := 0
		w.shards.set(func(neon.ShardNumber) (int, error) {
			if calls++; calls <= 4 {
				return http.StatusAccepted, nil
			}
			return http.StatusNotFound, nil
		})
		if stage, err := w.delete(t.Context()); stage != Done || err != nil {
			t.Fatal(stage, err)
		}
		want := []neon.NodeID{2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1}
		if !slices.Equal(w.shards.nodes, want) {
			t.Errorf("asked %v", w.shards.nodes)
		}
	})
}

// The owner may have a branch that the origin never got: the origin was not known, or not
// available, when the branch was made. The owner refuses, so the origin deletes nothing.
func TestTheOriginDeletesNothingThatTheOwnerRefuses(t *testing.T) {
	for name, x := range map[string]struct {
		origin   int // its answer
		branches error
		recorded bool
		code     neon.Code
	}{
		"the origin has it":  {http.StatusAccepted, nil, false, neon.Internal},
		"the origin has not": {http.StatusNotFound, nil, false, neon.Internal},
		"the owner is not there": {
			http.StatusAccepted, answered{http.StatusNotFound, "NotFound: tenant"}, true,
			neon.Unavailable,
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newTimelineWorld(t)
			w.AddNodes(t, 2, neon.MakeAZ("a"))
			w.observed = map[neon.NodeID]*neon.LocationConfig{
				1: {Mode: neon.AttachedMulti}, 2: {Mode: neon.AttachedStale},
			}
			w.shards.branches = func(n neon.NodeID, _ neon.ShardNumber) (bool, error) {
				return n == 1 && x.branches == nil, x.branches
			}
			w.shards.set(func(neon.ShardNumber) (int, error) {
				if w.shards.nodes[len(w.shards.nodes)-1] == 2 {
					return x.origin, nil
				}
				return 0, answered{http.StatusPreconditionFailed,
					"Cannot delete timeline which has child timelines: [x]"}
			})
			_, err := w.delete(t.Context())
			if neon.CodeOf(err) != x.code || w.recorded() != x.recorded {
				t.Errorf("%s: %v, recorded %v", name, err, w.recorded())
			}
			if slices.Contains(w.shards.nodes, 2) {
				t.Errorf("%s: the origin was asked: %v", name, w.shards.nodes)
			}
		})
	}
}

func TestTheFirstShardIsAskedWhenTheOthersHaveNothingLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTimelineWorld(t)
		left := 1
		w.shards.set(func(shard neon.ShardNumber) (int, error) {
			if !w.recorded() {
				t.Error("a pageserver hears of a deletion that is not recorded")
			}
			if shard == 2 && left > 0 {
				left--
				return http.StatusAccepted, nil
			}
			return http.StatusNotFound, nil
		})
		stage, err := w.delete(t.Context())
		if err != nil || stage != Done || w.recorded() {
			t.Errorf("%d, %v", stage, err)
		}
		calls := w.shards.calls()
		for i, shard := range calls {
			if (shard == 0) != (i == len(calls)-1) {
				t.Errorf("asked in the order %v", calls)
			}
		}
	})
}

func TestADeletionThatTakesLongIsLeftToTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTimelineWorld(t)
		w.shards.set(func(neon.ShardNumber) (int, error) { return http.StatusAccepted, nil })
		begun := time.Now()
		stage, err := w.delete(t.Context())
		if took := time.Since(begun); err != nil || stage != Runs || took > waitLimit {
			t.Errorf("%d, %v after %s", stage, err, took)
		}
		if !w.recorded() {
			t.Error("nobody would finish it")
		}
	})
}

func TestADeletionThatAllRefuseIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTimelineWorld(t)
		w.shards.set(func(neon.ShardNumber) (int, error) {
			return 0, answered{http.StatusPreconditionFailed, "it has branches"}
		})
		if _, err := w.delete(t.Context()); err == nil || w.recorded() {
			t.Errorf("%v, recorded %v", err, w.recorded())
		}
	})
}

// A pageserver that has begun, or may have, cannot be made to stop.
func TestADeletionThatMayHaveBegunIsNotTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTimelineWorld(t)
		for _, other := range []error{nil, errors.New("no answer")} {
			w.shards.set(func(shard neon.ShardNumber) (int, error) {
				if shard == 1 {
					return 0, answered{http.StatusPreconditionFailed, "it has branches"}
				}
				return http.StatusAccepted, other
			})
			if _, err := w.delete(t.Context()); err == nil || !w.recorded() {
				t.Errorf("%v, recorded %v", err, w.recorded())
			}
		}
	})
}

func TestAnswersOfPageserversBecomeErrorsForClients(t *testing.T) {
	for _, c := range []struct {
		err  error
		want neon.Code
	}{
		{answered{http.StatusServiceUnavailable, "starting"}, neon.Unavailable},
		{answered{http.StatusPreconditionFailed, missingTenant}, neon.Unavailable},
		{answered{http.StatusPreconditionFailed, "it has branches"}, neon.Internal},
		{neon.Errorf(neon.Timeout, "no answer"), neon.Timeout},
	} {
		if got := neon.CodeOf(deleteError(c.err)); got != c.want {
			t.Errorf("%v has the code %v, not %v", c.err, got, c.want)
		}
	}
	if refusal(answered{http.StatusPreconditionFailed, missingTenant}) {
		t.Error("a pageserver without the tenant refuses nothing")
	}
}

func TestTheLeaderFinishesAtOnceWhatAnEarlierOneLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTimelineWorld(t)
		w.Must(fsm.BeginDeleteTimeline{
			Tenant: timelineOne.Tenant, Timeline: timelineOne.Timeline,
		})
		defer w.run(t)()
		time.Sleep(time.Second)
		if w.recorded() {
			t.Error("it is not finished")
		}
	})
}

func TestTheLeaderLeavesADeletionToItsRequestForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTimelineWorld(t)
		defer w.run(t)()
		synctest.Wait()
		w.Must(fsm.BeginDeleteTimeline{
			Tenant: timelineOne.Tenant, Timeline: timelineOne.Timeline,
		})
		time.Sleep(requestTime - time.Second)
		if n := len(w.shards.calls()); n > 0 {
			t.Errorf("%d calls besides those of the request", n)
		}
		w.shards.set(func(neon.ShardNumber) (int, error) { return 0, errors.New("down") })
		time.Sleep(time.Minute)
		synctest.Wait()
		if !w.recorded() {
			t.Fatal("it has ended while the pageserver is down")
		}
		w.shards.set(nil)
		time.Sleep(longestPause)
		synctest.Wait()
		if w.recorded() {
			t.Error("it is not finished")
		}
	})
}

// The entry that records a deletion ends an import. Its work may hang, and the request may
// have died before it said so.
func TestTheLeaderInterruptsTheImportOfADeletedTimeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTimelineWorld(t)
		importing, cancel := context.WithCancel(t.Context())
		release, err := w.turns.Take(t.Context(), timelineOne, cancel)
		if err != nil {
			t.Fatal(err)
		}
		w.Must(fsm.BeginDeleteTimeline{
			Tenant: timelineOne.Tenant, Timeline: timelineOne.Timeline,
		})
		defer w.run(t)()
		synctest.Wait()
		if importing.Err() == nil {
			t.Error("the import goes on")
		}
		time.Sleep(time.Hour)
		if n := len(w.shards.calls()); n > 0 {
			t.Errorf("%d calls before the import has ended", n)
		}
		release()
		time.Sleep(time.Second)
		if w.recorded() {
			t.Error("it is not finished")
		}
	})
}

func TestOneAtATimeDeletesATimeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTimelineWorld(t)
		asking, most := 0, 0
		w.shards.hold = func(shard neon.ShardNumber) {
			if shard != 0 {
				return
			}
			asking++
			most = max(most, asking)
			time.Sleep(time.Second)
			asking--
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if stage, err := w.delete(t.Context()); err != nil || stage != Done {
					t.Errorf("%d, %v", stage, err)
				}
			})
		}
		wg.Wait()
		if most > 1 || w.recorded() {
			t.Errorf("%d ask the first shard at a time, recorded %v", most, w.recorded())
		}
	})
}

// A pageserver that is at the deletion already, for a leader that has died, says 409.
func TestADeletionThatIsUnderWayIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTimelineWorld(t)
		end := time.Now().Add(10 * time.Second)
		w.shards.set(func(neon.ShardNumber) (int, error) {
			if time.Now().Before(end) {
				return 0, answered{http.StatusConflict, "deletion is in progress"}
			}
			return http.StatusNotFound, nil
		})
		if stage, err := w.delete(t.Context()); err != nil || stage != Done || w.recorded() {
			t.Errorf("%d, %v, recorded %v", stage, err, w.recorded())
		}
	})
}

// A creation that is under way would go on with shards that have nothing left.
func TestADeletionWaitsForACreation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTimelineWorld(t)
		created, err := w.creating.Take(t.Context(), timelineOne, nil)
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if stage, err := w.delete(t.Context()); err != nil || stage != Runs ||
			time.Since(begun) > waitLimit {
			t.Errorf("%d, %v after %s", stage, err, time.Since(begun))
		}
		if n := len(w.shards.calls()); n > 0 || !w.recorded() {
			t.Errorf("%d calls, recorded %v", n, w.recorded())
		}
		time.AfterFunc(time.Second, created)
		if stage, err := w.delete(t.Context()); err != nil || stage != Done {
			t.Errorf("%d, %v", stage, err)
		}
	})
}
