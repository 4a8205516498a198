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

// One request id may stand for several requests of a careless client.
func TestACommandThatWasDoneBeforeIsProposedAgainIfItDoesNotHold(t *testing.T) {
	l := newLog(t)
	ctx := WithRequest(t.Context(), [32]byte{7})
	if _, err := Commit(ctx, l, mustExist); err != nil {
		t.Fatal(err)
	}
	l.Must(fsm.BeginDeleteTenant{ID: tenantOne})
	l.Must(fsm.FinishDeleteTenant{ID: tenantOne})
	if _, err := Commit(ctx, l, mustExist); err != nil {
		t.Fatal(err)
	}
	if _, ok := l.State().Tenant(tenantOne); !ok {
		t.Error("the second request came to nothing")
	}
}

func TestARequestHasOneNameAndRemembersThatItActed(t *testing.T) {
	if id := RequestID(t.Context()); id != (fsm.RequestID{}) {
		t.Errorf("work that no client has asked for is named %x", id)
	}
	Acted(t.Context())
	if HasActed(t.Context()) {
		t.Error("no request has acted")
	}
	ctx := WithRequest(t.Context(), [32]byte{1})
	if RequestID(ctx) != RequestID(WithRequest(t.Context(), [32]byte{1})) ||
		RequestID(ctx) == RequestID(WithRequest(t.Context(), [32]byte{2})) {
		t.Error("names do not follow the key")
	}
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
