package controller

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

func TestStaleDecisionIsMadeAgain(t *testing.T) {
	l := newLog(t)
	l.addNodes(2)
	tenants := NewTenants(newDeps(l, &fakeReality{}, &fakePageservers{}))
	create(t, tenants, 2)
	faster := 0
	l.before = func(c fsm.Command) {
		if u, ok := c.(fsm.UpdateTenant); ok && faster < 3 {
			faster++
			conf, _ := neon.TenantConfig{}.With("gc_horizon", []byte{'0' + byte(faster)})
			l.must(fsm.UpdateTenant{ID: u.ID, Sequence: u.Sequence, Config: &conf})
		}
	}
	if err := tenants.PatchConfig(t.Context(), tenantOne,
		[]byte(`{"checkpoint_distance":7}`)); err != nil {
		t.Fatal(err)
	}
	if tenant, _ := l.State().
		Tenant(tenantOne); tenant.Config.JSON() != `{"checkpoint_distance":7,"gc_horizon":3}` {
		t.Errorf("config is %s", tenant.Config.JSON())
	}
}

func TestDecisionsThatAreAlwaysStaleEndInAConflict(t *testing.T) {
	l := newLog(t)
	l.addNodes(1)
	tenants := NewTenants(newDeps(l, &fakeReality{}, &fakePageservers{}))
	create(t, tenants, 1)
	n := byte(0)
	l.before = func(c fsm.Command) {
		if u, ok := c.(fsm.UpdateTenant); ok {
			n++
			conf, _ := neon.TenantConfig{}.With("gc_horizon", []byte{'0' + n%10})
			l.must(fsm.UpdateTenant{ID: u.ID, Sequence: u.Sequence, Config: &conf})
		}
	}
	err := tenants.PatchConfig(t.Context(), tenantOne, []byte(`{"checkpoint_distance":7}`))
	if neon.CodeOf(err) != neon.Conflict || n != decisions {
		t.Errorf("%v after %d decisions", err, n)
	}
}

