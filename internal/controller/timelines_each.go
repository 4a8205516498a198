package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/fanout"
)

// askAll makes one call on the owners of all shards of a tenant. The error is that of the
// first shard that has one, as spell makes it.
func (t *Timelines) askAll(
	ctx context.Context, id neon.TenantID, call neon.ShardCall, spell func(fanout.Reply) error,
) (replies []fanout.Reply, err error) {
	err = fanout.Mutate(ctx, t.Log, id, func(owners []fanout.Owner) error {
		replies = fanout.Ask(ctx, t.Pageservers, owners, call)
		for _, r := range replies {
			if r.Err != nil {
				return spell(r)
			}
		}
		return nil
	})
	return replies, err
}

// asIs returns the error of a pageserver as its client classified it.
func asIs(r fanout.Reply) error { return r.Err }

// Archive archives or unarchives a timeline on all shards.
func (t *Timelines) Archive(
	ctx context.Context, id neon.TenantID, timeline neon.TimelineID, req neon.ArchivalRequest,
) error {
	spell := func(r fanout.Reply) error {
		if fanout.StatusOf(r.Err) == http.StatusPreconditionFailed {
			return &neon.Error{
				Code: neon.PreconditionFailed, Msg: fanout.MessageOf(r.Err), Err: r.Err,
			}
		}
		return r.Err
	}
	return decide.Once(ctx, t.Log, func() error {
		_, err := t.askAll(ctx, id, neon.ArchivalConfig(timeline, req), spell)
		return err
	})
}

// DetachAncestor makes a timeline independent of its ancestor on all shards. They must
// have reparented the same timelines.
func (t *Timelines) DetachAncestor(
	ctx context.Context, id neon.TenantID, timeline neon.TimelineID, b neon.DetachBehavior,
) (done neon.AncestorDetached, err error) {
	replies, err := t.askAll(ctx, id, neon.DetachAncestor(timeline, b), detachError)
	if err != nil {
		return done, err
	}
	results := make([]neon.AncestorDetached, len(replies))
	for i, r := range replies {
		if err := json.Unmarshal(r.Body, &results[i]); err != nil {
			return done, neon.Errorf(neon.Internal, "%s: error decoding body: %w", r.Name(), err)
		}
		slices.SortFunc(results[i].Reparented,
			func(a, b neon.TimelineID) int { return slices.Compare(a[:], b[:]) })
	}
	done = results[len(results)-1]
	matching := 0
	for _, r := range results[:len(results)-1] {
		if slices.Equal(r.Reparented, done.Reparented) {
			matching++
		}
	}
	if matching < len(results)-1 {
		t.Logger.Error(fmt.Sprintf("/v1/tenant/%s/timeline/%s/detach_ancestor: shards returned different results matching=%d compared_against=%v",
			id, timeline, matching, done.Reparented))
		return done, neon.Errorf(neon.Internal,
			"pageservers returned mixed results for ancestor detach; manual intervention is required.")
	}
	return done, nil
}

func detachError(r fanout.Reply) error {
	msg := fanout.MessageOf(r.Err)
	switch fanout.StatusOf(r.Err) {
	case http.StatusConflict: // it has no ancestor
		return neon.Errorf(neon.Conflict, "%s: %s", r.Name(), strings.TrimPrefix(msg, "Conflict: "))
	case http.StatusBadRequest: // it has too many ancestors
		return neon.Errorf(neon.BadRequest, "%s: %s", r.Name(), msg)
	case http.StatusInternalServerError: // the client tries again
		return neon.Errorf(neon.Internal, "%s: %s", r.Name(), msg)
	}
	return r.Err
}

// ChangeGC blocks garbage collection of a timeline on all shards or allows it.
func (t *Timelines) ChangeGC(
	ctx context.Context, id neon.TenantID, timeline neon.TimelineID, verb neon.GCVerb,
) error {
	return decide.Once(ctx, t.Log, func() error {
		_, err := t.askAll(ctx, id, neon.ChangeGC(timeline, verb), asIs)
		return err
	})
}

// LeaseLSN keeps a position of a timeline readable on all shards.
func (t *Timelines) LeaseLSN(
	ctx context.Context, id neon.TenantID, timeline neon.TimelineID, req neon.LeaseRequest,
) error {
	_, err := t.askAll(ctx, id, neon.LeaseLSN(timeline, req), func(r fanout.Reply) error {
		if fanout.StatusOf(r.Err) == http.StatusNotFound &&
			strings.Contains(fanout.MessageOf(r.Err), "tenant "+id.String()) {
			return neon.Errorf(neon.Unavailable,
				"Timeline is not attached to the pageserver %d yet, please retry", r.Node.ID)
		}
		return r.Err
	})
	return err
}

