package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

// ImportHook tells the control plane how the import of a timeline ended.
type ImportHook interface {
	// ImportComplete makes one attempt.
	ImportComplete(ctx context.Context, body neon.ImportComplete) error
}

// Pauses between tries of what ends an import.
const (
	activatePause = 250 * time.Millisecond
	importPlace   = 5 * time.Second
	importNotify  = time.Second
)

// importPoint is a place at which tests hold the end of an import.
const importPoint = "timeline-import-pre-cplane-notification"

// ImportStatus is what the owner of a shard has last reported of an import, from a
// linearizable read. Only the newest owner is told: another one must not go on.
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
		return status, neon.Errorf(neon.NotFound, "shard %s not found", shardIndex(req.Shard))
	}
	return status, nil
}

// shardIndex is a shard as NNCC.
func shardIndex(id neon.ShardID) string {
	return fmt.Sprintf("%02x%02x", uint8(id.Number), uint8(id.Count))
}

// keptError is how much of a pageserver's words is kept, in bytes.
const keptError = 4000

// ReportImport records how far the import of a timeline is on one shard. The log
// checks that the reporter owns the shard.
func (u *Upcalls) ReportImport(ctx context.Context, req neon.ImportStatusReport) error {
	if len(req.Status.Error) > keptError {
		req.Status.Error = strings.ToValidUTF8(req.Status.Error[:keptError], "")
	}
	// The entry is named by nothing: reporting twice is the same as once.
	_, err := u.Log.Propose(ctx, fsm.RequestID{}, fsm.UpdateImport{
		Shard: req.Shard, Timeline: req.Timeline, Generation: req.Generation, Status: req.Status,
	})
	if err == nil && req.Status.Terminal() {
		u.Logger.Info("Updated timeline import status", "shard", req.Shard.String(),
			"timeline", req.Timeline, "err", req.Status.Error)
	}
	return err
}

// beginImport records an import that the pageservers have just begun.
func (t *Timelines) beginImport(ctx context.Context, ref neon.TimelineRef) error {
	_, err := commit(ctx, t.Log, func(s *fsm.State) (fsm.Command, error) {
		if _, ok := s.Import(ref); ok {
			return nil, nil
		}
		return fsm.BeginImport{Tenant: ref.Tenant, Timeline: ref.Timeline}, nil
	})
	return err
}

// openImport finds an import that is not finished, from a linearizable read: a
// leader that was deposed unawares must not go on with one that is gone.
func (t *Timelines) openImport(
	ctx context.Context, ref neon.TimelineRef,
) (s *fsm.State, i fsm.Import, open bool, err error) {
	if s, err = t.Log.ReadState(ctx); err != nil {
		return s, i, false, err
	}
	i, ok := s.Import(ref)
	return s, i, ok && !i.Finished, nil
}

// endImport takes a complete import to its end: the timeline is made usable on all
// shards, put on safekeepers if that is the controller's task, and the control plane
// is told. Every step may be repeated, and is, until it succeeds, by whoever leads.
// It returns when the import is finished or gone, or with the error of ctx.
func (t *Timelines) endImport(ctx context.Context, ref neon.TimelineRef) error {
	_, i, open, err := t.openImport(ctx, ref)
	if err != nil || !open {
		return err
	}
	t.Logger.Info("Finalizing timeline import", "timeline", ref.String())
	if t.Failpoints != nil {
		if err := t.Failpoints.Pausable(ctx, importPoint); err != nil {
			return err
		}
	}
	told := neon.ImportComplete{Tenant: ref.Tenant, Timeline: ref.Timeline, Error: importError(&i)}
	if told.Error == nil {
		info, open, err := t.activateImported(ctx, ref)
		if err != nil || !open {
			return err
		}
		if err := t.placeImported(ctx, ref, info); err != nil {
			return err
		}
	}
	return t.announceImport(ctx, ref, told)
}

// importError is what the shards have reported as a JSON object, nil if all
// succeeded.
func importError(i *fsm.Import) *string {
	texts := make(map[string]string)
	for n, s := range i.Shards {
		if s.State == neon.ShardImportFailed {
			texts[shardIndex(neon.ShardID{Number: neon.ShardNumber(n), Count: i.Count})] = s.Error
		}
	}
	if len(texts) == 0 {
		return nil
	}
	b, err := json.Marshal(texts)
	if err != nil {
		panic(err) // strings always encode
	}
	return new(string(b))
}

