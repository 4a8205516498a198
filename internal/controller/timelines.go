package controller

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/duty"
	"quorate/internal/fanout"
	"quorate/internal/membership"
)

// SafekeeperCreator puts new timelines on safekeepers.
type SafekeeperCreator interface {
	Create(ctx context.Context, t membership.Timeline) (*neon.SafekeeperSet, error)
}

// Imports takes imports of timelines to their end.
type Imports interface {
	// Begin records an import that the pageservers have just begun.
	Begin(ctx context.Context, ref neon.TimelineRef) error
}

// Timelines carries timeline requests to the pageservers that own the shards.
type Timelines struct {
	Deps
	safekeepers SafekeeperCreator
	imports     Imports
	creating    *duty.Turns[neon.TimelineRef]
}

// NewTimelines makes a Timelines. Who deletes a timeline takes turns with who is creating it.
func NewTimelines(
	d Deps, safekeepers SafekeeperCreator, imports Imports,
	creating *duty.Turns[neon.TimelineRef],
) *Timelines {
	return &Timelines{Deps: d, safekeepers: safekeepers, imports: imports, creating: creating}
}

// Create creates a timeline on every shard: on shard 0 first, then, with what
// shard 0 chose, on the others, so that all begin at the same LSN. The origin of a
// migration still serves, so it gets the timeline too. Then the timeline is put on
// safekeepers, if the controller is configured to do that. A read-only timeline has
// none. An imported one gets them at the end of the import.
//
// It is acknowledged only if no deletion came between, under whichever leader: else it
// would be there on the shards alone that the deletion had come to before the creation.
func (t *Timelines) Create(
	ctx context.Context, id neon.TenantID, req neon.TimelineCreateRequest,
) (resp neon.TimelineCreateResponse, err error) {
	release, err := t.Locks.acquire(ctx, id, shared("TimelineCreate"))
	if err != nil {
		return resp, err
	}
	defer release()
	if err := t.delay(ctx, "tenant-create-timeline-shared-lock"); err != nil {
		return resp, err
	}
	// Whoever deletes it may hold the turn for long.
	s, err := t.mayCreate(ctx, id, req)
	if err != nil {
		return resp, err
	}
	made := decide.Done(ctx, s) // by an earlier try
	ref := neon.TimelineRef{Tenant: id, Timeline: req.Timeline}
	done, err := t.creating.Take(ctx, ref, nil)
	if err != nil {
		return resp, err
	}
	defer done()
	for range decide.Tries {
		if s, err = t.mayCreate(ctx, id, req); err != nil {
			return resp, err
		}
		resp, err = t.createOnAll(ctx, id, req, creation{begun: s.Index, made: made})
		if err == nil {
			err = t.refuseIfCrossed(ctx, ref, s.Index)
		}
		if err == nil && !made {
			err = decide.Note(ctx, t.Log)
		}
		if !errors.Is(err, errCrossed) {
			return resp, err
		}
	}
	return resp, neon.Errorf(neon.Unavailable,
		"timelines of tenant %s are being deleted all the time, please retry", id)
}

// errCrossed says that the deletion of a timeline of the tenant was recorded since a creation
// has begun, and has ended.
var errCrossed = errors.New("a deletion has crossed the creation")

// refuseIfCrossed returns errCrossed when the deletion of a timeline of the tenant was
// recorded after an index. Shards that the creation had come to before may have nothing
// then, so all of them are asked once more: those that have it say so. Another error says
// that the timeline is being deleted now.
func (t *Timelines) refuseIfCrossed(
	ctx context.Context, ref neon.TimelineRef, begun uint64,
) error {
	s, err := t.Log.ReadState(ctx)
	if err != nil {
		return err
	}
	if _, going := s.TimelineDelete(ref); going {
		return neon.Errorf(neon.Conflict, "timeline %s is being deleted", ref)
	}
	if tenant, _ := s.Tenant(ref.Tenant); tenant.TimelineDeleted > begun {
		return errCrossed
	}
	return nil
}

// creation is one pass of a creation.
type creation struct {
	begun uint64 // index of the state that it is based on
	made  bool   // an earlier try of the request has created it
}

// createOnAll creates a timeline on all shards and then on safekeepers. A leader that was
// deposed unawares, while it waited for the first shard, leaves the others alone once a
// deletion was recorded.
func (t *Timelines) createOnAll(
	ctx context.Context, id neon.TenantID, req neon.TimelineCreateRequest, c creation,
) (resp neon.TimelineCreateResponse, err error) {
	err = fanout.Mutate(ctx, t.Log, id, func(owners []fanout.Owner) error {
		if c.made {
			resp.Info, err = t.created(ctx, owners[0], req.Timeline)
			return err
		}
		info, err := t.createOn(ctx, owners[0], req)
		if err != nil {
			return err
		}
		resp.Info = info
		if len(owners) > 1 {
			ref := neon.TimelineRef{Tenant: id, Timeline: req.Timeline}
			if err := t.refuseIfCrossed(ctx, ref, c.begun); err != nil {
				return err
			}
		}
		pinned := pin(req, info)
		return fanout.Each(ctx, owners[1:], func(ctx context.Context, _ int, o fanout.Owner) error {
			_, err := t.createOn(ctx, o, pinned)
			return err
		})
	})
	readOnly := req.Branch != nil && req.Branch.ReadOnly
	switch {
	case err != nil:
		return resp, err
	case req.Import != nil:
		// Where its log begins is known only at the end of the import.
		err = t.imports.Begin(ctx, neon.TimelineRef{Tenant: id, Timeline: req.Timeline})
	case t.Options.OntoSafekeepers || readOnly:
		resp.Safekeepers, err = t.safekeepers.Create(ctx,
			membership.Timeline{Tenant: id, Info: resp.Info, Writable: !readOnly})
	}
	return resp, err
}