// A leader that was just elected has not applied all that was acknowledged: a
// tenant it does not see may exist.
func TestFreshLeaderRefusesNothingFromMemory(t *testing.T) {
	l := newLog(t)
	empty := l.State()
	l.addNodes(2)
	deps := newDeps(l, &fakeReality{}, &fakePageservers{})
	tenants := NewTenants(deps)
	create(t, tenants, 1)
	conf, err := neon.ParseTenantConfig([]byte(`{"gc_horizon":1}`), neon.RejectUnknown)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(context.Context) error{
		"config": func(
			ctx context.Context,
		) error {
			return tenants.SetConfig(ctx, tenantOne, conf)
		},
		"policy": func(ctx context.Context) error {
			return tenants.SetPolicy(ctx, tenantOne,
				neon.PolicyRequest{Scheduling: new(neon.ShardEssential)})
		},
		"migrate": func(ctx context.Context) error {
			return NewShards(deps).Migrate(ctx, neon.ShardID{Tenant: tenantOne, Count: 1},
				neon.MigrateRequest{Node: 2, Config: neon.MigrationConfig{OverrideScheduler: true}})
		},
		"node": func(ctx context.Context) error {
			return NewNodes(deps).Configure(ctx,
				neon.NodeConfigure{ID: 1, Scheduling: new(neon.SchedulingFilling)}, Exclusively)
		},
		"describe": func(
			ctx context.Context,
		) error {
			_, err := tenants.Describe(ctx, tenantOne)
			return err
		},
		"locate": func(
			ctx context.Context,
		) error {
			_, err := tenants.Locate(ctx, tenantOne)
			return err
		},
		"location": func(ctx context.Context) error {
			_, err := tenants.SetLocation(ctx, neon.Unsharded(tenantOne),
				neon.LocationConfig{Mode: neon.AttachedSingle, TenantConf: conf})
			return err
		},
		"create": func(ctx context.Context) error {
			_, err := tenants.Create(ctx,
				neon.TenantCreateRequest{Tenant: neon.Unsharded(tenantOne)})
			return err
		},
	} {
		l.lag = empty
		if err := f(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := l.Log.State().ShardCount(); n != 1 {
		t.Errorf("there are %d shards", n)
	}
	l.lag = empty
	if err := tenants.Delete(t.Context(), tenantOne); err != nil {
		t.Errorf("delete: %v", err)
	}
}

func TestValidateNeverAnswersFromALaggingState(t *testing.T) {
	l := newLog(t)
	l.addNodes(1)
	deps := newDeps(l, &fakeReality{}, &fakePageservers{})
	create(t, NewTenants(deps), 1)
	id := neon.ShardID{Tenant: tenantOne, Count: 1}
	l.must(fsm.IssueGenerations{Items: []fsm.Issue{{Shard: id, Node: 1}}})
	l.lag = l.State()
	l.must(fsm.ReAttach{Node: 1})
	ask := neon.ValidateRequest{
		Tenants: []neon.ValidateTenant{{Shard: id, Gen: 1}, {Shard: id, Gen: 2}},
	}
	resp, err := NewUpcalls(deps).Validate(t.Context(), ask)
	if err != nil || len(resp.Tenants) != 2 || resp.Tenants[0].Valid || !resp.Tenants[1].Valid {
		t.Errorf("%+v, %v", resp, err)
	}
	l.fail = neon.Errorf(neon.NotLeader, "no leader")
	if resp, err := NewUpcalls(deps).Validate(t.Context(), ask); !errors.Is(err, l.fail) ||
		len(resp.Tenants) > 0 {
		t.Errorf("without a linearizable read: %+v, %v", resp, err)
	}
}

// The entry is in the log but its answer was lost: the retry is recognised, and a
// second tenant, shard or change does not come of it.
func TestRetryOfALostAnswerIsRecognised(t *testing.T) {
	l := newLog(t)
	l.addNodes(1)
	tenants := NewTenants(newDeps(l, &fakeReality{}, &fakePageservers{}))
	ctx := WithRequest(t.Context(), [32]byte{7})
	lost := neon.Errorf(neon.OutcomeUnknown, "lost")
	l.after = func(fsm.Command) error { return lost }
	req := neon.TenantCreateRequest{Tenant: neon.Unsharded(tenantOne)}
	if _, err := tenants.Create(ctx, req); !errors.Is(err, lost) {
		t.Fatal(err)
	}
	l.after = nil
	resp, err := tenants.Create(ctx, req)
	if err != nil || len(resp.Shards) != 1 || l.State().ShardCount() != 1 {
		t.Errorf("%+v, %v, %d shards", resp, err, l.State().ShardCount())
	}

	conf, _ := neon.TenantConfig{}.With("gc_horizon", []byte("5"))
	l.after = func(fsm.Command) error { return lost }
	if err := tenants.SetConfig(ctx, tenantOne, conf); !errors.Is(err, lost) {
		t.Fatal(err)
	}
	l.after = nil
	sequence := func() uint64 { n, _ := l.State().Tenant(tenantOne); return n.Sequence }
	was := sequence()
	if err := tenants.SetConfig(ctx, tenantOne, conf); err != nil || sequence() != was {
		t.Errorf("changed again: %v", err)
	}
}

func TestDeleteGoesOnlyAfterEverythingIsDetached(t *testing.T) {
	l := newLog(t)
	l.addNodes(2)
	pageservers := &fakePageservers{}
	reality := &fakeReality{}
	tenants := NewTenants(newDeps(l, reality, pageservers))
	create(t, tenants, 4)
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
	l := newLog(t)
	l.addNodes(1)
	pageservers := &fakePageservers{}
	tenants := NewTenants(newDeps(l, &fakeReality{}, pageservers))
	create(t, tenants, 1)
	if _, err := l.Commit(fsm.RequestID{}, fsm.BeginDeleteTenant{ID: tenantOne}); err != nil {
		t.Fatal(err)
	}
	deposed := l.State()
	l.must(fsm.FinishDeleteTenant{ID: tenantOne})
	create(t, tenants, 1)
	l.lag = deposed
	_ = tenants.finishDelete(t.Context(), tenantOne, deposed.Index)
	if len(pageservers.wiped) > 0 {
		t.Error("a deposed leader wiped the new tenant")
	}
	if tenant, ok := l.Log.State().Tenant(tenantOne); !ok || tenant.Deleting {
		t.Error("the new tenant is gone")
	}
}

// Whoever was slow with a deletion leaves the next one of the same tenant alone: its
// shards may still be attached.
func TestDeletionEndsNoOtherOfTheSameTenant(t *testing.T) {
	l := newLog(t)
	l.addNodes(2)
	ps := &fakePageservers{broken: map[neon.NodeID]bool{1: true, 2: true}}
	tenants := NewTenants(newDeps(l, &fakeReality{}, ps))
	create(t, tenants, 1)
	again := func() {
		l.must(fsm.FinishDeleteTenant{ID: tenantOne})
		create(t, tenants, 1)
		l.must(fsm.BeginDeleteTenant{ID: tenantOne})
	}
	ps.wipe = func() { ps.wipe = nil; again() }
	if err := tenants.Delete(t.Context(), tenantOne); err != nil || ps.tries() != 1 {
		t.Errorf("%v, and the data was removed %d times", err, ps.tries())
	}
	ps.breakDown(1, false)
	l.before = func(c fsm.Command) {
		if _, ok := c.(fsm.FinishDeleteTenant); ok {
			l.before = nil
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

// ResumeDeletes finishes what it finds at its start and what requests leave to it.
func TestDeletionsAreResumedUntilTheyAreDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		l.addNodes(1)
		pageservers := &fakePageservers{}
		pageservers.breakDown(1, true)
		tenants := NewTenants(newDeps(l, &fakeReality{}, pageservers))
		create(t, tenants, 1)
		l.must(fsm.BeginDeleteTenant{ID: tenantOne})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- tenants.ResumeDeletes(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		tries := pageservers.tries()
		if tries < 5*removeTries || tries > 20*removeTries {
			t.Errorf("%d tries in a minute", tries)
		}
		pageservers.breakDown(1, false)
		time.Sleep(resumeMax)
		synctest.Wait()
		if l.State().TenantCount() != 0 {
			t.Fatal("the deletion was not finished")
		}

		create(t, tenants, 1)
		pageservers.breakDown(1, true)
		if err := tenants.Delete(ctx, tenantOne); err == nil {
			t.Error("a failed deletion succeeded")
		}
		pageservers.breakDown(1, false)
		time.Sleep(resumeMax)
		synctest.Wait()
		if l.State().TenantCount() != 0 {
			t.Error("what a request left was not finished")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// Whoever gives up while the deletion is on its way into the log does not know of it.
func TestADeletionThatNobodyKnowsOfIsFinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		l.addNodes(1)
		tenants := NewTenants(newDeps(l, &fakeReality{}, &fakePageservers{}))
		create(t, tenants, 1)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- tenants.ResumeDeletes(ctx) }()
		l.lose = neon.Errorf(neon.OutcomeUnknown, "gone")
		if err := tenants.Delete(ctx, tenantOne); !errors.Is(err, l.lose) {
			t.Error(err)
		}
		time.Sleep(time.Second)
		l.lose = nil
		l.must(fsm.BeginDeleteTenant{ID: tenantOne}) // only now a majority has it
		time.Sleep(2 * resumeMax)
		synctest.Wait()
		if l.State().TenantCount() != 0 {
			t.Error("the deletion was not finished")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestADeletionThatHangsHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		l.addNodes(1)
		reality := &fakeReality{}
		tenants := NewTenants(newDeps(l, reality, &fakePageservers{}))
		const n = 12
		for i := range byte(n) {
			id := neon.TenantID{i + 1}
			if _, err := tenants.Create(t.Context(),
				neon.TenantCreateRequest{Tenant: neon.Unsharded(id)}); err != nil {
				t.Fatal(err)
			}
			l.must(fsm.BeginDeleteTenant{ID: id})
		}
		reality.await = func(ctx context.Context, _ uint64, shards []neon.ShardID) error {
			if shards[0].Tenant[0]%2 == 0 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- tenants.ResumeDeletes(ctx) }()
		time.Sleep(time.Second)
		synctest.Wait()
		if left := l.State().TenantCount(); left != n/2 {
			t.Errorf("%d tenants are left", left)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// Neither compute nor a slow pageserver keeps a creation from being answered.
func TestCreationSucceedsThoughItsShardsAreSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		l.addNodes(1)
		reality := &fakeReality{await: func(ctx context.Context, _ uint64, _ []neon.ShardID) error {
			<-ctx.Done()
			return neon.Errorf(neon.Timeout, "Timeout")
		}}
		begun := time.Now()
		create(t, NewTenants(newDeps(l, reality, &fakePageservers{})), 1)
		if took := time.Since(begun); took != longWait {
			t.Errorf("took %s", took)
		}
	})
}

func TestRegistrationOfAnUnknownNameIsRefused(t *testing.T) {
	l := newLog(t)
	deps := newDeps(l, &fakeReality{}, &fakePageservers{})
	deps.Resolve = func(context.Context, string) error { return errors.New("no such host") }
	err := NewNodes(deps).Register(t.Context(), neon.NodeRegister{ID: 1, HTTPAddr: "x"})
	if neon.CodeOf(err) != neon.Unavailable || len(l.proposed) > 0 {
		t.Errorf("%v, proposed %v", err, l.proposed)
	}
}

// The shards of a node are those that should be there and those that were seen
// there, each once; what is not known of a location is null.
func TestShardsOfANodeIncludeStrays(t *testing.T) {
	l := newLog(t)
	l.addNodes(2)
	reality := &fakeReality{}
	deps := newDeps(l, reality, &fakePageservers{})
	create(t, NewTenants(deps), 2)
	ids := neon.ShardIDs(tenantOne, 2)
	at := func(id neon.ShardID) (attached, other neon.NodeID) {
		sh, _ := l.State().Shard(id)
		return sh.Attached, 3 - sh.Attached
	}
	_, stray := at(ids[0])
	home, _ := at(ids[1])
	reality.status = map[neon.ShardID]ShardStatus{
		ids[0]: {Observed: map[neon.NodeID]*neon.LocationConfig{stray: {Mode: neon.Secondary}}},
		ids[1]: {Observed: map[neon.NodeID]*neon.LocationConfig{home: nil}},
	}
	for n := range neon.NodeID(2) {
		got, err := NewNodes(deps).Shards(t.Context(), n+1)
		if err != nil {
			t.Fatal(err)
		}
		for i, id := range ids {
			attached, _ := at(id)
			var intended, observed *bool
			if attached == n+1 {
				intended = new(false)
			}
			if i == 0 && n+1 == stray {
				observed = new(true)
			}
			at := slices.IndexFunc(got.Shards, func(s neon.NodeShard) bool { return s.Shard == id })
			if (at >= 0) != (intended != nil || observed != nil) {
				t.Errorf("node %d, shard %s: %+v", n+1, id, got.Shards)
			} else if at >= 0 && !reflect.DeepEqual(got.Shards[at], neon.NodeShard{
				Shard: id, IntendedSecondary: intended, ObservedSecondary: observed,
			}) {
				t.Errorf("node %d, shard %s: %+v", n+1, id, got.Shards[at])
			}
		}
	}
}
