package controller

import (
	"context"
	"net/http"

	"golang.org/x/sync/errgroup"

	"quorate/fsm"
	"quorate/internal/neon"
)

// Timelines carries timeline requests to the pageservers that own the shards.
type Timelines struct{ Deps }

// NewTimelines makes a Timelines.
func NewTimelines(d Deps) *Timelines { return &Timelines{d} }

// shardCalls bounds the calls of one request under way at a time.
const shardCalls = 32

// Create creates a timeline on every shard: on shard 0 first, then, with what
// shard 0 chose, on the others, so that all have the same beginning. Locations
// that a migration is about to leave still serve, so they get it too. Then the
// timeline is put on safekeepers, if that is the controller's task; one that is only
// read has none.
func (t *Timelines) Create(ctx context.Context, id neon.TenantID, req neon.TimelineCreateRequest) (resp neon.TimelineCreateResponse, err error) {
	if req.Import != nil {
		return resp, neon.Errorf(neon.BadRequest, "importing a timeline is not supported by this controller")
	}
	release, err := t.Locks.acquire(ctx, id, shared("TimelineCreate"))
	if err != nil {
		return resp, err
	}
	defer release()
	if err := t.delay(ctx, "tenant-create-timeline-shared-lock"); err != nil {
		return resp, err
	}
	err = t.mutate(ctx, id, func(owners []owner) error {
		info, err := t.createOn(ctx, owners[0], req)
		if err != nil {
			return err
		}
		resp.Info = info
		pinned := pin(req, info)
		return each(ctx, owners[1:], func(ctx context.Context, o owner) error {
			_, err := t.createOn(ctx, o, pinned)
			return err
		})
	})
	readOnly := req.Branch != nil && req.Branch.ReadOnly
	if err == nil && (t.Options.OntoSafekeepers || readOnly) {
		resp.Safekeepers, err = t.place(ctx, id, resp.Info, !readOnly)
	}
	return resp, err
}

// pin makes a request say what the shard that was asked first has chosen.
func pin(req neon.TimelineCreateRequest, info neon.TimelineInfo) neon.TimelineCreateRequest {
	switch {
	case req.Branch != nil && req.Branch.StartLsn == nil:
		branch := *req.Branch
		branch.StartLsn = info.AncestorLsn
		req.Branch = &branch
	case req.Bootstrap != nil && req.Bootstrap.ExistingInitdb == nil:
		boot := *req.Bootstrap
		boot.ExistingInitdb = &req.Timeline
		req.Bootstrap = &boot
	}
	return req
}

// createOn creates a timeline on the owner of a shard and on the locations that
// are attached besides it.
func (t *Timelines) createOn(ctx context.Context, o owner, req neon.TimelineCreateRequest) (neon.TimelineInfo, error) {
	info, err := t.Pageservers.TimelineCreate(ctx, &o.node, o.shard, req)
	if err != nil {
		return info, err
	}
	s := t.Log.State()
	for id, conf := range t.Reality.Status(o.shard).Observed {
		node, ok := s.Node(id)
		if !ok || id == o.node.ID || conf == nil || !conf.Mode.Attached() || !node.Available() {
			continue
		}
		// It may be on its way out, so that it need not have the tenant any more.
		if _, err := t.Pageservers.TimelineCreate(ctx, &node, o.shard, req); err != nil && statusOf(err) != http.StatusNotFound {
			return info, err
		}
	}
	return info, nil
}

// Deletion is how far the deletion of a timeline is.
type Deletion uint8

// The stages of a deletion.
const (
	DeletionRuns Deletion = iota
	DeletionDone
)

// Delete deletes a timeline, or asks how far that is: on all shards but the first,
// then, when they have nothing left, on the first, and only then on safekeepers. It
// is to be called again until it is done.
func (t *Timelines) Delete(ctx context.Context, id neon.TenantID, timeline neon.TimelineID) (stage Deletion, err error) {
	err = t.mutate(ctx, id, func(owners []owner) error {
		stage = DeletionRuns
		if ok, err := t.deleteOn(ctx, owners[1:], timeline); err != nil || !ok {
			return err
		}
		ok, err := t.deleteOn(ctx, owners[:1], timeline)
		if ok {
			stage = DeletionDone
		}
		return err
	})
	if err == nil && stage == DeletionDone {
		err = t.drop(ctx, id, timeline)
	}
	return stage, err
}

// deleteOn tells whether none of the shards has anything left of a timeline.
func (t *Timelines) deleteOn(ctx context.Context, owners []owner, timeline neon.TimelineID) (bool, error) {
	statuses := make([]int, len(owners))
	err := each(ctx, owners, func(ctx context.Context, o owner) error {
		status, err := t.Pageservers.TimelineDelete(ctx, &o.node, o.shard, timeline)
		statuses[o.at] = status
		return deleteError(err)
	})
	if err != nil {
		return false, err
	}
	for _, status := range statuses {
		if status != http.StatusNotFound {
			return false, nil
		}
	}
	return true, nil
}

func deleteError(err error) error {
	if err == nil {
		return nil
	}
	switch status, msg := statusOf(err), messageOf(err); {
	case status == 0:
		return err // no answer: as the client of pageservers classes it
	case status == http.StatusServiceUnavailable, status == http.StatusPreconditionFailed && msg == "Requested tenant is missing":
		return &neon.Error{Code: neon.Unavailable, Msg: msg, Err: err}
	case status == http.StatusConflict:
		return &neon.Error{Code: neon.Conflict, Msg: msg, Err: err}
	default:
		return &neon.Error{Code: neon.Internal, Msg: msg, Err: err}
	}
}

// each runs f for every owner, some at a time, until one fails.
func each(ctx context.Context, owners []owner, f func(context.Context, owner) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(shardCalls)
	for i, o := range owners {
		o.at = i
		g.Go(func() error { return f(ctx, o) })
	}
	return g.Wait()
}

// owner is a shard and the node that its newest generation was issued to.
type owner struct {
	shard      neon.ShardID
	generation neon.Generation
	node       fsm.Node
	at         int // position among those asked together
}