// created finds a timeline that an earlier try of the request has created on all shards.
func (t *Timelines) created(
	ctx context.Context, o fanout.Owner, id neon.TimelineID,
) (info neon.TimelineInfo, err error) {
	_, body, err := t.Pageservers.Call(ctx, &o.Node, o.Shard, neon.DescribeTimeline(id))
	switch {
	case fanout.StatusOf(err) == http.StatusNotFound &&
		strings.Contains(fanout.MessageOf(err), "tenant "+o.Shard.Tenant.String()):
		return info, neon.Errorf(neon.Unavailable,
			"%s does not have the tenant yet, retry later: %w", o.Name(), err)
	case fanout.StatusOf(err) == http.StatusNotFound:
		return info, neon.Errorf(neon.Conflict,
			"timeline %s was created by this request, and has been deleted since", id)
	case err != nil:
		return info, err
	}
	if err := json.Unmarshal(body, &info); err != nil {
		return info, neon.Errorf(neon.Internal, "%s: error decoding body: %w", o.Name(), err)
	}
	return info, nil
}

// mayCreate refuses a timeline that is being deleted, and a branch of one. Some shards may
// have begun to delete it and others not, so they would answer differently. The state is
// the one in which nothing is.
func (t *Timelines) mayCreate(
	ctx context.Context, id neon.TenantID, req neon.TimelineCreateRequest,
) (*fsm.State, error) {
	s, err := t.Log.ReadState(ctx)
	if err != nil {
		return nil, err
	}
	involved := []neon.TimelineID{req.Timeline}
	if req.Branch != nil {
		involved = append(involved, req.Branch.Ancestor)
	}
	for _, tl := range involved {
		ref := neon.TimelineRef{Tenant: id, Timeline: tl}
		if _, going := s.TimelineDelete(ref); going {
			return nil, neon.Errorf(neon.Conflict, "timeline %s is being deleted", ref)
		}
	}
	return s, nil
}

// pin puts what the first shard chose into the request for the other shards.
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
func (t *Timelines) createOn(
	ctx context.Context, o fanout.Owner, req neon.TimelineCreateRequest,
) (neon.TimelineInfo, error) {
	info, err := t.createAt(ctx, o, req)
	if fanout.StatusOf(err) == http.StatusConflict {
		if found, ok := t.branchOf(ctx, o, req); ok {
			info, err = found, nil
		}
	}
	if err != nil {
		return info, err
	}
	s := t.Log.State()
	for id, conf := range t.Reality.Status(o.Shard).Observed {
		node, ok := s.Node(id)
		if !ok || id == o.Node.ID || conf == nil || !conf.Mode.Attached() || !node.Available() {
			continue
		}
		// The location may be removed at this moment, and then has no such tenant.
		beside := fanout.Owner{Shard: o.Shard, Node: node}
		if _, err := t.createAt(ctx, beside, req); err != nil &&
			fanout.StatusOf(err) != http.StatusNotFound {
			return info, err
		}
	}
	return info, nil
}

// createAt creates a timeline at one location. It waits for a creation that is under way
// there already.
func (t *Timelines) createAt(
	ctx context.Context, o fanout.Owner, req neon.TimelineCreateRequest,
) (info neon.TimelineInfo, err error) {
	err = fanout.Settle(ctx, http.StatusTooManyRequests, func() (err error) {
		info, err = t.Pageservers.TimelineCreate(ctx, &o.Node, o.Shard, req)
		return err
	})
	return info, err
}

// branchOf finds the branch that a request wants and that exists. A branch without a start
// begins where its ancestor ends at that moment. So a pageserver that is asked once more
// takes it for another branch.
func (t *Timelines) branchOf(
	ctx context.Context, o fanout.Owner, req neon.TimelineCreateRequest,
) (info neon.TimelineInfo, ok bool) {
	if req.Branch == nil || req.Branch.StartLsn != nil {
		return info, false
	}
	_, body, err := t.Pageservers.Call(ctx, &o.Node, o.Shard, neon.DescribeTimeline(req.Timeline))
	if err != nil || json.Unmarshal(body, &info) != nil {
		return info, false
	}
	return info, info.Ancestor != nil && *info.Ancestor == req.Branch.Ancestor
}
