package pageserver

import (
	"context"
	"errors"
	"net/http"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/jsonhttp"
)

// Time limits of timeline calls. Pageservers set none themselves, and one that hangs must
// not hold a request for ever. A creation may run initdb, and waits for an upload.
const (
	timelineTimeout     = 30 * time.Second
	timelineMakeTimeout = 2 * time.Minute
	waitGrace           = 10 * time.Second // beyond what the pageserver was told to wait
)

// Timelines returns the last record of each timeline of an attached location.
func (c *Client) Timelines(
	ctx context.Context, node *fsm.Node, shard neon.ShardID,
) (map[neon.TimelineID]neon.Lsn, error) {
	a, err := c.do(ctx, node, request{
		label: "timelines", method: http.MethodGet, path: tenantPath(shard) + "/timeline",
		timeout: timelineTimeout, limit: listBody,
	})
	var list []neon.TimelineInfo
	if err == nil {
		err = a.into(node, &list)
	}
	if err != nil {
		return nil, err
	}
	last := make(map[neon.TimelineID]neon.Lsn, len(list))
	for _, t := range list {
		last[t.Timeline] = t.LastRecordLsn
	}
	return last, nil
}

// TimelineCreate creates a timeline on one shard. The same request again succeeds.
func (c *Client) TimelineCreate(
	ctx context.Context, node *fsm.Node, shard neon.ShardID, body neon.TimelineCreateRequest,
) (neon.TimelineInfo, error) {
	a, err := c.do(ctx, node, request{
		label: "timeline", method: http.MethodPost, path: tenantPath(shard) + "/timeline",
		body: body, timeout: timelineMakeTimeout,
	})
	var info neon.TimelineInfo
	if err == nil {
		err = a.into(node, &info)
	}
	return info, err
}

// TimelineDelete starts the deletion of a timeline on one shard, or asks how far it is.
// The status is 202 while it runs, and 404 when nothing is left. Everything else is an
// error.
func (c *Client) TimelineDelete(
	ctx context.Context, node *fsm.Node, shard neon.ShardID, timeline neon.TimelineID,
) (status int, err error) {
	a, err := c.do(ctx, node, request{
		label: "timeline", method: http.MethodDelete,
		path: tenantPath(shard) + "/timeline/" + timeline.String(), timeout: timelineTimeout,
	})
	var s *StatusError
	if errors.As(err, &s) && s.Status == http.StatusNotFound && !s.NoMsg {
		return s.Status, nil
	}
	return a.status, err
}

// WaitLSN waits, for at most timeout, until the shard has ingested the log of every
// timeline up to the wanted position. reached reports whether it has. A StatusError of
// 404 means that the shard has none of the timelines.
func (c *Client) WaitLSN(
	ctx context.Context, node *fsm.Node, shard neon.ShardID, want map[neon.TimelineID]neon.Lsn,
	timeout time.Duration,
) (reached bool, err error) {
	a, err := c.do(ctx, node, request{
		label: "wait_lsn", method: http.MethodPost, path: tenantPath(shard) + "/wait_lsn",
		body: neon.WaitLSNRequest{Timelines: want, Timeout: timeout}, timeout: timeout + waitGrace,
	})
	return err == nil && a.status == http.StatusOK, err
}

// Passthrough passes on the request of a client, without its body and its headers. It
// returns the pageserver's answer, whatever its status. The caller closes the body. Only
// ctx limits the time.
func (c *Client) Passthrough(
	ctx context.Context, node *fsm.Node, method, pathAndQuery string,
) (*http.Response, error) {
	begin := time.Now()
	call := Call{
		Node: node.ID, Path: passthroughLabel(pathAndQuery), Method: "get", Passthrough: true,
	}
	u, err := c.url(node, pathAndQuery)
	if err != nil {
		return nil, err
	}
	resp, err := jsonhttp.Open(ctx, c.pooled,
		jsonhttp.Request{Method: method, URL: u, Token: c.opts.Token()})
	if err == nil {
		call.Status = resp.StatusCode
	} else {
		err = exchangeError(node, err)
	}
	call.Duration = time.Since(begin)
	c.opts.Observe(call)
	return resp, err
}

// Call makes a call about one shard. It returns the status and the body of a 2xx answer.
func (c *Client) Call(
	ctx context.Context, node *fsm.Node, shard neon.ShardID, call neon.ShardCall,
) (status int, body []byte, err error) {
	a, err := c.do(ctx, node, request{
		label: call.Label, method: call.Method, path: tenantPath(shard) + "/" + call.Path,
		body:    call.Body,
		timeout: call.Timeout, limit: listBody,
	})
	return a.status, a.body, err
}
