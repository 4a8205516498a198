package testcluster_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/testcluster/simpageserver"
)

// untoldTimelines is how many timelines of one tenant move to other safekeepers while compute
// is not told of them. One after another they would take far longer than promptLimit.
const untoldTimelines = 4

// untold moves timelines to other safekeepers, and has compute of one tenant not be told of
// them for good; false when there is nothing to move. Those of other tenants, which a new
// leader finds in the middle of it, have to be there soon.
func (e *episode) untold(ctx context.Context, t *simTenant) (x obstacle, ok bool) {
	if len(e.Safekeepers().Nodes()) == 0 {
		return x, false
	}
	for range 3 * untoldTimelines {
		if len(t.timelines) >= untoldTimelines {
			break
		}
		try, cancel := context.WithTimeout(ctx, opLimit)
		e.ownerOf(t).createTimeline(try, e.Client().WithTryTimeout(answerTimeout), t)
		cancel()
	}
	refusal := simpageserver.Fault{
		Kind: simpageserver.FaultHang, Route: simpageserver.RouteNotifySafekeepers,
	}
	if e.rng.IntN(2) == 0 {
		refusal.Kind = simpageserver.FaultRefuse
		refusal.Status = []int{http.StatusServiceUnavailable, http.StatusForbidden}[e.rng.IntN(2)]
	}
	moving := e.moveAll(ctx, t.id, refusal)
	refusal.Tenant = t.id
	e.Hook().SetFaults(refusal)
	x = obstacle{
		what: fmt.Sprintf("compute of tenant %s is not told of safekeepers, with %d moves: %v",
			t.id, len(moving), refusal),
		tenant: t.id, end: func() { e.Hook().SetFaults() },
	}
	e.replaceLeader(ctx)
	e.demandMoved(ctx, x, moving)
	return x, true
}

// moveAll asks for moves of some timelines to other safekeepers and goes away: it returns
// those that have been begun and are not done. Before that nothing is left of earlier moves.
func (e *episode) moveAll(
	ctx context.Context, first neon.TenantID, refusal simpageserver.Fault,
) (moving []neon.TimelineRef) {
	some := e.someTimelines(ctx, first)
	e.moveEach(ctx, some)
	e.Hook().SetFaults(refusal) // compute of nobody is told
	nodes := e.Safekeepers().Nodes()
	for i, tl := range some {
		var set []neon.NodeID
		for _, i := range e.rng.Perm(len(nodes))[:min(3, len(nodes))] {
			set = append(set, nodes[i].ID())
		}
		if slices.Equal(set, tl.Set) {
			slices.Reverse(set)
		}
		some[i].Set = set
	}
	e.moveEach(ctx, some)
	s, err := e.newestState(ctx)
	if err != nil {
		return nil
	}
	for tl := range s.Timelines() {
		if !moved(s, tl.Ref()) {
			moving = append(moving, tl.Ref())
		}
	}
	return moving
}

// someTimelines are those of a tenant and a few others.
func (e *episode) someTimelines(ctx context.Context, of neon.TenantID) (some []fsm.Timeline) {
	s, err := e.newestState(ctx)
	if err != nil {
		return nil
	}
	others := 0
	for tl := range s.Timelines() {
		if tl.Deleted || len(tl.Set) == 0 || tl.Tenant != of && others >= untoldTimelines {
			continue
		}
		if tl.Tenant != of {
			others++
		}
		some = append(some, tl)
	}
	return some
}

// moveEach asks for each timeline to be on its set, all at the same time.
func (e *episode) moveEach(ctx context.Context, all []fsm.Timeline) {
	var wg sync.WaitGroup
	for _, tl := range all {
		wg.Go(func() {
			try, cancel := context.WithTimeout(ctx, answerTimeout)
			defer cancel()
			_ = e.Client().Timelines().MigrateSafekeepers(try, tl.Tenant, tl.ID, tl.Set)
		})
	}
	wg.Wait()
}

// demandMoved demands that moves that nothing is in the way of are done soon.
func (e *episode) demandMoved(ctx context.Context, x obstacle, moving []neon.TimelineRef) {
	var left []neon.TimelineRef
	for began := time.Now(); time.Since(began) < promptLimit && !e.Failed(); {
		if s, err := e.newestState(ctx); err == nil {
			left = slices.DeleteFunc(slices.Clone(moving), func(ref neon.TimelineRef) bool {
				return ref.Tenant == x.tenant || moved(s, ref)
			})
			if len(left) == 0 {
				return
			}
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
	}
	e.Errorf("seed %d, round %d: %s: after %s others have not moved either: %v", e.seed,
		e.tally.rounds, x.what, promptLimit, left)
}

func moved(s *fsm.State, ref neon.TimelineRef) bool {
	tl, ok := s.Timeline(ref.Tenant, ref.Timeline)
	return !ok || tl.Deleted || tl.MigrationDone()
}
