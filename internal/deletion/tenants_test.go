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

// fakeReconciler is where everything is as it should be at once, unless told.
type fakeReconciler struct {
	await  func(ctx context.Context, index uint64, shards []neon.ShardID) error
	silent []neon.NodeID
}

func (f *fakeReconciler) Await(ctx context.Context, index uint64, shards ...neon.ShardID) error {
	if f.await != nil {
		return f.await(ctx, index, shards)
	}
	return nil
}
func (f *fakeReconciler) Kick(...neon.ShardID) {}

func (f *fakeReconciler) Silent() []neon.NodeID { return f.silent }

type fakePageservers struct {
	mu     sync.Mutex
	wiped  []neon.NodeID
	broken map[neon.NodeID]bool
	wipe   func() // while a tenant's data is being removed
	hangs  func(neon.TenantID) bool
}

func (f *fakePageservers) breakDown(n neon.NodeID, broken bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = map[neon.NodeID]bool{n: broken}
}

func (f *fakePageservers) tries() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.wiped)
}

func (f *fakePageservers) TenantDelete(ctx context.Context, n *fsm.Node, id neon.TenantID) error {
	if f.hangs != nil && f.hangs(id) {
		<-ctx.Done()
		return ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wiped = append(f.wiped, n.ID)
	if f.wipe != nil {
		f.wipe()
	}
	if f.broken[n.ID] {
		return answered{http.StatusInternalServerError, "broken"}
	}
	return nil
}

func newTenants(l *fsmtest.Faulty, r *fakeReconciler, p *fakePageservers) *Tenants {
	return NewTenants(l, r, p, slog.New(slog.DiscardHandler))
}

var tenantOne = neon.TenantID{1}

// create makes a tenant whose shards are attached on node 1.
func create(l *fsmtest.Faulty, id neon.TenantID, count neon.ShardCount) {
	c := fsm.CreateTenant{
		ID: id, Count: count, Stripe: 8, Policy: neon.Attached(0), Scheduling: neon.ShardActive,
	}
	for range count {
		c.Shards = append(c.Shards, fsm.NewShard{Attached: 1})
	}
	l.Must(c)
}

func TestDeleteGoesOnlyAfterEverythingIsDetached(t *testing.T) {
	l := fsmtest.NewFaulty(t)
	l.AddNodes(t, 2, neon.MakeAZ("a"))
	pageservers := &fakePageservers{}
	reality := &fakeReconciler{}
	tenants := newTenants(l, reality, pageservers)
	create(l, tenantOne, 4)
	stuck := neon.Errorf(neon.Timeout, "Timeout waiting for shard x")
	reality.await = func(_ context.Context, index uint64, shards []neon.ShardID) error {
		for sh := range l.State().TenantShards(tenantOne) {
			if sh.Attached != 0 || len(shards) != 4 || index == 0 {
				t.Errorf("waits for %d shards at %d while %s is on %d", len(shards), index, sh.ID,
					sh.Attached)
			}
		}
		return stuck
	}
	if err := tenants.Delete(t.Context(), tenantOne); !errors.Is(err, stuck) {
		t.Errorf("got %v", err)
	}
	if len(pageservers.wiped) > 0 || l.State().TenantCount() != 1 {
		t.Error("data was removed while the tenant may be attached")
	}
	reality.await = nil
	pageservers.breakDown(1, true)
	if err := tenants.Delete(t.Context(), tenantOne); err != nil {
		t.Error(err)
	}
	if !slices.Equal(pageservers.wiped, []neon.NodeID{1, 2}) || l.State().TenantCount() != 0 {
		t.Errorf("asked %v, %d tenants left", pageservers.wiped, l.State().TenantCount())
	}
}

func TestDeletedAndCreatedAgainTenantIsNotWiped(t *testing.T) {
	l := fsmtest.NewFaulty(t)
	l.AddNodes(t, 1, neon.MakeAZ("a"))
	pageservers := &fakePageservers{}
	tenants := newTenants(l, &fakeReconciler{}, pageservers)
	create(l, tenantOne, 1)
	if _, err := l.Commit(fsm.RequestID{}, fsm.BeginDeleteTenant{ID: tenantOne}); err != nil {
		t.Fatal(err)
	}
	deposed := l.State()
	l.Must(fsm.FinishDeleteTenant{ID: tenantOne})
	create(l, tenantOne, 1)
	l.Lag(deposed)
	_ = tenants.finishDelete(t.Context(), tenantOne, deposed.Index)
	if len(pageservers.wiped) > 0 {
		t.Error("a deposed leader wiped the new tenant")
	}
	if tenant, ok := l.Log.State().Tenant(tenantOne); !ok || tenant.Deleting {
		t.Error("the new tenant is gone")
	}
}

// A request that was slow with a deletion leaves the next one of the same tenant alone: its
// shards may still be attached.
func TestDeletionEndsNoOtherOfTheSameTenant(t *testing.T) {
	l := fsmtest.NewFaulty(t)
	l.AddNodes(t, 2, neon.MakeAZ("a"))
	ps := &fakePageservers{broken: map[neon.NodeID]bool{1: true, 2: true}}
	tenants := newTenants(l, &fakeReconciler{}, ps)
	create(l, tenantOne, 1)
	again := func() {
		l.Must(fsm.FinishDeleteTenant{ID: tenantOne})
		create(l, tenantOne, 1)
		l.Must(fsm.BeginDeleteTenant{ID: tenantOne})
	}
	ps.wipe = func() { ps.wipe = nil; again() }
	if err := tenants.Delete(t.Context(), tenantOne); err != nil || ps.tries() != 1 {
		t.Errorf("%v, and the data was removed %d times", err, ps.tries())
	}
	ps.breakDown(1, false)
	l.Before = func(c fsm.Command) {
		if _, ok := c.(fsm.FinishDeleteTenant); ok {
			l.Before = nil
			again()
		}
	}
	if err := tenants.Delete(t.Context(), tenantOne); err != nil {
		t.Error(err)
	}
	if tenant, ok := l.State().Tenant(tenantOne); !ok || !tenant.Deleting {
		t.Errorf("%+v, %v", tenant, ok)
	}
}

// TestDeletionsThatCannotGoOnHoldUpNoOther: neither those whose locations do not go, nor
// those whose data cannot be removed.
func TestDeletionsThatCannotGoOnHoldUpNoOther(t *testing.T) {
	for _, stuck := range []string{"locations", "data"} {
		synctest.Test(t, func(t *testing.T) {
			l := fsmtest.NewFaulty(t)
			l.AddNodes(t, 1, neon.MakeAZ("a"))
			pageservers := &fakePageservers{}
			reality := &fakeReconciler{}
			tenants := newTenants(l, reality, pageservers)
			begin := func(id neon.TenantID) {
				create(l, id, 1)
				l.Must(fsm.BeginDeleteTenant{ID: id})
			}
			isStuck := func(id neon.TenantID) bool { return id[0] == 2 }
			if stuck == "locations" {
				reality.await = func(ctx context.Context, _ uint64, ids []neon.ShardID) error {
					if !isStuck(ids[0].Tenant) {
						return nil
					}
					<-ctx.Done()
					return ctx.Err()
				}
			} else {
				pageservers.hangs = isStuck
			}
			for n := range byte(200) {
				begin(neon.TenantID{2, n})
			}
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { tenants.Run(ctx) })
			time.Sleep(time.Hour)
			begin(tenantOne)
			tenants.handOver(tenantOne)
			time.Sleep(5 * time.Second)
			synctest.Wait()
			if _, ok := l.State().Tenant(tenantOne); ok {
				t.Errorf("%s: a deletion that could go on is not finished", stuck)
			}
			cancel()
			running.Wait()
		})
	}
}

