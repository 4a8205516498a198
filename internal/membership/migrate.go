package membership

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/failpoint"
)

// Migrator moves timelines between safekeepers.
//
// A configuration has a generation and notes who has acknowledged it. Each phase of a
// move can be read off that, so a repeated request, or the next leader, goes on from
// there.
type Migrator struct{ Deps }

// NewMigrator makes a Migrator. Run carries on what requests have left.
func NewMigrator(d Deps) *Migrator {
	d.Failpoints = failpoint.OrNone(d.Failpoints)
	return &Migrator{d}
}

// fail passes a place at which tests make a move fail.
func (m *Migrator) fail(ctx context.Context, place string) error {
	return failpoint.Fail(ctx, m.Failpoints, place,
		neon.Errorf(neon.BadRequest, "failpoint %s", place))
}

// acknowledged reports whether compute and a quorum of the safekeepers have
// acknowledged the configuration of a timeline.
func acknowledged(tl *fsm.Timeline) bool {
	return !tl.Joint() && tl.ComputeAcknowledged == tl.Generation &&
		tl.QuorumAcknowledged == tl.Generation
}

// Migrate moves a timeline to another set of safekeepers. Where it is, is
// in the log at every moment: asking for the same again goes on from there.
func (m *Migrator) Migrate(
	ctx context.Context, ref neon.TimelineRef, want []neon.NodeID,
) error {
	var joint neon.SafekeeperGeneration // that of the migration once we have seen it
	var last progress
	step := decide.NextStep(ctx)
	for range decide.Tries {
		s, err := m.Log.ReadState(ctx)
		if err != nil {
			return err
		}
		tl, err := m.checkTarget(s, ref, want)
		if err == nil {
			err = last.failed(&tl)
		}
		switch {
		case err != nil:
			return err
		case tl.Joint() && !slices.Equal(tl.NewSet, want):
			return neon.Errorf(neon.Conflict,
				"the timeline is already migrating to a different safekeeper set: %s",
				list(tl.NewSet))
		case tl.Joint():
			joint = tl.Generation
			err = m.advance(ctx, s, &tl)
		case !acknowledged(&tl):
			err = m.publish(ctx, s, &tl)
		case slices.Equal(tl.Set, want):
			return decide.Ended(ctx, m.Log, step)
		case joint != 0:
			return neon.Errorf(neon.Conflict, "the migration of timeline %s was aborted", ref)
		case decide.Done(ctx, s):
			return neon.Errorf(neon.Conflict,
				"the migration of timeline %s was begun by this request, and was aborted, or others have moved it since",
				ref)
		default:
			m.Logger.Info("migrating timeline to new safekeeper set", "timeline", ref.String(),
				"from", list(tl.Set), "to", list(want))
			_, err = m.Log.Propose(ctx, nameAt(s, step), fsm.BeginMembership{
				Tenant: ref.Tenant, Timeline: ref.Timeline, Generation: tl.Generation, NewSet: want,
			})
			if err == nil {
				err = m.fail(ctx, "sk-migration-after-step-3")
			}
		}
		if err = last.made(&tl, err); err != nil {
			return err
		}
		if last.conflict != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return neon.Errorf(neon.Conflict,
		"others change the safekeepers of timeline %s all the time, please retry", ref)
}

// checkTarget finds the timeline and refuses a set that it cannot move to.
func (m *Migrator) checkTarget(
	s *fsm.State, ref neon.TimelineRef, want []neon.NodeID,
) (tl fsm.Timeline, err error) {
	for _, id := range want {
		if _, ok := s.Safekeeper(id); !ok {
			return tl, neon.Errorf(neon.BadRequest, "safekeeper %d does not exist", id)
		}
	}
	switch n := m.PerTimeline; {
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

// Abort takes a migration back, unless it has been committed. Without one
// it only sees to it that all safekeepers know the configuration.
func (m *Migrator) Abort(ctx context.Context, ref neon.TimelineRef) error {
	var last progress
	step := decide.NextStep(ctx)
	for range decide.Tries {
		s, err := m.Log.ReadState(ctx)
		if err != nil {
			return err
		}
		tl, err := findTimeline(s, ref)
		if err == nil {
			err = last.failed(&tl)
		}
		switch {
		case err != nil:
			return err
		case tl.Joint() && done(s, step):
			return nil // another migration, begun since
		case !tl.Joint() && (acknowledged(&tl) || len(tl.Set) == 0):
			if done(s, step) {
				return nil
			}
			return decide.Ended(ctx, m.Log, step) // nothing was to be done, and is not later
		case !tl.Joint():
			err = m.publish(ctx, s, &tl)
		default:
			m.Logger.Info("aborting timeline migration", "timeline", ref.String(),
				"stays", list(tl.Set), "not", list(tl.NewSet))
			_, err = m.Log.Propose(ctx, nameAt(s, step), fsm.EndMembership{
				Tenant: ref.Tenant, Timeline: ref.Timeline, Generation: tl.Generation,
				Verdict: fsm.MembershipAbort,
			})
		}
		if err = last.made(&tl, err); err != nil {
			return err
		}
	}
	return neon.Errorf(neon.Conflict,
		"others change the safekeepers of timeline %s all the time, please retry", ref)
}

// nameAt is the name of a change as far as all members know that it is of one change only.
func nameAt(s *fsm.State, step fsm.RequestID) fsm.RequestID {
	if !s.NamesEachChange() {
		return fsm.RequestID{}
	}
	return step
}

// done reports whether an earlier try of a request has made the change of that name.
func done(s *fsm.State, step fsm.RequestID) bool {
	_, done := s.Done(step)
	return done
}
