package pageserver

import (
	"context"
	"net/http"
	"slices"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

const (
	// splitTimeout bounds a split for which the caller sets no limit. It is longer than
	// any that has succeeded, and ends a call that would never return.
	splitTimeout = time.Hour

	topTenantsTimeout = 5 * time.Second
)

// ShardSplit splits an attached shard and returns its children. After an error, the
// caller must find out what was done before it tries again. A timeout of 0 means
// splitTimeout.
func (c *Client) ShardSplit(
	ctx context.Context, node *fsm.Node, shard neon.ShardID, req neon.ShardSplitRequest,
	timeout time.Duration,
) ([]neon.ShardID, error) {
	if timeout <= 0 {
		timeout = splitTimeout
	}
	a, err := c.do(ctx, node, request{
		label: "tenant_shard_split", method: http.MethodPut,
		path: tenantPath(shard) + "/shard_split", body: req, timeout: timeout,
	})
	var resp neon.ShardSplitResponse
	if err == nil {
		err = a.into(node, &resp)
	}
	return resp.Shards, err
}

// TopTenants lists the largest attached shards.
func (c *Client) TopTenants(
	ctx context.Context, node *fsm.Node, req neon.TopTenantsRequest,
) ([]neon.TopTenant, error) {
	a, err := c.do(ctx, node, request{
		label: "top_tenants", method: http.MethodPost, path: "/v1/top_tenants", body: req,
		timeout: topTenantsTimeout, limit: listBody,
	})
	var resp neon.TopTenantsResponse
	if err == nil {
		err = a.into(node, &resp)
	}
	return resp.Shards, err
}

// TimelineIDs lists all timelines of an attached location, offloaded ones included.
func (c *Client) TimelineIDs(
	ctx context.Context, node *fsm.Node, shard neon.ShardID,
) ([]neon.TimelineID, error) {
	all, err := c.timelines(ctx, node, shard)
	var ids []neon.TimelineID
	for _, t := range all {
		ids = append(ids, t.ID)
	}
	return ids, err
}

// HasBranches reports whether a timeline of an attached location has branches, offloaded
// ones included.
func (c *Client) HasBranches(
	ctx context.Context, node *fsm.Node, shard neon.ShardID, timeline neon.TimelineID,
) (bool, error) {
	all, err := c.timelines(ctx, node, shard)
	return slices.ContainsFunc(all, func(t neon.NamedTimeline) bool {
		return t.Ancestor != nil && *t.Ancestor == timeline
	}), err
}

func (c *Client) timelines(
	ctx context.Context, node *fsm.Node, shard neon.ShardID,
) ([]neon.NamedTimeline, error) {
	a, err := c.do(ctx, node, request{
		label: "timelines_and_offloaded", method: http.MethodGet,
		path: tenantPath(shard) + "/timeline_and_offloaded", timeout: timelineTimeout,
		limit: listBody,
	})
	var resp neon.TimelinesAndOffloaded
	if err == nil {
		err = a.into(node, &resp)
	}
	return slices.Concat(resp.Timelines, resp.Offloaded), err
}
