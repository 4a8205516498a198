package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"quorate/api/neon"
	"quorate/fsm"
)

// SafekeeperHook tells compute on which safekeepers a timeline is.
type SafekeeperHook interface {
	NotifySafekeepers(ctx context.Context, body neon.NotifySafekeepers) error
}

// Locate tells on which safekeepers a timeline is, from a linearizable read.
func (t *Timelines) Locate(
	ctx context.Context, ref neon.TimelineRef,
) (l neon.TimelineLocate, err error) {
	s, err := t.Log.ReadState(ctx)
	if err != nil {
		return l, err
	}
	tl, ok := s.Timeline(ref.Tenant, ref.Timeline)
	if !ok {
		return l, neon.Errorf(neon.NotFound, "Timeline %s not found", ref)
	}
	l = neon.TimelineLocate{
		Generation: tl.Generation, Set: append(neon.List[neon.NodeID]{}, tl.Set...),
	}
	if tl.Joint() {
		l.NewSet = new(neon.List[neon.NodeID](tl.NewSet))
	}
	return l, nil
}

// ImportRecord takes charge of a timeline that is on safekeepers already, without a
// call to any of them.
func (t *Timelines) ImportRecord(
	ctx context.Context, ref neon.TimelineRef, req neon.TimelineImportRequest,
) error {
	if req.Tenant != ref.Tenant || req.Timeline != ref.Timeline {
		return neon.Errorf(neon.BadRequest, "tenant id or timeline id mismatch: url=%s, body=%s/%s",
			ref, req.Tenant, req.Timeline)
	}
	// The entry is named by nothing: importing twice is the same as once.
	_, err := t.Log.Propose(ctx, fsm.RequestID{}, fsm.ImportTimeline{
		Tenant: req.Tenant, Timeline: req.Timeline, StartLsn: req.StartLsn, Set: req.Set,
	})
	return err
}

// told tells whether everybody knows the configuration of a timeline.
func told(tl *fsm.Timeline) bool {
	return !tl.Joint() && tl.ComputeAcknowledged == tl.Generation &&
		tl.QuorumAcknowledged == tl.Generation
}

// MigrateSafekeepers moves a timeline to another set of safekeepers. Where it is, is
// in the log at every moment: asking for the same again goes on from there.
func (t *Timelines) MigrateSafekeepers(
	ctx context.Context, ref neon.TimelineRef, want []neon.NodeID,
) error {
	var joint neon.SafekeeperGeneration // that of the migration once we have seen it
	for range decisions {
		s, err := t.Log.ReadState(ctx)
		if err != nil {
			return err
		}
		tl, err := t.checkTarget(s, ref, want)
		switch {
		case err != nil:
			return err
		case tl.Joint() && !slices.Equal(tl.NewSet, want):
			return neon.Errorf(neon.Conflict,
				"the timeline is already migrating to a different safekeeper set: %s",
				list(tl.NewSet))
		case tl.Joint():
			joint = tl.Generation
			err = t.advance(ctx, s, &tl)
		case !told(&tl):
			err = t.settle(ctx, s, &tl)
		case slices.Equal(tl.Set, want):
			return nil
		case joint != 0:
			return neon.Errorf(neon.Conflict, "the migration of timeline %s was aborted", ref)
		default:
			t.Logger.Info("migrating timeline to new safekeeper set", "timeline", ref.String(),
				"from", list(tl.Set), "to", list(want))
			_, err = t.Log.Propose(ctx, fsm.RequestID{}, fsm.BeginMembership{
				Tenant: ref.Tenant, Timeline: ref.Timeline, Generation: tl.Generation, NewSet: want,
			})
			if err == nil {
				err = t.fail(ctx, "sk-migration-after-step-3")
			}
		}
		if err != nil && neon.CodeOf(err) != neon.Conflict {
			return err
		}
		if err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return neon.Errorf(neon.Conflict,
		"others change the safekeepers of timeline %s all the time, please retry", ref)
}

// checkTarget finds the timeline and refuses a set that it cannot move to.
func (t *Timelines) checkTarget(
	s *fsm.State, ref neon.TimelineRef, want []neon.NodeID,
) (tl fsm.Timeline, err error) {
	for _, id := range want {
		if _, ok := s.Safekeeper(id); !ok {
			return tl, neon.Errorf(neon.BadRequest, "safekeeper %d does not exist", id)
		}
	}
	switch n := t.Options.SafekeepersPerTimeline; {
	case len(want) == 0:
		return tl, neon.Errorf(neon.BadRequest, "new safekeeper set is empty")
	case len(want) < n:
		return tl, neon.Errorf(neon.BadRequest,
			"new safekeeper set must have at least %d safekeepers", n)
	}
	for i, id := range want {
		if slices.Contains(want[:i], id) {
			return tl, neon.Errorf(neon.BadRequest, "duplicate safekeeper id in the set %s",
				list(want))
		}
	}
	if tl, err = findTimeline(s, ref); err != nil {
		return tl, err
	}
	for _, id := range want {
		sk, _ := s.Safekeeper(id)
		if sk.Scheduling == neon.SafekeeperDecomissioned && !slices.Contains(tl.Set, id) {
			return tl, neon.Errorf(neon.BadRequest, "safekeeper %d is decomissioned", id)
		}
	}
	return tl, nil
}

func findTimeline(s *fsm.State, ref neon.TimelineRef) (fsm.Timeline, error) {
	tl, ok := s.Timeline(ref.Tenant, ref.Timeline)
	if !ok || tl.Deleted {
		return tl, neon.Errorf(neon.NotFound, "timeline %s doesn't exist in timelines table", ref)
	}
	return tl, nil
}

func list(ids []neon.NodeID) string {
	return strings.ReplaceAll(fmt.Sprint(ids), " ", ", ")
}

// AbortSafekeepers takes a migration back, unless it has been committed. Without one
// it only sees to it that everybody knows the configuration.
func (t *Timelines) AbortSafekeepers(ctx context.Context, ref neon.TimelineRef) error {
	for range decisions {
		s, err := t.Log.ReadState(ctx)
		if err != nil {
			return err
		}
		tl, err := findTimeline(s, ref)
		switch {
		case err != nil:
			return err
		case !tl.Joint() && (told(&tl) || len(tl.Set) == 0):
			return nil
		case !tl.Joint():
			err = t.settle(ctx, s, &tl)
		default:
			t.Logger.Info("aborting timeline migration", "timeline", ref.String(),
				"stays", list(tl.Set), "not", list(tl.NewSet))
			_, err = t.Log.Propose(ctx, fsm.RequestID{}, fsm.EndMembership{
				Tenant: ref.Tenant, Timeline: ref.Timeline, Generation: tl.Generation,
				Verdict: fsm.MembershipAbort,
			})
		}
		if err != nil && neon.CodeOf(err) != neon.Conflict {
			return err
		}
	}
	return neon.Errorf(neon.Conflict,
		"others change the safekeepers of timeline %s all the time, please retry", ref)
}
