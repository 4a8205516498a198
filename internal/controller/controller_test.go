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
	"quorate/fsm/fsmtest"
	"quorate/internal/decide"
)

func TestStaleDecisionIsMadeAgain(t *testing.T) {
	l := fsmtest.NewFaulty(t)
	l.AddNodes(t, 2, neon.MakeAZ("a"))
	tenants := NewTenants(newDeps(l, &fakeReality{}, &fakePageservers{}))
	create(t, tenants, 2)
	faster := 0
	l.Before = func(c fsm.Command) {
		if u, ok := c.(fsm.UpdateTenant); ok && faster < 3 {
			faster++
			conf, _ := neon.TenantConfig{}.With("gc_horizon", []byte{'0' + byte(faster)})
			l.Must(fsm.UpdateTenant{ID: u.ID, Sequence: u.Sequence, Config: &conf})
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
	l := fsmtest.NewFaulty(t)
	l.AddNodes(t, 1, neon.MakeAZ("a"))
	tenants := NewTenants(newDeps(l, &fakeReality{}, &fakePageservers{}))
	create(t, tenants, 1)
	n := byte(0)
	l.Before = func(c fsm.Command) {
		if u, ok := c.(fsm.UpdateTenant); ok {
			n++
			conf, _ := neon.TenantConfig{}.With("gc_horizon", []byte{'0' + n%10})
			l.Must(fsm.UpdateTenant{ID: u.ID, Sequence: u.Sequence, Config: &conf})
		}
	}
	err := tenants.PatchConfig(t.Context(), tenantOne, []byte(`{"checkpoint_distance":7}`))
	if neon.CodeOf(err) != neon.Conflict || n != decide.Tries {
		t.Errorf("%v after %d decide.Tries", err, n)
	}
}

// A leader that was just elected has not applied all that was acknowledged: a
// tenant it does not see may exist.
func TestFreshLeaderRefusesNothingFromMemory(t *testing.T) {
	l := fsmtest.NewFaulty(t)
	empty := l.State()
	l.AddNodes(t, 2, neon.MakeAZ("a"))
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
		l.Lag(empty)
		if err := f(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := l.Log.State().ShardCount(); n != 1 {
		t.Errorf("there are %d shards", n)
	}
	l.Lag(empty)
	if err := tenants.SetConfig(t.Context(), tenantOne, neon.TenantConfig{}); err != nil {
		t.Errorf("configure: %v", err)
	}
}

func TestValidateNeverAnswersFromALaggingState(t *testing.T) {
	l := fsmtest.NewFaulty(t)
	l.AddNodes(t, 1, neon.MakeAZ("a"))
	deps := newDeps(l, &fakeReality{}, &fakePageservers{})
	create(t, NewTenants(deps), 1)
	id := neon.ShardID{Tenant: tenantOne, Count: 1}
	l.Must(fsm.IssueGenerations{Items: []fsm.Issue{{Shard: id, Node: 1}}})
	l.Lag(l.State())
	l.Must(fsm.ReAttach{Node: 1})
	ask := neon.ValidateRequest{
		Tenants: []neon.ValidateTenant{{Shard: id, Gen: 1}, {Shard: id, Gen: 2}},
	}
	resp, err := NewUpcalls(deps).Validate(t.Context(), ask)
	if err != nil || len(resp.Tenants) != 2 || resp.Tenants[0].Valid || !resp.Tenants[1].Valid {
		t.Errorf("%+v, %v", resp, err)
	}
	noLeader := neon.Errorf(neon.NotLeader, "no leader")
	l.FailReads(noLeader)
	if resp, err := NewUpcalls(deps).Validate(t.Context(), ask); !errors.Is(err, noLeader) ||
		len(resp.Tenants) > 0 {
		t.Errorf("without a linearizable read: %+v, %v", resp, err)
	}
}

// The entry is in the log but its answer was lost: the retry is recognised, and a
// second tenant, shard or change does not come of it.
func TestRetryOfALostAnswerIsRecognised(t *testing.T) {
	l := fsmtest.NewFaulty(t)
	l.AddNodes(t, 1, neon.MakeAZ("a"))
	tenants := NewTenants(newDeps(l, &fakeReality{}, &fakePageservers{}))
	ctx := decide.WithRequest(t.Context(), [32]byte{7})
	lost := neon.Errorf(neon.OutcomeUnknown, "lost")
	l.After = func(fsm.Command) error { return lost }
	req := neon.TenantCreateRequest{Tenant: neon.Unsharded(tenantOne)}
	if _, err := tenants.Create(ctx, req); !errors.Is(err, lost) {
		t.Fatal(err)
	}
	l.After = nil
	resp, err := tenants.Create(ctx, req)
	if err != nil || len(resp.Shards) != 1 || l.State().ShardCount() != 1 {
		t.Errorf("%+v, %v, %d shards", resp, err, l.State().ShardCount())
	}

	conf, _ := neon.TenantConfig{}.With("gc_horizon", []byte("5"))
	l.After = func(fsm.Command) error { return lost }
	if err := tenants.SetConfig(ctx, tenantOne, conf); !errors.Is(err, lost) {
		t.Fatal(err)
	}
	l.After = nil
	sequence := func() uint64 { n, _ := l.State().Tenant(tenantOne); return n.Sequence }
	was := sequence()
	if err := tenants.SetConfig(ctx, tenantOne, conf); err != nil || sequence() != was {
		t.Errorf("changed again: %v", err)
	}
}

// Neither compute nor a slow pageserver keeps a creation from being answered.
func TestCreationSucceedsThoughItsShardsAreSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := fsmtest.NewFaulty(t)
		l.AddNodes(t, 1, neon.MakeAZ("a"))
		reality := &fakeReality{await: func(ctx context.Context, _ uint64, _ []neon.ShardID) error {
			<-ctx.Done()
			return neon.Errorf(neon.Timeout, "Timeout")
		}}
		begun := time.Now()
		create(t, NewTenants(newDeps(l, reality, &fakePageservers{})), 1)
		if took := time.Since(begun); took != decide.LongWait {
			t.Errorf("took %s", took)
		}
	})
}

func TestRegistrationOfAnUnknownNameIsRefused(t *testing.T) {
	l := fsmtest.NewFaulty(t)
	deps := newDeps(l, &fakeReality{}, &fakePageservers{})
	deps.Resolve = func(context.Context, string) error { return errors.New("no such host") }
	err := NewNodes(deps).Register(t.Context(), neon.NodeRegister{ID: 1, HTTPAddr: "x"})
	if neon.CodeOf(err) != neon.Unavailable || len(l.Proposed()) > 0 {
		t.Errorf("%v, proposed %v", err, l.Proposed())
	}
}

// The shards of a node are those that should be there and those that were seen
// there, each once; what is not known of a location is null.
func TestShardsOfANodeIncludeStrays(t *testing.T) {
	l := fsmtest.NewFaulty(t)
	l.AddNodes(t, 2, neon.MakeAZ("a"))
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
	reality.status = map[neon.ShardID]decide.ShardStatus{
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
