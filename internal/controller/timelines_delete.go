package controller

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
)

// Deletion is how far the deletion of a timeline is.
type Deletion uint8

// The stages of a deletion.
const (
	DeletionRuns Deletion = iota
	DeletionDone
)

// Delete deletes a timeline, or asks how far that is: on all shards but the first,
// then, when they have nothing left, on the first, and only then on safekeepers. It
// is recorded before any pageserver hears of it, so that the leader finishes what
// nobody asks after any more, unless all pageservers refuse.
func (t *Timelines) Delete(
	ctx context.Context, id neon.TenantID, timeline neon.TimelineID,
) (Deletion, error) {
	ref := neon.TimelineRef{Tenant: id, Timeline: timeline}
	for range decisions {
		s, err := t.Log.ReadState(ctx)
		if err != nil {
			return DeletionRuns, err
		}
		if _, err := owners(s, id); err != nil {
			return DeletionRuns, err
		}
		d, ok := s.TimelineDelete(ref)
		if !ok {
			t.Logger.Info("Deleting timeline " + ref.String())
			// The entry is named by nothing: recording it twice is the same as once.
			_, err := t.Log.Propose(ctx, fsm.RequestID{},
				fsm.BeginDeleteTimeline{Tenant: id, Timeline: timeline})
			if err != nil {
				return DeletionRuns, err
			}
			d, _ = t.Log.State().TimelineDelete(ref) // if it is over already, the pass says so
		}
		t.turns.interrupt(ref)
		stage, err := t.deletePass(ctx, d)
		if !errors.Is(err, errOver) {
			return stage, err
		}
	}
	return DeletionRuns, neon.Errorf(neon.Conflict,
		"others delete timeline %s at the same time, please retry", ref)
}

// errOver is met when somebody else has ended the deletion, one way or the other.
var errOver = errors.New("the deletion is over")

// deletePass asks every shard once. It ends the recorded deletion when nothing is
// left, and takes it back when nothing was begun and the pageservers refuse.
func (t *Timelines) deletePass(
	ctx context.Context, d fsm.TimelineDelete,
) (stage Deletion, err error) {
	ref := d.Ref()
	release, err := t.turns.take(ctx, ref, nil)
	if err != nil {
		return DeletionRuns, err
	}
	defer release()
	if s, err := t.Log.ReadState(ctx); err != nil {
		return DeletionRuns, err
	} else if now, ok := s.TimelineDelete(ref); !ok || now != d {
		return DeletionRuns, errOver
	}
	var pass deleted
	err = t.mutate(ctx, ref.Tenant, func(owners []owner) error {
		pass = deleted{}
		if err := t.deleteOn(ctx, owners[1:], ref.Timeline, &pass); err != nil || pass.left {
			return err
		}
		return t.deleteOn(ctx, owners[:1], ref.Timeline, &pass)
	})
	switch {
	case err == nil && !pass.left:
		return DeletionDone, t.drop(ctx, ref)
	case refusal(err) && !pass.begun:
		c := fsm.CancelDeleteTimeline{
			Tenant: ref.Tenant, Timeline: ref.Timeline, Sequence: d.Sequence,
		}
		if _, cerr := t.Log.Propose(ctx, fsm.RequestID{}, c); cerr != nil {
			err = cerr
		}
	}
	return DeletionRuns, err
}

// deleted is what the shards that were asked have said.
type deleted struct {
	left  bool // some have something left
	begun bool // some delete it, or have
}

// deleteOn deletes a timeline on some shards. It waits for all of them, whatever one
// says: those that have begun must be known. The error is that of a shard that
// refuses, or else of the first one that has any.
func (t *Timelines) deleteOn(
	ctx context.Context, owners []owner, timeline neon.TimelineID, pass *deleted,
) error {
	statuses, errs := make([]int, len(owners)), make([]error, len(owners))
	_ = each(ctx, owners, func(ctx context.Context, o owner) error {
		statuses[o.at], errs[o.at] = t.Pageservers.TimelineDelete(ctx, &o.node, o.shard, timeline)
		return nil
	})
	for i, err := range errs {
		// Without an answer it may have begun.
		pass.begun = pass.begun || err == nil || statusOf(err) == 0
		pass.left = pass.left || err != nil || statuses[i] != http.StatusNotFound
	}
	i := slices.IndexFunc(errs, refusal)
	if i < 0 {
		i = slices.IndexFunc(errs, func(err error) bool { return err != nil })
	}
	if i < 0 {
		return nil
	}
	return deleteError(errs[i])
}

// refusal tells whether a pageserver says that a timeline must not be deleted, as
// opposed to not now.
func refusal(err error) bool {
	return statusOf(err) == http.StatusPreconditionFailed && messageOf(err) != missingTenant
}

// missingTenant is what a pageserver says that does not have the shard.
const missingTenant = "Requested tenant is missing"

func deleteError(err error) error {
	if err == nil {
		return nil
	}
	switch status, msg := statusOf(err), messageOf(err); {
	case status == 0:
		return err // no answer: as the client of pageservers classes it
	case status == http.StatusServiceUnavailable,
		status == http.StatusPreconditionFailed && msg == missingTenant:
		return &neon.Error{Code: neon.Unavailable, Msg: msg, Err: err}
	case status == http.StatusConflict:
		return &neon.Error{Code: neon.Conflict, Msg: msg, Err: err}
	default:
		return &neon.Error{Code: neon.Internal, Msg: msg, Err: err}
	}
}

// drop ends a deletion: the safekeepers of the timeline drop it, after the
// pageservers have. They are seen to in the background.
func (t *Timelines) drop(ctx context.Context, ref neon.TimelineRef) error {
	if tl, ok := t.Log.State().Timeline(ref.Tenant, ref.Timeline); ok && !tl.Deleted {
		for _, member := range tl.Members() {
			t.Logger.Info("writing pending op for sk id "+member.String(), "tenant", ref.Tenant,
				"timeline", ref.Timeline)
		}
	}
	_, err := t.Log.Propose(ctx, fsm.RequestID{},
		fsm.DeleteTimeline{Tenant: ref.Tenant, Timeline: ref.Timeline})
	return err
}