// Run finishes what it finds at its start and what requests leave to it.
func TestDeletionsAreResumedUntilTheyAreDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := fsmtest.NewFaulty(t)
		l.AddNodes(t, 1, neon.MakeAZ("a"))
		pageservers := &fakePageservers{}
		pageservers.breakDown(1, true)
		tenants := newTenants(l, &fakeReconciler{}, pageservers)
		create(l, tenantOne, 1)
		l.Must(fsm.BeginDeleteTenant{ID: tenantOne})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { tenants.Run(ctx); close(ended) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		tries := pageservers.tries()
		if tries < 5*removeTries || tries > 20*removeTries {
			t.Errorf("%d tries in a minute", tries)
		}
		pageservers.breakDown(1, false)
		time.Sleep(longestPause)
		synctest.Wait()
		if l.State().TenantCount() != 0 {
			t.Fatal("the deletion was not finished")
		}

		create(l, tenantOne, 1)
		pageservers.breakDown(1, true)
		if err := tenants.Delete(ctx, tenantOne); err == nil {
			t.Error("a failed deletion succeeded")
		}
		pageservers.breakDown(1, false)
		time.Sleep(longestPause)
		synctest.Wait()
		if l.State().TenantCount() != 0 {
			t.Error("what a request left was not finished")
		}
		cancel()
		<-ended
	})
}

