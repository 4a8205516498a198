package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"quorate/api/neon"
)

// Timelines are the calls about the timelines of tenants.
type Timelines struct{ c caller }

func timelinePath(t neon.TenantID, tl neon.TimelineID) string {
	return "/v1/tenant/" + t.String() + "/timeline/" + tl.String()
}

// Create creates a timeline on all shards of a tenant. The same request again
// succeeds.
func (t Timelines) Create(
	ctx context.Context, tenant neon.TenantID, req neon.TimelineCreateRequest,
) (resp neon.TimelineCreateResponse, err error) {
	path := "/v1/tenant/" + tenant.String() + "/timeline"
	return resp, t.c.Call(ctx, http.MethodPost, path, req, &resp)
}

// List describes the timelines of a tenant that are not offloaded.
func (t Timelines) List(
	ctx context.Context, tenant neon.TenantID,
) (list []neon.TimelineInfo, err error) {
	path := "/v1/tenant/" + tenant.String() + "/timeline"
	return list, t.c.Call(ctx, http.MethodGet, path, nil, &list)
}

// IDs lists the timelines of a tenant, and then the offloaded ones.
func (t Timelines) IDs(
	ctx context.Context, tenant neon.TenantID,
) (ids []neon.TimelineID, err error) {
	var all neon.TimelinesAndOffloaded
	path := "/v1/tenant/" + tenant.String() + "/timeline_and_offloaded"
	err = t.c.Call(ctx, http.MethodGet, path, nil, &all)
	for _, list := range [][]neon.NamedTimeline{all.Timelines, all.Offloaded} {
		for _, one := range list {
			ids = append(ids, one.ID)
		}
	}
	return ids, err
}

// Get describes one timeline.
func (t Timelines) Get(
	ctx context.Context, tenant neon.TenantID, tl neon.TimelineID,
) (info neon.TimelineInfo, err error) {
	return info, t.c.Call(ctx, http.MethodGet, timelinePath(tenant, tl), nil, &info)
}

// Delete deletes a timeline with its data, on all shards.
func (t Timelines) Delete(
	ctx context.Context, tenant neon.TenantID, tl neon.TimelineID,
) error {
	return t.c.Call(ctx, http.MethodDelete, timelinePath(tenant, tl), nil, nil)
}

// SetArchival archives a timeline or brings it back.
func (t Timelines) SetArchival(
	ctx context.Context, tenant neon.TenantID, tl neon.TimelineID, to neon.ArchivalState,
) error {
	return t.c.Call(ctx, http.MethodPut, timelinePath(tenant, tl)+"/archival_config",
		neon.ArchivalRequest{State: to}, nil)
}

// DownloadHeatmapLayers starts fetching the layers of a timeline that the heatmap
// names, at most so many at a time; 0 leaves that to the pageserver. A shard without
// a count stands for all shards of its tenant.
func (t Timelines) DownloadHeatmapLayers(
	ctx context.Context, shard neon.ShardID, tl neon.TimelineID, concurrency uint,
) error {
	q := url.Values{}
	if concurrency > 0 {
		q.Set("concurrency", strconv.FormatUint(uint64(concurrency), 10))
	}
	path := "/v1/tenant/" + shard.String() + "/timeline/" + tl.String() + "/download_heatmap_layers"
	return t.c.Call(ctx, http.MethodPost, withQuery(path, q), nil, nil)
}

// Locate returns the safekeepers that a timeline is on.
func (t Timelines) Locate(
	ctx context.Context, tenant neon.TenantID, tl neon.TimelineID,
) (at neon.TimelineLocate, err error) {
	path := "/debug" + timelinePath(tenant, tl) + "/locate"
	return at, t.c.Call(ctx, http.MethodGet, path, nil, &at)
}

// MigrateSafekeepers moves a timeline to another set of safekeepers.
func (t Timelines) MigrateSafekeepers(
	ctx context.Context, tenant neon.TenantID, tl neon.TimelineID, set []neon.NodeID,
) error {
	return t.c.Call(ctx, http.MethodPost, timelinePath(tenant, tl)+"/safekeeper_migrate",
		neon.SafekeeperMigrateRequest{NewSet: set}, nil)
}

// AbortSafekeepers takes back a move between safekeepers that has not come to its
// end.
func (t Timelines) AbortSafekeepers(
	ctx context.Context, tenant neon.TenantID, tl neon.TimelineID,
) error {
	path := timelinePath(tenant, tl) + "/safekeeper_migrate_abort"
	return t.c.Call(ctx, http.MethodPost, path, nil, nil)
}
