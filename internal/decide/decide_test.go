package decide

import (
	"context"
	"errors"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
)

var tenantOne = neon.TenantID{1}

// mustExist decides that tenantOne has to exist.
func mustExist(s *fsm.State) (fsm.Command, error) {
	if _, ok := s.Tenant(tenantOne); ok {
		return nil, nil
	}
	return fsm.CreateTenant{
		ID: tenantOne, Count: 1, Stripe: 8, Policy: neon.Attached(0),
		Scheduling: neon.ShardActive, Shards: []fsm.NewShard{{Attached: 1}},
	}, nil
}

func newLog(t *testing.T) *fsmtest.Faulty {
	l := fsmtest.NewFaulty(t)
	l.Upgrade(t)
	l.AddNodes(t, 2, neon.MakeAZ("a"))
	return l
}

func TestCommitProposesNothingWhenTheWishIsFulfilled(t *testing.T) {
	l := newLog(t)
	first, err := Commit(t.Context(), l, mustExist)
	if err != nil || first != l.State().Index {
		t.Errorf("%d, %v", first, err)
	}
	again, err := Commit(t.Context(), l, mustExist)
	if err != nil || again != first || len(l.Proposed()) != 1 {
		t.Errorf("%d, %v, and %d proposals", again, err, len(l.Proposed()))
	}
}

// A leader that has just been elected may not have applied everything.
func TestCommitBelievesARefusalOnlyOnALinearizableRead(t *testing.T) {
	l := newLog(t)
	old := l.State()
	create, _ := mustExist(old)
	l.Must(create)
	l.Lag(old)
	_, err := Commit(t.Context(), l, func(s *fsm.State) (fsm.Command, error) {
		if _, ok := s.Tenant(tenantOne); !ok {
			return nil, neon.Errorf(neon.NotFound, "no such tenant")
		}
		return nil, nil
	})
	if err != nil {
		t.Error(err)
	}
	down := errors.New("no majority")
	l.Lag(old)
	l.FailReads(down)
	if _, err := Commit(t.Context(), l, func(*fsm.State) (fsm.Command, error) {
		return nil, nil
	}); !errors.Is(err, down) {
		t.Errorf("got %v", err)
	}
}

func TestCommitDecidesAgainAfterAConflict(t *testing.T) {
	l := newLog(t)
	l.Before = func(c fsm.Command) { // another one is faster
		l.Before = nil
		l.Must(c)
	}
	if _, err := Commit(t.Context(), l, mustExist); err != nil {
		t.Error(err)
	}
	conflict := neon.Errorf(neon.Conflict, "stale")
	decided := 0
	_, err := Commit(t.Context(), conflictingLog{l, conflict},
		func(*fsm.State) (fsm.Command, error) {
			decided++
			return fsm.FinishDeleteTenant{ID: tenantOne}, nil
		})
	if !errors.Is(err, conflict) || decided != Tries {
		t.Errorf("%v after %d decisions", err, decided)
	}
}

type conflictingLog struct {
	Log
	err *neon.Error
}

func (l conflictingLog) Propose(
	context.Context, fsm.RequestID, fsm.Command,
) (fsm.Result, error) {
	return fsm.Result{Err: l.err}, l.err
}

// mustNotExist decides that tenantOne has to be gone.
func mustNotExist(s *fsm.State) (fsm.Command, error) {
	if _, ok := s.Tenant(tenantOne); !ok {
		return nil, neon.Errorf(neon.NotFound, "no such tenant")
	}
	return fsm.DropTenant{ID: tenantOne}, nil
}

// A replica carries a request to the next leader, since it does not know what became of it
// at the last one. It was done there, and others have changed the same since.
func TestWhatAnEarlierTryHasDoneIsNotDoneAgain(t *testing.T) {
	l := newLog(t)
	exists := func() bool { _, ok := l.State().Tenant(tenantOne); return ok }
	l.Must(mustCommand(mustExist(l.State())))
	drop := func() context.Context { return WithRequest(t.Context(), [32]byte{7}) }
	create := func() context.Context { return WithRequest(t.Context(), [32]byte{8}) }
	first, err := Commit(drop(), l, mustNotExist)
	if err != nil || exists() {
		t.Fatal(err)
	}
	if _, err := Commit(create(), l, mustExist); err != nil {
		t.Fatal(err)
	}
	if again, err := Commit(drop(), l, mustNotExist); err != nil || again != first || !exists() {
		t.Errorf("dropped once more: %v, index %d and before %d", err, again, first)
	}
	if _, err := Commit(t.Context(), l, mustNotExist); err != nil {
		t.Fatal(err)
	}
	if _, err := Commit(create(), l, mustExist); err != nil || exists() {
		t.Errorf("created once more: %v", err)
	}
	l.Lag(l.State())
	if _, err := Commit(drop(), l, mustNotExist); err != nil {
		t.Errorf("a refusal of what was done: %v", err)
	}
}

func mustCommand(c fsm.Command, err error) fsm.Command {
	if err != nil {
		panic(err)
	}
	return c
}

