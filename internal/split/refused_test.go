package split

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/fsm/fsmtest"
	"quorate/internal/decide"
)

// refusing is a log that refuses some commands, although nothing has changed.
type refusing struct {
	decide.Log
	pace fsmtest.Pace
	with func(fsm.Command) *neon.Error
	t    *testing.T
	n    atomic.Int64
}

func (l *refusing) Propose(
	ctx context.Context, id fsm.RequestID, c fsm.Command,
) (fsm.Result, error) {
	if err := l.pace.Note(c); err != nil {
		l.t.Error(err)
	}
	if err := l.with(c); err != nil {
		l.n.Add(1)
		return fsm.Result{Err: err}, err
	}
	return l.Log.Propose(ctx, id, c)
}

// refusesCommits makes the log of a Splitter refuse the commits of its splits.
func refusesCommits(t *testing.T, p *Splitter, code neon.Code, why string) *refusing {
	log := &refusing{Log: p.Log, t: t, with: func(c fsm.Command) *neon.Error {
		if _, ok := c.(fsm.CommitSplit); ok {
			return neon.Errorf(code, "%s", why)
		}
		return nil
	}}
	p.Log = log
	return log
}

// A split whose commit is refused for ever, for whatever reason, is tried again after a
// pause, and one that the log cannot take is rolled back.
func TestASplitWhoseCommitIsRefusedIsNoLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := splitWorld(t, 2, Options{})
		log := refusesCommits(t, p, neon.Conflict, "no")
		lead(t, p, func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, _ = p.Split(ctx, tenantOne, neon.ShardSplitRequest{Count: 4})
		})
		if n := log.n.Load(); n < 10 || n > 200 {
			t.Errorf("committed %d times in two minutes", n)
		}
	})
}

func TestASplitThatTheLogCannotTakeIsRolledBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := splitWorld(t, 2, Options{})
		log := refusesCommits(t, p, neon.BadRequest, "The change is too large for one log entry")
		lead(t, p, func() {
			_, err := p.Split(t.Context(), tenantOne, neon.ShardSplitRequest{Count: 4})
			if err == nil || !strings.Contains(err.Error(), "too large") {
				t.Errorf("%v", err)
			}
		})
		if tenant, _ := p.Log.State().Tenant(tenantOne); tenant.Count != 2 ||
			p.Log.State().Splitting(tenantOne) || log.n.Load() != 1 {
			t.Errorf("%+v after %d tries", tenant, log.n.Load())
		}
	})
}

// What is left of many parents is more than one entry takes.
func TestManyLeftoversAreForgottenInSeveralEntries(t *testing.T) {
	var gone []fsm.Leftover
	for i := range 40000 {
		gone = append(gone, fsm.Leftover{
			Shard: neon.ShardID{Tenant: tenantOne, Number: 1, Count: 2},
			Node:  neon.MaxNodeID - neon.NodeID(i),
		})
	}
	n := 0
	for _, c := range forgetting(tenantOne, gone) {
		data, err := fsm.Encode(fsm.RequestID{}, c)
		if err != nil || len(data) > 1<<20 {
			t.Errorf("an entry of %d bytes: %v", len(data), err)
		}
		n += len(c.Leftovers)
	}
	if n != len(gone) {
		t.Errorf("%d of %d are forgotten", n, len(gone))
	}
}
