package deletion

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/duty"
	"quorate/internal/fanout"
	"quorate/internal/wait"
)

// Stage is how far the deletion of a timeline is.
type Stage uint8

// The stages of a deletion.
const (
	Runs Stage = iota
	Done
)

// The deletion of a timeline is asked after once soon, then now and then, and left
// to the client after a while.
const (
	firstPause = time.Second
	nextPause  = 5 * time.Second
	waitLimit  = 25 * time.Second
)

// TimelinePageservers are the calls about the deletion of a timeline of one shard.
type TimelinePageservers interface {
	// TimelineDelete returns 202 while the deletion runs and 404 when nothing is left.
	// It tries once, bounded by ctx.
	TimelineDelete(
		ctx context.Context, node *fsm.Node, shard neon.ShardID, timeline neon.TimelineID,
	) (status int, err error)

	// HasBranches reports whether a timeline has any. Then it is not deleted.
	HasBranches(
		ctx context.Context, node *fsm.Node, shard neon.ShardID, timeline neon.TimelineID,
	) (bool, error)
}

// Sights are the locations of shards that were seen.
type Sights interface {
	Status(id neon.ShardID) decide.ShardStatus
}

// Timelines deletes timelines.
type Timelines struct {
	log         decide.Log
	sights      Sights
	pageservers TimelinePageservers
	turns       *duty.Turns[neon.TimelineRef] // with imports
	creating    *duty.Turns[neon.TimelineRef] // with creations
	logger      *slog.Logger

	work wait.Signal // wakes Run
}

// NewTimelines makes a Timelines. Run finishes what no client asks after any more.
func NewTimelines(
	log decide.Log, sights Sights, pageservers TimelinePageservers,
	turns, creating *duty.Turns[neon.TimelineRef], logger *slog.Logger,
) *Timelines {
	return &Timelines{
		log: log, sights: sights, pageservers: pageservers, turns: turns,
		creating: creating, logger: logger,
		work: wait.NewSignal(),
	}
}

// Delete deletes a timeline and waits for that as long as a client may be kept
// waiting. If it still runs then, the client asks again.
func (t *Timelines) Delete(
	ctx context.Context, id neon.TenantID, timeline neon.TimelineID,
) (Stage, error) {
	begun := time.Now()
	step := decide.NextStep(ctx)
	for pause := firstPause; ; pause = nextPause {
		stage, err := t.deleteOnce(ctx, id, timeline, step)
		if err == nil && stage == Done {
			err = decide.Ended(ctx, t.log, step) // also if another request has begun it
		}
		if err != nil || stage == Done || time.Since(begun)+pause > waitLimit {
			return stage, err
		}
		if wait.Sleep(ctx, pause) != nil {
			return stage, ctx.Err()
		}
	}
}

// deleteOnce deletes a timeline, or asks how far that is: on all shards but the first,
// then, when they have nothing left, on the first, and only then on safekeepers. It
// is recorded before any pageserver hears of it, so that the leader finishes what
// no client asks after any more, unless all pageservers refuse.
func (t *Timelines) deleteOnce(
	ctx context.Context, id neon.TenantID, timeline neon.TimelineID, step fsm.RequestID,
) (Stage, error) {
	ref := neon.TimelineRef{Tenant: id, Timeline: timeline}
	for range decide.Tries {
		s, err := t.log.ReadState(ctx)
		if err != nil {
			return Runs, err
		}
		if _, err := fanout.Owners(s, id); err != nil {
			return Runs, err
		}
		d, ok := s.TimelineDelete(ref)
		if _, done := s.Done(step); !ok && done {
			return Done, nil // begun by this request, not taken back, and over
		}
		if !ok {
			t.logger.Info("Deleting timeline " + ref.String())
			if !s.NamesEachChange() {
				step = fsm.RequestID{}
			}
			_, err := t.log.Propose(ctx, step,
				fsm.BeginDeleteTimeline{Tenant: id, Timeline: timeline})
			if err != nil {
				return Runs, err
			}
			d, _ = t.log.State().TimelineDelete(ref) // if it is over already, the pass says so
		}
		stage, err := t.deletePass(ctx, d)
		if !errors.Is(err, errOver) {
			return stage, err
		}
	}
	return Runs, neon.Errorf(neon.Conflict,
		"others delete timeline %s at the same time, please retry", ref)
}

// errOver is returned when the deletion was ended meanwhile, one way or the other.
var errOver = errors.New("the deletion is over")