// activateImported makes an imported timeline usable on every shard and returns the
// description by shard zero. Shards that move meanwhile, or are not attached, are
// asked again where they are then.
func (t *Timelines) activateImported(
	ctx context.Context, ref neon.TimelineRef,
) (info neon.TimelineInfo, open bool, err error) {
	active := make(map[neon.ShardID]bool)
	for {
		s, i, open, err := t.openImport(ctx, ref)
		if ctx.Err() != nil || err == nil && !open {
			return info, false, ctx.Err()
		}
		if err == nil {
			for _, r := range ask(ctx, t.Pageservers, inactive(s, ref.Tenant, active),
				neon.ActivateImported(ref.Timeline)) {
				var got neon.TimelineInfo
				if r.err != nil || r.status != http.StatusOK ||
					json.Unmarshal(r.body, &got) != nil {
					continue
				}
				if active[r.shard] = true; r.shard.Number == 0 {
					info = got
				}
			}
			if left := i.Count.Shards() - len(active); left > 0 {
				t.Logger.Info(fmt.Sprintf(
					"Failed to activate timeline on %d shards post import. Will retry",
					left), "timeline", ref.String())
			} else {
				t.Logger.Info("Post import timeline activation complete", "timeline", ref.String())
				return info, true, nil
			}
		}
		if err := rest(ctx, activatePause); err != nil {
			return info, false, err
		}
	}
}

// inactive are the owners of the shards that are not active yet.
func inactive(s *fsm.State, id neon.TenantID, active map[neon.ShardID]bool) (found []owner) {
	tenant, _ := s.Tenant(id)
	for sh := range s.TenantShards(id) {
		if o, err := ownerOf(s, tenant, sh); err == nil && !active[sh.ID] {
			found = append(found, o)
		}
	}
	return found
}

// placeImported puts an imported timeline on safekeepers, from where its log begins.
func (t *Timelines) placeImported(
	ctx context.Context, ref neon.TimelineRef, info neon.TimelineInfo,
) error {
	if !t.Options.OntoSafekeepers {
		return nil
	}
	for {
		_, err := t.place(ctx, onto{tenant: ref.Tenant, info: info, writable: true, imported: true})
		switch {
		case err == nil:
			t.Logger.Info("Timeline created on safekeepers", "timeline", ref.String())
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if _, _, open, rerr := t.openImport(ctx, ref); rerr == nil && !open {
			return nil // there is nothing to announce either
		}
		t.Logger.Info("Failed to create timeline on safekeepers", "timeline", ref.String(),
			"err", err)
		if err := rest(ctx, importPlace); err != nil {
			return err
		}
	}
}

// announceImport tells the control plane until it has heard, and finishes the
// import then. It may hear twice if the leader dies in between.
func (t *Timelines) announceImport(
	ctx context.Context, ref neon.TimelineRef, told neon.ImportComplete,
) error {
	t.Logger.Info("Notifying cplane of import completion", "timeline", ref.String(),
		"import_failed", told.Error != nil)
	for try := 1; ; try++ {
		_, _, open, err := t.openImport(ctx, ref)
		if ctx.Err() != nil || err == nil && !open {
			return ctx.Err()
		}
		if err == nil && t.ImportHook != nil {
			err = t.ImportHook.ImportComplete(ctx, told)
		}
		if err == nil {
			_, err = t.Log.Propose(ctx, fsm.RequestID{},
				fsm.FinishImport{Tenant: ref.Tenant, Timeline: ref.Timeline})
		}
		if err == nil {
			t.Logger.Info("Timeline import completed", "timeline", ref.String(),
				"import_failed", told.Error != nil)
			return nil
		}
		t.Logger.Info("Import complete notification failed", "timeline", ref.String(),
			"attempt", try, "err", err)
		if err := rest(ctx, importNotify); err != nil {
			return err
		}
	}
}

// rest waits unless ctx ends first.
func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
