package split

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

// said is the answer of a pageserver.
type said int

func (s said) Error() string   { return "the pageserver says no" }
func (s said) HTTPStatus() int { return int(s) }

// A pageserver that has called its split a failure may undo what it has done. So it is
// rolled back, whatever is there at that moment.
func TestASplitThatAPageserverCallsAFailureIsRolledBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f := splitWorld(t, 2, Options{})
		f.after = func(neon.ShardID) error { return said(500) } // all children are there
		lead(t, p, func() {
			_, err := p.Split(t.Context(), tenantOne, neon.ShardSplitRequest{Count: 4})
			if neon.CodeOf(err) != neon.Conflict {
				t.Errorf("got %v", err)
			}
		})
		if tenant, _ := p.Log.State().Tenant(tenantOne); tenant.Count != 2 ||
			p.Log.State().Splitting(tenantOne) {
			t.Errorf("it is not rolled back: %+v", tenant)
		}
		if got := sorted(f.detached); !slices.Equal(got, neon.ShardIDs(tenantOne, 4)) {
			t.Errorf("detached %v", got)
		}
	})
}

// slowSplits are pageservers of which one fails at once and the others take their time.
type slowSplits struct {
	*splitter
	bad     neon.ShardID
	dropped bool
}

func (s *slowSplits) ShardSplit(
	ctx context.Context, n *fsm.Node, shard neon.ShardID, req neon.ShardSplitRequest,
	limit time.Duration,
) ([]neon.ShardID, error) {
	if shard == s.bad {
		<-time.After(time.Second)
		return nil, errors.New("no answer")
	}
	select {
	case <-time.After(5 * time.Second):
	case <-ctx.Done():
		s.dropped = true
		return nil, ctx.Err()
	}
	return s.splitter.ShardSplit(ctx, n, shard, req, limit)
}

// Pageservers complain of requests that are dropped, and go on with them all the same.
func TestAFailureDropsNoRequestThatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f := splitWorld(t, 2, Options{})
		slow := &slowSplits{splitter: f, bad: neon.ShardIDs(tenantOne, 2)[0]}
		p.Pageservers = slow
		lead(t, p, func() {
			_, err := p.Split(t.Context(), tenantOne, neon.ShardSplitRequest{Count: 4})
			if neon.CodeOf(err) != neon.Conflict {
				t.Errorf("got %v", err)
			}
		})
		if slow.dropped || !slices.Contains(f.asked, neon.ShardIDs(tenantOne, 2)[1]) {
			t.Error("a request was dropped")
		}
		if tenant, _ := p.Log.State().Tenant(tenantOne); tenant.Count != 2 ||
			p.Log.State().Splitting(tenantOne) {
			t.Errorf("it is not rolled back: %+v", tenant)
		}
	})
}

// An operator sets a pageserver Offline that makes a split fail. The tenant is whole on the
// others then, its secondaries too.
func TestAnAbortedSplitLeavesOfflinePageservers(t *testing.T) {
	for name, place := range map[string]fsm.Intent{
		"attached there":  {Attached: 1, Secondary: []neon.NodeID{2}},
		"secondary there": {Attached: 2, Secondary: []neon.NodeID{1}},
	} {
		synctest.Test(t, func(t *testing.T) {
			p, f := splitWorld(t, 1, Options{})
			parent := neon.ShardIDs(tenantOne, 1)[0]
			sh, _ := p.Log.State().Shard(parent)
			place.Shard, place.Sequence, place.Issue = parent, sh.Sequence, true
			f.log.Must(fsm.SetIntents{Intents: []fsm.Intent{place}})
			sh, _ = p.Log.State().Shard(parent)
			f.locations[parent] = attachedAs(sh.Generation)
			f.before = func(neon.ShardID) error {
				f.log.Must(fsm.SetNodeAvailability{
					Verdicts: []fsm.Verdict{{Node: 1, To: neon.NodeOffline}},
				})
				return said(500)
			}
			lead(t, p, func() {
				_, err := p.Split(t.Context(), tenantOne, neon.ShardSplitRequest{Count: 2})
				if neon.CodeOf(err) != neon.Conflict {
					t.Errorf("%s: %v", name, err)
				}
			})
			sh, _ = p.Log.State().Shard(parent)
			if sh.Attached == 1 || sh.Attached == 0 || len(sh.Secondary) != 1 ||
				sh.HasSecondary(1) {
				t.Errorf("%s: it is attached on %d, with secondaries on %v", name, sh.Attached,
					sh.Secondary)
			}
		})
	}
}
