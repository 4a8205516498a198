package pageserver

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"quorate/api/neon"
)

// heatmapTimeout bounds a heatmap upload: one small object.
const heatmapTimeout = 10 * time.Second

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
