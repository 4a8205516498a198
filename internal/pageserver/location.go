package pageserver

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"quorate/api/neon"
)

// Time limits of the calls, where the caller's context sets no shorter one. They
// are the existing controller's, but for the listing, whose 5 s a pageserver with
// 100,000 locations cannot always keep.
const (
	putTimeout       = 25 * time.Second
	lookTimeout      = 5 * time.Second
	listingTimeout   = 15 * time.Second
	heartbeatTimeout = time.Second
	deleteTimeout    = 30 * time.Second
	heatmapTimeout   = 10 * time.Second // one small object
)

// PutOptions are the query of a location change.
type PutOptions struct {
	// FlushMS asks a location that becomes AttachedStale in its generation to
	// upload what it has, for at most so many milliseconds; 0 does not ask.
	FlushMS int

	// Lazy lets the pageserver put the activation off until it is not busy or
	// somebody accesses the shard.
	Lazy bool
}

// PutLocation asks for a location. It returns when the pageserver has installed
// and persisted it, which is before the shard serves reads.
func (c *Client) PutLocation(
	ctx context.Context, to Addr, shard neon.ShardID, conf neon.LocationConfig, opts PutOptions,
) error {
	query := url.Values{}
	if opts.Lazy {
		query.Set("lazy", "true")
	}
	if opts.FlushMS > 0 {
		query.Set("flush_ms", strconv.Itoa(opts.FlushMS))
	}
	path := tenantPath(shard) + "/location_config"
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	_, err := c.do(ctx, to, request{
		label: "location_config", method: http.MethodPut, path: path, body: conf,
		timeout: putTimeout,
	})
	return err
}

// Location asks for one location. found is false when the pageserver has none,
// and conf is nil with found while it is changing the location.
func (c *Client) Location(
	ctx context.Context, to Addr, shard neon.ShardID,
) (conf *neon.LocationConfig, found bool, err error) {
	a, err := c.do(ctx, to, request{
		label: "location_config", method: http.MethodGet,
		path: "/v1/location_config/" + shard.String(), timeout: lookTimeout,
	})
	var s *StatusError
	if errors.As(err, &s) && s.Status == http.StatusNotFound && !s.NoMsg {
		return nil, false, nil
	}
	if err == nil {
		err = a.into(to, &conf)
	}
	return conf, err == nil, err
}

// Locations lists all locations of the pageserver; a nil Config is one that is
// being changed.
func (c *Client) Locations(ctx context.Context, to Addr) ([]neon.ListedLocation, error) {
	a, err := c.do(ctx, to, request{
		label: "location_configs", method: http.MethodGet, path: "/v1/location_config",
		timeout: listingTimeout, limit: listingBody,
	})
	if err != nil {
		return nil, err
	}
	l, err := neon.ParseLocationListing(a.body)
	if err != nil {
		return nil, &DecodeError{Node: to.String(), Err: err}
	}
	return l, nil
}

// Utilization asks for the load, as a heartbeat: on a new connection, so that the
// answer proves that the process serves now.
func (c *Client) Utilization(ctx context.Context, to Addr) (neon.Utilization, error) {
	a, err := c.do(ctx, to, request{
		label: "utilization", method: http.MethodGet, path: "/v1/utilization",
		timeout: heartbeatTimeout, fresh: true,
	})
	var u neon.Utilization
	if err == nil {
		err = a.into(to, &u)
	}
	return u, err
}

// TenantDelete deletes the data of a tenant from remote storage, all its shards
// included. A pageserver that does not know the tenant counts as success.
func (c *Client) TenantDelete(ctx context.Context, to Addr, tenant neon.TenantID) error {
	_, err := c.do(ctx, to, request{
		label: "tenant", method: http.MethodDelete, path: tenantPath(neon.Unsharded(tenant)),
		timeout: deleteTimeout,
	})
	var s *StatusError
	if errors.As(err, &s) && s.Status == http.StatusNotFound && !s.NoMsg {
		return nil
	}
	return err
}

// SecondaryDownload makes a secondary location download what its heatmap names,
// or joins a download that is under way, and waits for it for at most wait. done
// tells whether everything is there.
func (c *Client) SecondaryDownload(
	ctx context.Context, to Addr, shard neon.ShardID, wait time.Duration,
) (progress neon.SecondaryProgress, done bool, err error) {
	path := tenantPath(shard) + "/secondary/download?wait_ms=" +
		strconv.FormatInt(wait.Milliseconds(), 10)
	a, err := c.do(ctx, to, request{
		label: "tenant_secondary_download", method: http.MethodPost, path: path,
		timeout: max(2*wait, lookTimeout),
	})
	if err == nil {
		err = a.into(to, &progress)
	}
	return progress, err == nil && a.status == http.StatusOK, err
}

// SecondaryStatus tells how warm a secondary location is.
func (c *Client) SecondaryStatus(
	ctx context.Context, to Addr, shard neon.ShardID,
) (progress neon.SecondaryProgress, err error) {
	a, err := c.do(ctx, to, request{
		label: "tenant_secondary_status", method: http.MethodGet,
		path: tenantPath(shard) + "/secondary/status", timeout: lookTimeout,
	})
	if err == nil {
		err = a.into(to, &progress)
	}
	return progress, err
}

// HeatmapUpload makes an attached location upload its heatmap now.
func (c *Client) HeatmapUpload(ctx context.Context, to Addr, shard neon.ShardID) error {
	_, err := c.do(ctx, to, request{
		label: "tenant_heatmap_upload", method: http.MethodPost,
		path: tenantPath(shard) + "/heatmap_upload", timeout: heatmapTimeout,
	})
	return err
}

func tenantPath(shard neon.ShardID) string { return "/v1/tenant/" + shard.String() }
