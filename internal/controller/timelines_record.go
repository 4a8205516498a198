package controller

import (
	"context"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

// Locate says which safekeepers a timeline is on, from a linearizable read.
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

// ImportRecord records a timeline that is on safekeepers already. It calls none of them.
func (t *Timelines) ImportRecord(
	ctx context.Context, ref neon.TimelineRef, req neon.TimelineImportRequest,
) error {
	if req.Tenant != ref.Tenant || req.Timeline != ref.Timeline {
		return neon.Errorf(neon.BadRequest, "tenant id or timeline id mismatch: url=%s, body=%s/%s",
			ref, req.Tenant, req.Timeline)
	}
	if err := req.StartLsn.Check(); err != nil {
		return err
	}
	_, err := decide.Propose(ctx, t.Log, fsm.ImportTimeline{
		Tenant: req.Tenant, Timeline: req.Timeline, StartLsn: req.StartLsn, Set: req.Set,
	})
	return err
}
