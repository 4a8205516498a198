package fanout

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
)

var tenantOne = neon.TenantID{1}

// newLog has a tenant with shards on nodes 1 and 2.
func newLog(t *testing.T) *fsmtest.Faulty {
	l := fsmtest.NewFaulty(t)
	l.AddNodes(t, 3, neon.MakeAZ("a"))
	l.Must(fsm.CreateTenant{
		ID: tenantOne, Count: 2, Stripe: 8, Policy: neon.Attached(0),
		Scheduling: neon.ShardActive, Shards: []fsm.NewShard{{Attached: 1}, {Attached: 2}},
	})
	l.Attach(t, tenantOne)
	return l
}

func TestOwnersComeByShardNumberWithTheNewestGeneration(t *testing.T) {
	l := newLog(t)
	owners, err := Owners(l.State(), tenantOne)
	if err != nil || len(owners) != 2 {
		t.Fatalf("%v, %v", owners, err)
	}
	for i, o := range owners {
		if sh, _ := l.State().Shard(o.Shard); int(o.Shard.Number) != i ||
			o.Node.ID != neon.NodeID(i+1) || o.Generation != sh.Generation {
			t.Errorf("owner %d is %+v", i, o)
		}
	}
	if name := owners[0].Name(); name != "1 (ps)" {
		t.Errorf("it is called %s", name)
	}
	if _, err := Owners(l.State(), neon.TenantID{9}); neon.CodeOf(err) != neon.NotFound {
		t.Errorf("got %v", err)
	}
}

func TestAnOwnerThatIsMissingIsNamedByTheReason(t *testing.T) {
	s := newLog(t).State()
	for _, c := range []struct {
		policy neon.Placement
		shard  fsm.Shard
		want   neon.Code
	}{
		{neon.Placement{Kind: neon.PlaceDetached}, fsm.Shard{}, neon.Conflict},
		{neon.Placement{Kind: neon.PlaceSecondary}, fsm.Shard{}, neon.Conflict},
		{neon.Attached(0), fsm.Shard{}, neon.Unavailable},
		{neon.Attached(0), fsm.Shard{GenNode: 9, HasGeneration: true}, neon.Conflict},
	} {
		_, err := OwnerOf(s, fsm.Tenant{Policy: c.policy}, c.shard)
		if neon.CodeOf(err) != c.want {
			t.Errorf("%+v: %v", c.shard, err)
		}
	}
}

// What a superseded location has acknowledged, its successor may never see.
func TestAnOutcomeCountsOnlyIfTheOwnersAreStillTheOwners(t *testing.T) {
	l := newLog(t)
	refused := errors.New("refused")
	if err := Mutate(t.Context(), l, tenantOne,
		func(o []Owner) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
	for _, outcome := range []error{nil, refused} {
		err := Mutate(t.Context(), l, tenantOne, func([]Owner) error {
			l.Must(fsm.ReAttach{Node: 2})
			return outcome
		})
		if neon.CodeOf(err) != neon.Unavailable {
			t.Errorf("an owner has changed, and the answer is %v", err)
		}
	}
	down := errors.New("no majority")
	err := Mutate(t.Context(), l, tenantOne, func([]Owner) error {
		l.FailReads(down)
		return nil
	})
	if !errors.Is(err, down) {
		t.Errorf("got %v", err)
	}
}

type callers struct {
	mu    sync.Mutex
	calls []neon.ShardID
}

func (c *callers) Call(
	_ context.Context, _ *fsm.Node, shard neon.ShardID, _ neon.ShardCall,
) (int, []byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, shard)
	if shard.Number == 0 {
		return 0, nil, answer{}
	}
	return http.StatusOK, []byte("null"), nil
}

type answer struct{}

func (answer) Error() string   { return "an answer" }
func (answer) HTTPStatus() int { return http.StatusTeapot }
func (answer) Message() string { return "no coffee" }

// What one shard has begun is not given up because another refuses.
func TestAskMakesEveryCallOnceWhateverOneSays(t *testing.T) {
	owners, _ := Owners(newLog(t).State(), tenantOne)
	var c callers
	replies := Ask(t.Context(), &c, owners, neon.ShardCall{})
	if len(c.calls) != 2 || replies[0].Shard.Number != 0 || replies[1].Shard.Number != 1 {
		t.Errorf("%v, %+v", c.calls, replies)
	}
	err := replies[0].Err
	if StatusOf(err) != http.StatusTeapot || MessageOf(err) != "no coffee" {
		t.Errorf("got %v", err)
	}
	if StatusOf(errors.New("x")) != 0 || MessageOf(nil) != "" {
		t.Error("no answer has a status")
	}
	if replies[1].Err != nil || replies[1].Status != http.StatusOK {
		t.Errorf("got %+v", replies[1])
	}
}

func TestEachStopsAtTheFirstFailure(t *testing.T) {
	owners, _ := Owners(newLog(t).State(), tenantOne)
	broken := errors.New("broken")
	err := Each(t.Context(), owners, func(ctx context.Context, i int, o Owner) error {
		if i == 0 {
			return broken
		}
		<-ctx.Done()
		return ctx.Err()
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestANodeToAvoidIsTakenOnlyIfThereIsNoOther(t *testing.T) {
	l := newLog(t)
	if n := AnyAvailable(l.State(), 1, 2); n == nil || n.ID != 3 {
		t.Errorf("got %v", n)
	}
	if n := AnyAvailable(l.State(), 1, 2, 3); n == nil {
		t.Error("got none")
	}
	if n := AnyAvailable(fsmtest.NewLog().State()); n != nil {
		t.Errorf("got %v", n)
	}
}