// deletePass asks every shard once. It ends the recorded deletion when nothing is
// left, and takes it back when nothing was begun and the pageservers refuse.
func (t *Timelines) deletePass(
	ctx context.Context, d fsm.TimelineDelete,
) (stage Stage, err error) {
	ref := d.Ref()
	// The entry that recorded the deletion has ended an import. Its work has to stop, so
	// that the turn comes.
	t.turns.Interrupt(ref)
	release, err := t.turns.Take(ctx, ref, nil)
	if err != nil {
		return Runs, err
	}
	defer release()
	// A creation that is under way comes to its end first. It would go on with shards that
	// have nothing left.
	turn, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	created, err := t.creating.Take(turn, ref, nil)
	switch {
	case err != nil && ctx.Err() == nil:
		return Runs, nil
	case err != nil:
		return Runs, err
	}
	defer created()
	if s, err := t.log.ReadState(ctx); err != nil {
		return Runs, err
	} else if now, ok := s.TimelineDelete(ref); !ok || now != d {
		return Runs, errOver
	}
	var pass deleted
	err = fanout.Mutate(ctx, t.log, ref.Tenant, func(owners []fanout.Owner) error {
		var err error
		if pass, err = t.deleteBeside(ctx, owners, ref.Timeline); err != nil || pass.left {
			return err
		}
		for _, some := range [][]fanout.Owner{owners[1:], owners[:1]} {
			if err := t.deleteOn(ctx, some, ref.Timeline, &pass); err != nil || pass.left {
				return err
			}
		}
		return nil
	})
	switch {
	case err == nil && !pass.left:
		return Done, t.drop(ctx, ref)
	case refusal(err) && !pass.begun:
		c := fsm.CancelDeleteTimeline{
			Tenant: ref.Tenant, Timeline: ref.Timeline, Sequence: d.Sequence,
		}
		if _, cerr := t.log.Propose(ctx, fsm.RequestID{}, c); cerr != nil {
			err = cerr
		}
	}
	return Runs, err
}

// deleteBeside deletes a timeline where shards are attached besides. The origin of a move
// goes on uploading until its end: it would bring back the index of a timeline of which
// only the new owner has nothing left. But what the origin deletes, the owner loses, and it
// may have branches that the origin never got. Then the origin is not asked, and the owner
// refuses. No branch is made while the deletion is recorded.
func (t *Timelines) deleteBeside(
	ctx context.Context, owners []fanout.Owner, timeline neon.TimelineID,
) (pass deleted, err error) {
	others, moving := t.beside(owners)
	if len(others) == 0 {
		return pass, nil
	}
	branched := make([]bool, len(moving))
	err = fanout.Each(ctx, moving, func(ctx context.Context, i int, o fanout.Owner) error {
		return fanout.Settle(ctx, 0, func() (err error) {
			branched[i], err = t.pageservers.HasBranches(ctx, &o.Node, o.Shard, timeline)
			return err
		})
	})
	if err != nil || slices.Contains(branched, true) {
		return pass, deleteError(err)
	}
	err = t.deleteOn(ctx, others, timeline, &pass)
	pass.begun = pass.begun && pass.left // what an origin does not have is nothing that was begun
	return pass, err
}

// beside are the other locations where shards are attached, and the owners of these shards.
func (t *Timelines) beside(owners []fanout.Owner) (others, moving []fanout.Owner) {
	s := t.log.State()
	for _, o := range owners {
		before := len(others)
		for id, conf := range t.sights.Status(o.Shard).Observed {
			node, ok := s.Node(id)
			if ok && id != o.Node.ID && node.Available() && conf != nil && conf.Mode.Attached() {
				others = append(others, fanout.Owner{Shard: o.Shard, Node: node})
			}
		}
		if len(others) > before {
			moving = append(moving, o)
		}
	}
	return others, moving
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
	ctx context.Context, owners []fanout.Owner, timeline neon.TimelineID, pass *deleted,
) error {
	statuses, errs := make([]int, len(owners)), make([]error, len(owners))
	_ = fanout.Each(ctx, owners, func(ctx context.Context, i int, o fanout.Owner) error {
		errs[i] = fanout.Settle(ctx, 0, func() (err error) {
			statuses[i], err = t.pageservers.TimelineDelete(ctx, &o.Node, o.Shard, timeline)
			return err
		})
		if fanout.StatusOf(errs[i]) == http.StatusConflict {
			// The pageserver is at it already, maybe for a leader that has died.
			statuses[i], errs[i] = http.StatusAccepted, nil
		}
		return nil
	})
	for i, err := range errs {
		// Without an answer it may have begun.
		pass.begun = pass.begun || err == nil || fanout.StatusOf(err) == 0
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

// refusal reports whether a pageserver says that a timeline must not be deleted, as
// opposed to not now.
func refusal(err error) bool {
	return fanout.StatusOf(err) == http.StatusPreconditionFailed &&
		fanout.MessageOf(err) != missingTenant
}

// missingTenant is what a pageserver says that does not have the shard.
const missingTenant = "Requested tenant is missing"

func deleteError(err error) error {
	if err == nil {
		return nil
	}
	switch status, msg := fanout.StatusOf(err), fanout.MessageOf(err); {
	case status == 0:
		return err // no answer: as the client of pageservers classes it
	case status == http.StatusServiceUnavailable, status == http.StatusNotFound,
		status == http.StatusPreconditionFailed && msg == missingTenant:
		return &neon.Error{Code: neon.Unavailable, Msg: msg, Err: err}
	default:
		return &neon.Error{Code: neon.Internal, Msg: msg, Err: err}
	}
}

// drop ends a deletion: the safekeepers of the timeline drop it, after the
// pageservers have. They are seen to in the background.
func (t *Timelines) drop(ctx context.Context, ref neon.TimelineRef) error {
	if tl, ok := t.log.State().Timeline(ref.Tenant, ref.Timeline); ok && !tl.Deleted {
		for _, member := range tl.Members() {
			t.logger.Info("writing pending op for sk id "+member.String(), "tenant", ref.Tenant,
				"timeline", ref.Timeline)
		}
	}
	_, err := t.log.Propose(ctx, fsm.RequestID{},
		fsm.DeleteTimeline{Tenant: ref.Tenant, Timeline: ref.Timeline})
	return err
}
