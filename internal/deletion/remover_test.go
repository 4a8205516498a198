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
)

// removers are pageservers that go on with a removal when their caller is gone, and are at
// one after another. Whatever is removed while there is a tenant that is not being deleted
// is data of a tenant that was made later.
type removers struct {
	t   *testing.T
	log *fsmtest.Faulty

	mu     sync.Mutex
	takes  time.Duration // of each removal
	at     map[neon.NodeID]bool
	fails  map[neon.NodeID]error // instead of an answer
	asked  []neon.NodeID
	most   int // removals at a time
	killed map[neon.NodeID]bool
}

// notSent is the error of a request that has not arrived.
type notSent struct{}

func (notSent) Error() string { return "refused" }
func (notSent) NotSent() bool { return true }

func (f *removers) TenantDelete(ctx context.Context, n *fsm.Node, id neon.TenantID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, n.ID)
	if err := f.fails[n.ID]; err != nil {
		return err
	}
	if f.at[n.ID] {
		return answered{http.StatusServiceUnavailable, "Tenant is being modified concurrently"}
	}
	f.at[n.ID] = true
	f.most = max(f.most, len(f.at))
	done := make(chan struct{})
	time.AfterFunc(f.takes, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.at, n.ID)
		if tenant, ok := f.log.Log.State().Tenant(id); ok && !tenant.Deleting && !f.killed[n.ID] {
			f.t.Errorf("pageserver %d removes the data of the next tenant", n.ID)
		}
		close(done)
	})
	f.mu.Unlock()
	defer f.mu.Lock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (f *removers) calls() []neon.NodeID {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.asked
	f.asked = nil
	return asked
}

func (f *removers) fail(n neon.NodeID, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails[n] = err
}

func (f *removers) setTakes(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.takes = d
}

// newRemovers has three nodes and tenantOne, whose removal takes some time.
func newRemovers(t *testing.T, takes time.Duration) (*removers, *Tenants) {
	l := fsmtest.NewFaulty(t)
	l.Upgrade(t)
	l.AddNodes(t, 3, neon.MakeAZ("a"))
	create(l, tenantOne, 1)
	f := &removers{
		t: t, log: l, takes: takes, at: map[neon.NodeID]bool{}, fails: map[neon.NodeID]error{},
		killed: map[neon.NodeID]bool{},
	}
	return f, f.leader()
}

// leader is what a leader knows at the beginning of its term.
func (f *removers) leader() *Tenants {
	return NewTenants(f.log, &fakeReconciler{}, f, slog.New(slog.DiscardHandler))
}

// recreate creates the tenant as soon as the log lets it.
func (f *removers) recreate() {
	c := fsm.CreateTenant{
		ID: tenantOne, Count: 1, Stripe: 8, Policy: neon.Attached(0),
		Scheduling: neon.ShardActive, Shards: []fsm.NewShard{{Attached: 1}},
	}
	for range 6000 {
		if _, err := f.log.Commit(fsm.RequestID{}, c); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func TestTwoRequestsShareOneRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, tenants := newRemovers(t, 10*time.Second)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := tenants.Delete(t.Context(), tenantOne); err != nil {
					t.Error(err)
				}
			})
			time.Sleep(time.Second)
		}
		wg.Go(f.recreate)
		wg.Wait()
		time.Sleep(time.Minute)
		if calls := f.calls(); len(calls) != 1 || f.most != 1 {
			t.Errorf("asked %v, %d at a time", calls, f.most)
		}
	})
}

// Who gives a request up ends no removal: else clients that wait for less than it takes would
// begin it again and again, and none would hear of its end.
func TestARemovalOutlivesItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, tenants := newRemovers(t, 19*time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { tenants.Run(ctx) })
		synctest.Wait()
		began := time.Now()
		for err := error(context.DeadlineExceeded); err != nil; {
			if time.Since(began) > time.Minute {
				t.Fatalf("it is not deleted, after the pageservers %v were asked: %v", f.calls(), err)
			}
			try, give := context.WithTimeout(t.Context(), 10*time.Second)
			if err = tenants.Delete(try, tenantOne); neon.CodeOf(err) == neon.NotFound {
				err = nil
			}
			give()
		}
		if calls := f.calls(); len(calls) != 1 || time.Since(began) > 20*time.Second {
			t.Errorf("asked %v, deleted after %s", calls, time.Since(began))
		}
		cancel()
		run.Wait()
	})
}