// heatmapTime bounds how long a request waits for all shards to begin a download.
const heatmapTime = 5 * time.Second

// DownloadHeatmapLayers makes one shard, or all of a tenant, fetch the layers that their
// heatmaps list. Answers and errors of pageservers are ignored.
func (t *Timelines) DownloadHeatmapLayers(
	ctx context.Context, id neon.ShardID, timeline neon.TimelineID, d neon.HeatmapDownload,
) error {
	s, err := t.Log.ReadState(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, heatmapTime)
	defer cancel()
	fanout.Ask(ctx, t.Pageservers, locations(s, id, func(sh fsm.Shard) []neon.NodeID {
		return []neon.NodeID{sh.Attached}
	}), neon.DownloadHeatmapLayers(timeline, d))
	return nil
}

// locations finds the nodes that pick returns for one shard, or for all of a tenant.
func locations(
	s *fsm.State, id neon.ShardID, pick func(fsm.Shard) []neon.NodeID,
) (found []fanout.Owner) {
	for sh := range s.TenantShards(id.Tenant) {
		if !id.IsUnsharded() && sh.ID != id {
			continue
		}
		for _, n := range pick(sh) {
			if node, ok := s.Node(n); ok {
				found = append(found, fanout.Owner{Shard: sh.ID, Node: node})
			}
		}
	}
	return found
}

// Describe asks all shards about a timeline. Up to the lowest of their image-consistent
// LSNs everything can be read without the log. There is none when a shard does not know
// its own.
func (t *Timelines) Describe(
	ctx context.Context, id neon.TenantID, timeline neon.TimelineID,
) (d neon.TimelineDescription, err error) {
	replies, err := t.askAll(ctx, id, neon.DescribeTimeline(timeline), func(r fanout.Reply) error {
		return neon.Errorf(neon.Unavailable, "%w", r.Err)
	})
	if err != nil {
		return d, err
	}
	known := true
	for _, r := range replies {
		var info neon.TimelineInfo
		if err := json.Unmarshal(r.Body, &info); err != nil {
			return d, neon.Errorf(neon.Unavailable, "%s: error decoding body: %w", r.Name(), err)
		}
		d.Shards = append(d.Shards, info)
		at := info.ImageConsistentLsn
		known = known && at != nil
		if known && (d.ImageConsistentLsn == nil || *at < *d.ImageConsistentLsn) {
			d.ImageConsistentLsn = at
		}
	}
	if !known {
		d.ImageConsistentLsn = nil
	}
	return d, nil
}

// DownloadSecondaries warms the secondaries of all shards of a tenant, and adds up their
// progress. The status is 200 when all are warm, else 202. It is an error only when all
// of them fail: Conflict, or NotFound when there is no secondary.
func (t *Timelines) DownloadSecondaries(
	ctx context.Context, id neon.TenantID, wait *time.Duration,
) (status int, sum neon.SecondaryProgress, err error) {
	s, err := t.Log.ReadState(ctx)
	if err != nil {
		return 0, sum, err
	}
	targets := locations(s, neon.Unsharded(id),
		func(sh fsm.Shard) []neon.NodeID { return sh.Secondary })
	var failed error
	for _, r := range fanout.Ask(ctx, t.Pageservers, targets, neon.DownloadSecondary(wait)) {
		var p neon.SecondaryProgress
		if r.Err == nil {
			r.Err = json.Unmarshal(r.Body, &p)
		}
		if r.Err != nil {
			t.Logger.Info("Secondary download failed", "shard", r.Shard.String(),
				"node", r.Node.ID.String(), "err", r.Err)
			failed = r.Err
			continue
		}
		sum.LayersDownloaded += p.LayersDownloaded
		sum.LayersTotal += p.LayersTotal
		sum.BytesDownloaded += p.BytesDownloaded
		sum.BytesTotal += p.BytesTotal
		if p.HeatmapMtime != nil &&
			(sum.HeatmapMtime == nil || p.HeatmapMtime.After(sum.HeatmapMtime.Time)) {
			sum.HeatmapMtime = p.HeatmapMtime
		}
		if status == 0 || status == http.StatusOK {
			status = r.Status
		}
	}
	switch {
	case status != 0:
		return status, sum, nil
	case failed != nil:
		return 0, sum, neon.Errorf(neon.Conflict, "Error from pageserver: %w", failed)
	}
	return 0, sum, neon.Errorf(neon.NotFound, "Tenant %s not found", id)
}