// A leader that has just begun has not applied yet what an earlier one has done.
func TestWhatAnEarlierTryHasDoneIsKnownFromAFreshRead(t *testing.T) {
	l := newLog(t)
	l.Must(mustCommand(mustExist(l.State())))
	ctx := WithRequest(t.Context(), [32]byte{7})
	old := l.State()
	if _, err := Commit(ctx, l, mustNotExist); err != nil {
		t.Fatal(err)
	}
	for name, behind := range map[string]*fsm.State{"behind": old, "in time": l.State()} {
		l.Lag(behind)
		BeginTry(ctx)
		if _, err := Commit(ctx, l, mustNotExist); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(l.Proposed()); n > 3 {
		t.Errorf("%d proposals", n)
	}
}

// A request may make several changes of one kind, and a try of it may end between them.
func TestTheChangesOfARequestAreToldApart(t *testing.T) {
	l := newLog(t)
	both := func() (done int) {
		ctx := WithRequest(t.Context(), [32]byte{7})
		for id := range byte(2) {
			r, err := Propose(ctx, l, fsm.CreateTenant{
				ID: neon.TenantID{id + 1}, Count: 1, Stripe: 8, Policy: neon.Attached(0),
				Scheduling: neon.ShardActive, Shards: []fsm.NewShard{{Attached: 1}},
			})
			if err != nil {
				t.Fatal(err)
			}
			if !r.Duplicate {
				done++
			}
		}
		return done
	}
	if first, again := both(), both(); first != 2 || again != 0 {
		t.Errorf("%d and then %d changes", first, again)
	}
}

// An order that was taken for nothing was not done.
func TestAnOrderThatWasRefusedIsDecidedAgain(t *testing.T) {
	l := newLog(t)
	l.Must(fsm.CreateTenant{
		ID: tenantOne, Count: 1, Stripe: 8, Policy: neon.Attached(1),
		Scheduling: neon.ShardActive,
		Shards:     []fsm.NewShard{{Attached: 1, Secondary: []neon.NodeID{2}}},
	})
	sh, _ := l.State().Shard(neon.ShardID{Tenant: tenantOne, Count: 1})
	there := func(sequence uint64) Decision {
		return func(*fsm.State) (fsm.Command, error) {
			in := fsm.Intent{
				Shard: sh.ID, Sequence: sequence, Attached: 2, Secondary: []neon.NodeID{1},
			}
			return fsm.SetIntents{Intents: []fsm.Intent{in}}, nil
		}
	}
	try := func() context.Context { return WithRequest(t.Context(), [32]byte{7}) }
	if _, err := Commit(try(), l, there(sh.Sequence-1)); neon.CodeOf(err) != neon.Conflict {
		t.Fatal(err)
	}
	if _, err := Commit(try(), l, there(sh.Sequence)); err != nil {
		t.Fatal(err)
	}
	if sh, _ := l.State().Shard(sh.ID); sh.Attached != 2 {
		t.Errorf("it is as it was: %+v", sh)
	}
}

func TestWhatTheLogKnowsNothingOfIsNotedThere(t *testing.T) {
	l := newLog(t)
	changes := 0
	change := func() error { changes++; return nil }
	failed := errors.New("not reached")
	ctx := WithRequest(t.Context(), [32]byte{7})
	if err := Once(ctx, l, func() error { return failed }); !errors.Is(err, failed) {
		t.Error(err)
	}
	for range 3 {
		BeginTry(ctx)
		if err := Once(ctx, l, change); err != nil {
			t.Fatal(err)
		}
	}
	if changes != 1 {
		t.Errorf("%d changes", changes)
	}
	for range 2 {
		if err := Once(t.Context(), l, change); err != nil { // what no client has asked for
			t.Fatal(err)
		}
	}
	if changes != 3 || len(l.Proposed()) != 1 {
		t.Errorf("%d changes, %v", changes, l.Proposed())
	}
}

func TestARequestRemembersThatItActed(t *testing.T) {
	Acted(t.Context())
	BeginTry(t.Context())
	if HasActed(t.Context()) || Done(t.Context(), newLog(t).State()) {
		t.Error("no request has acted")
	}
	ctx := WithRequest(t.Context(), [32]byte{1})
	if HasActed(ctx) {
		t.Error("it has not acted yet")
	}
	Acted(context.WithoutCancel(ctx))
	if !HasActed(ctx) {
		t.Error("it has acted")
	}
}

// recorder notes what it is asked, and how long the asker waits.
type recorder struct {
	kicked []neon.ShardID
	limit  time.Duration
	err    error
}

func (r *recorder) Kick(shards ...neon.ShardID) { r.kicked = shards }

func (r *recorder) Silent() []neon.NodeID { return nil }

func (r *recorder) Await(ctx context.Context, _ uint64, _ ...neon.ShardID) error {
	until, _ := ctx.Deadline()
	r.limit = time.Until(until)
	return r.err
}

func TestAwaitKicksTheShardsAndWaitsForABoundedTime(t *testing.T) {
	r := &recorder{err: errors.New("stuck")}
	id := neon.Unsharded(tenantOne)
	if err := Await(t.Context(), r, 1, id); !errors.Is(err, r.err) {
		t.Errorf("got %v", err)
	}
	if len(r.kicked) != 1 || r.limit > LongWait || r.limit < LongWait-time.Second {
		t.Errorf("kicked %v, waits %s", r.kicked, r.limit)
	}
	r.kicked = nil
	AwaitAtMost(t.Context(), r, ShortWait, 1, []neon.ShardID{id})
	if len(r.kicked) != 1 || r.limit > ShortWait {
		t.Errorf("kicked %v, waits %s", r.kicked, r.limit)
	}
}