// The end of the term ends what requests have left to it.
func TestARemovalEndsWithTheTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, tenants := newRemovers(t, time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { tenants.Run(ctx) })
		synctest.Wait()
		try, give := context.WithTimeout(t.Context(), time.Second)
		defer give()
		if err := tenants.Delete(try, tenantOne); err == nil {
			t.Error("it is deleted")
		}
		began := time.Now()
		cancel()
		run.Wait()
		if time.Since(began) > 0 {
			t.Errorf("the term ended after %s", time.Since(began))
		}
	})
}

// A leader that is not one any more has asked, and its removal goes on.
func TestTheNextLeaderAsksTheSameRemover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, first := newRemovers(t, 20*time.Second)
		f.fail(1, answered{http.StatusInternalServerError, "broken"})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := first.Delete(ctx, tenantOne); err == nil {
			t.Error("it has ended")
		}
		f.fail(1, nil)
		f.setTakes(time.Second) // there is nothing left then
		var wg sync.WaitGroup
		wg.Go(f.recreate)
		if err := f.leader().Delete(t.Context(), tenantOne); err != nil {
			t.Error(err)
		}
		wg.Wait()
		time.Sleep(time.Minute)
		calls := f.calls()
		if len(calls) < 3 || calls[0] != 1 || slices.Contains(calls[1:], 1) ||
			slices.Contains(calls, 3) || f.most != 1 {
			t.Errorf("asked %v, %d at a time", calls, f.most)
		}
	})
}

// Without an answer a removal may go on.
func TestARemoverThatDoesNotAnswerIsAskedUntilItDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, tenants := newRemovers(t, 0)
		f.fail(1, errors.New("cut off"))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { tenants.Run(ctx) })
		if err := tenants.Delete(ctx, tenantOne); neon.CodeOf(err) != neon.Internal {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		if calls := f.calls(); len(calls) < 20 || slices.Max(calls) != 1 {
			t.Errorf("asked %v", calls)
		}
		offline := func(to neon.NodeAvailability) {
			f.log.Must(fsm.SetNodeAvailability{Verdicts: []fsm.Verdict{{Node: 1, To: to}}})
		}
		offline(neon.NodeOffline)
		time.Sleep(2 * longestPause)
		if f.calls(); f.log.State().TenantCount() != 1 {
			t.Error("it has ended though the pageserver may go on")
		}
		time.Sleep(10 * longestPause)
		if calls := f.calls(); len(calls) != 0 {
			t.Errorf("asked %v, which is not available", calls)
		}
		offline(neon.NodeActive)
		f.fail(1, nil)
		time.Sleep(2 * longestPause)
		synctest.Wait()
		if calls := f.calls(); f.log.State().TenantCount() != 0 || !slices.Equal(calls,
			[]neon.NodeID{1}) {
			t.Errorf("asked %v, and it has not ended", calls)
		}
		cancel()
		running.Wait()
	})
}

// The end of its process is the end of its removal, and so is a deletion of its node by
// force, which says that the process is dead.
func TestAnotherIsAskedAfterTheEndOfTheRemover(t *testing.T) {
	for name, end := range map[string][]fsm.Command{
		"it restarts": {fsm.ReAttach{Node: 1}},
		"it is deleted by force": {fsm.BeginNodeOperation{
			Node: 1, Kind: fsm.OperationDelete, Force: true, Prior: neon.SchedulingActive,
		}, fsm.DeleteNode{Node: 1}},
	} {
		synctest.Test(t, func(t *testing.T) {
			f, tenants := newRemovers(t, time.Hour)
			if err := tenants.Delete(t.Context(), tenantOne); err == nil {
				t.Error("it has ended")
			}
			f.killed[1] = true
			for _, c := range end {
				f.log.Must(c)
			}
			f.setTakes(0)
			f.calls()
			if err := tenants.Delete(t.Context(), tenantOne); err != nil {
				t.Error(name, err)
			}
			if calls := f.calls(); !slices.Equal(calls, []neon.NodeID{2}) {
				t.Errorf("%s: asked %v", name, calls)
			}
			time.Sleep(2 * time.Hour)
		})
	}
}