// A request that gives up while the deletion is on its way into the log does not know
// of it.
func TestADeletionThatNobodyKnowsOfIsFinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := fsmtest.NewFaulty(t)
		l.AddNodes(t, 1, neon.MakeAZ("a"))
		tenants := newTenants(l, &fakeReconciler{}, &fakePageservers{})
		create(l, tenantOne, 1)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { tenants.Run(ctx); close(ended) }()
		gone := neon.Errorf(neon.OutcomeUnknown, "gone")
		l.LoseProposals(gone)
		if err := tenants.Delete(ctx, tenantOne); !errors.Is(err, gone) {
			t.Error(err)
		}
		time.Sleep(time.Second)
		l.LoseProposals(nil)
		l.Must(fsm.BeginDeleteTenant{ID: tenantOne}) // only now a majority has it
		time.Sleep(2 * longestPause)
		synctest.Wait()
		if l.State().TenantCount() != 0 {
			t.Error("the deletion was not finished")
		}
		cancel()
		<-ended
	})
}

func TestADeletionThatHangsHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := fsmtest.NewFaulty(t)
		l.AddNodes(t, 1, neon.MakeAZ("a"))
		reality := &fakeReconciler{}
		tenants := newTenants(l, reality, &fakePageservers{})
		const n = 12
		for i := range byte(n) {
			id := neon.TenantID{i + 1}
			create(l, id, 1)
			l.Must(fsm.BeginDeleteTenant{ID: id})
		}
		reality.await = func(ctx context.Context, _ uint64, shards []neon.ShardID) error {
			if shards[0].Tenant[0]%2 == 0 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { tenants.Run(ctx); close(ended) }()
		time.Sleep(time.Second)
		synctest.Wait()
		if left := l.State().TenantCount(); left != n/2 {
			t.Errorf("%d tenants are left", left)
		}
		cancel()
		<-ended
	})
}

// Any pageserver can remove remote data, so one that answers is asked.
func TestDataIsRemovedByAPageserverThatAnswers(t *testing.T) {
	l := fsmtest.NewFaulty(t)
	l.AddNodes(t, 3, neon.MakeAZ("a"))
	pageservers := &fakePageservers{}
	reality := &fakeReconciler{silent: []neon.NodeID{1, 2}}
	create(l, tenantOne, 1)
	if err := newTenants(l, reality, pageservers).Delete(t.Context(), tenantOne); err != nil {
		t.Error(err)
	}
	if !slices.Equal(pageservers.wiped, []neon.NodeID{3}) {
		t.Errorf("asked %v", pageservers.wiped)
	}
}
