package controller

import (
	"context"
	"strings"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/imports"
)

// ImportStatus is what the owner of a shard has last reported of an import, from a
// linearizable read. A request with an older generation is refused as BadRequest: a
// superseded owner must not go on.
func (u *Upcalls) ImportStatus(
	ctx context.Context, req neon.ImportStatusRequest,
) (status neon.ShardImport, err error) {
	s, err := u.Log.ReadState(ctx)
	if err != nil {
		return status, err
	}
	sh, ok := s.Shard(req.Shard)
	switch {
	case !ok:
		return status, neon.Errorf(neon.Internal, "%s shard not found", req.Shard)
	case !sh.HasGeneration || sh.Generation != req.Generation:
		u.Logger.Info("Rejecting import progress fetch from stale generation",
			"shard", req.Shard.String(), "claimed", req.Generation, "actual", sh.Generation)
		return status, neon.Errorf(neon.BadRequest, "Invalid generation")
	}
	ref := neon.TimelineRef{Tenant: req.Shard.Tenant, Timeline: req.Timeline}
	i, ok := s.Import(ref)
	if !ok {
		return status, neon.Errorf(neon.NotFound, "import for %s not found", ref)
	}
	if status, ok = i.Shard(req.Shard); !ok {
		return status, neon.Errorf(neon.NotFound, "shard %s not found",
			imports.ShardIndex(req.Shard))
	}
	return status, nil
}

// keptError bounds the error text that is kept of a report, in bytes.
const keptError = 4000

// ReportImport records how far the import of a timeline is on one shard. The log
// checks that the reporter owns the shard.
func (u *Upcalls) ReportImport(ctx context.Context, req neon.ImportStatusReport) error {
	if len(req.Status.Error) > keptError {
		req.Status.Error = strings.ToValidUTF8(req.Status.Error[:keptError], "")
	}
	// The entry has no request id: reporting twice is the same as once.
	_, err := u.Log.Propose(ctx, fsm.RequestID{}, fsm.UpdateImport{
		Shard: req.Shard, Timeline: req.Timeline, Generation: req.Generation, Status: req.Status,
	})
	if err == nil && req.Status.Terminal() {
		u.Logger.Info("Updated timeline import status", "shard", req.Shard.String(),
			"timeline", req.Timeline, "err", req.Status.Error)
	}
	return err
}
