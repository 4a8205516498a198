package pageserver

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

// Time limits of the calls, unless the caller's context sets a shorter one. They are
// those of the existing controller. Only the listing has more than its 5 s, which are
// not always enough for a pageserver with 100,000 locations.
const (
	putTimeout       = 25 * time.Second
	lookTimeout      = 5 * time.Second
	listingTimeout   = 15 * time.Second
	heartbeatTimeout = time.Second
	deleteTimeout    = 30 * time.Second
	heatmapTimeout   = 10 * time.Second // one small object
)

// PutLocation sets the configuration of a location. It returns when the pageserver has
// installed and persisted it, which is before the shard serves reads.
func (c *Client) PutLocation(
	ctx context.Context, node *fsm.Node, shard neon.ShardID, conf *neon.LocationConfig,
	opts neon.LocationOptions,
) error {
	query := url.Values{}
	if opts.Lazy {
		query.Set("lazy", "true")
	}
	if ms := opts.Flush.Milliseconds(); ms > 0 {
		query.Set("flush_ms", strconv.FormatInt(ms, 10))
	}
	path := tenantPath(shard) + "/location_config"
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	_, err := c.do(ctx, node, request{
		label: "location_config", method: http.MethodPut, path: path, body: conf,
		timeout: putTimeout,
	})
	return err
}

// Location returns the configuration of one location. found is false when the pageserver
// does not have it. conf is nil, with found, while the pageserver is changing it.
func (c *Client) Location(
	ctx context.Context, node *fsm.Node, shard neon.ShardID,
) (conf *neon.LocationConfig, found bool, err error) {
	a, err := c.do(ctx, node, request{
		label: "location_config", method: http.MethodGet,
		path: "/v1/location_config/" + shard.String(), timeout: lookTimeout,
	})
	var s *StatusError
	if errors.As(err, &s) && s.Status == http.StatusNotFound && !s.NoMsg {
		return nil, false, nil
	}
	if err == nil {
		err = a.into(node, &conf)
	}
	return conf, err == nil, err
}

// Locations lists all locations of the pageserver. The Config of one that is being
// changed is nil.
func (c *Client) Locations(ctx context.Context, node *fsm.Node) ([]neon.ListedLocation, error) {
	a, err := c.do(ctx, node, request{
		label: "location_configs", method: http.MethodGet, path: "/v1/location_config",
		timeout: listingTimeout, limit: listingBody,
	})
	if err != nil {
		return nil, err
	}
	l, err := neon.ParseLocationListing(a.body)
	if err != nil {
		return nil, &DecodeError{Node: name(node), Err: err}
	}
	return l, nil
}

// Utilization returns the load, and is the heartbeat. It uses a new connection, so that
// the answer proves that the process serves now.
func (c *Client) Utilization(ctx context.Context, node *fsm.Node) (*neon.Utilization, error) {
	a, err := c.do(ctx, node, request{
		label: "utilization", method: http.MethodGet, path: "/v1/utilization",
		timeout: heartbeatTimeout, fresh: true,
	})
	if err != nil {
		return nil, err
	}
	u := new(neon.Utilization)
	if err := a.into(node, u); err != nil {
		return nil, err
	}
	return u, nil
}

// TenantDelete deletes the data of all shards of a tenant from remote storage. It
// succeeds on a pageserver that does not know the tenant.
func (c *Client) TenantDelete(ctx context.Context, node *fsm.Node, tenant neon.TenantID) error {
	_, err := c.do(ctx, node, request{
		label: "tenant", method: http.MethodDelete, path: tenantPath(neon.Unsharded(tenant)),
		timeout: deleteTimeout,
	})
	var s *StatusError
	if errors.As(err, &s) && s.Status == http.StatusNotFound && !s.NoMsg {
		return nil
	}
	return err
}

// SecondaryDownload makes a secondary location download what its heatmap names, or joins
// a download under way. It waits for that for at most wait. done reports whether
// everything is there; progress is how much is.
func (c *Client) SecondaryDownload(
	ctx context.Context, node *fsm.Node, shard neon.ShardID, wait time.Duration,
) (done bool, progress neon.SecondaryProgress, err error) {
	path := tenantPath(shard) + "/secondary/download?wait_ms=" +
		strconv.FormatInt(wait.Milliseconds(), 10)
	a, err := c.do(ctx, node, request{
		label: "tenant_secondary_download", method: http.MethodPost, path: path,
		timeout: max(2*wait, lookTimeout),
	})
	if err == nil {
		err = a.into(node, &progress)
	}
	return err == nil && a.status == http.StatusOK, progress, err
}

// SecondaryStatus returns how warm a secondary location is.
func (c *Client) SecondaryStatus(
	ctx context.Context, node *fsm.Node, shard neon.ShardID,
) (progress neon.SecondaryProgress, err error) {
	a, err := c.do(ctx, node, request{
		label: "tenant_secondary_status", method: http.MethodGet,
		path: tenantPath(shard) + "/secondary/status", timeout: lookTimeout,
	})
	if err == nil {
		err = a.into(node, &progress)
	}
	return progress, err
}

// HeatmapUpload makes an attached location upload its heatmap now.
func (c *Client) HeatmapUpload(ctx context.Context, node *fsm.Node, shard neon.ShardID) error {
	_, err := c.do(ctx, node, request{
		label: "tenant_heatmap_upload", method: http.MethodPost,
		path: tenantPath(shard) + "/heatmap_upload", timeout: heatmapTimeout,
	})
	return err
}

func tenantPath(shard neon.ShardID) string { return "/v1/tenant/" + shard.String() }