// A process goes on with a removal whose node was deleted, so a deletion that is not forced
// waits, and so does the next tenant of that id.
func TestADeletionOfTheRemoverWaitsForItsRemoval(t *testing.T) {
	for name, begin := range map[string][]fsm.Command{
		"delete": {fsm.BeginNodeOperation{
			Node: 1, Kind: fsm.OperationDelete, Prior: neon.SchedulingActive,
		}},
		"drop": nil,
	} {
		synctest.Test(t, func(t *testing.T) {
			f, tenants := newRemovers(t, 20*time.Minute)
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { tenants.Run(ctx) })
			if err := tenants.Delete(t.Context(), tenantOne); err == nil {
				t.Error("it has ended")
			}
			f.setTakes(time.Second) // there is nothing left then
			for _, c := range begin {
				f.log.Must(c)
			}
			_, err := f.log.Commit(fsm.RequestID{}, fsm.DeleteNode{Node: 1})
			if neon.CodeOf(err) != neon.Conflict {
				t.Errorf("%s: the node is deleted: %v", name, err)
			}
			f.recreate()
			for time.Sleep(time.Minute); ; time.Sleep(time.Minute) {
				if tenant, ok := f.log.State().Tenant(tenantOne); !ok || !tenant.Deleting {
					break
				}
			}
			if calls := f.calls(); slices.Max(calls) != 1 {
				t.Errorf("%s: asked %v", name, calls)
			}
			f.log.Must(fsm.DeleteNode{Node: 1})
			time.Sleep(time.Hour)
			cancel()
			running.Wait()
		})
	}
}

// A pageserver that is being deleted removes nothing where another one can: its deletion
// would wait for that.
func TestWhatIsBeingDeletedRemovesNothing(t *testing.T) {
	for n := range neon.NodeID(3) {
		f, tenants := newRemovers(t, 0)
		for id := range n + 1 {
			f.log.Must(fsm.BeginNodeOperation{
				Node: id + 1, Kind: fsm.OperationDelete, Prior: neon.SchedulingActive,
			})
		}
		if err := tenants.Delete(t.Context(), tenantOne); err != nil {
			t.Error(err)
		}
		if calls := f.calls(); !slices.Equal(calls, []neon.NodeID{min(n+2, 3)}) {
			t.Errorf("asked %v", calls)
		}
	}
}

// A pageserver that nobody has reached is at nothing.
func TestAnotherIsAskedWhereTheRequestHasNotArrived(t *testing.T) {
	f, tenants := newRemovers(t, 0)
	f.fail(1, notSent{})
	if err := tenants.Delete(t.Context(), tenantOne); err != nil {
		t.Error(err)
	}
	if calls := f.calls(); !slices.Equal(calls, []neon.NodeID{1, 2}) {
		t.Errorf("asked %v", calls)
	}
	// Somebody else may have reached it, or have made it begin what goes on.
	create(f.log, tenantOne, 1)
	f.log.Must(fsm.BeginDeleteTenant{ID: tenantOne})
	f.log.Must(fsm.NoteRemover{ID: tenantOne, Sequence: f.log.State().Index, Node: 1})
	for _, err := range []error{notSent{}, answered{http.StatusForbidden, "no"}} {
		f.fail(1, err)
		if err := tenants.Delete(t.Context(), tenantOne); err == nil {
			t.Error("it has ended")
		}
		if calls := f.calls(); !slices.Equal(calls, []neon.NodeID{1}) {
			t.Errorf("asked %v after %v", calls, err)
		}
	}
	f.fail(1, answered{http.StatusInternalServerError, "broken"})
	if err := tenants.Delete(t.Context(), tenantOne); err != nil {
		t.Error(err)
	}
	if calls := f.calls(); !slices.Equal(calls, []neon.NodeID{1, 2}) {
		t.Errorf("asked %v", calls)
	}
}

// Members of the first version know no remover.
func TestDataIsRemovedWithoutARecordBeforeTheUpgrade(t *testing.T) {
	l := fsmtest.NewFaulty(t)
	l.AddNodes(t, 2, neon.MakeAZ("a"))
	create(l, tenantOne, 1)
	ps := &fakePageservers{}
	if err := newTenants(l, &fakeReconciler{}, ps).Delete(t.Context(), tenantOne); err != nil ||
		ps.tries() != 1 {
		t.Errorf("%v after %d tries", err, ps.tries())
	}
}
