package app

import (
	"context"
	"net/http"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/computehook"
	"quorate/internal/metrics"
	"quorate/internal/pageserver"
	"quorate/reconciler"
	"quorate/reconciler/outbox"
)

// pageservers gives the client's calls the shape the reconciler asks for.
type pageservers struct{ client *pageserver.Client }

func addressOf(n *fsm.Node) pageserver.Addr {
	return pageserver.Addr{
		ID: n.ID, HTTPHost: n.Addr.HTTPHost, HTTPPort: int(n.Addr.HTTPPort),
		HTTPSPort: int(n.Addr.HTTPSPort),
	}
}

func (p pageservers) PutLocation(
	ctx context.Context, node *fsm.Node, shard neon.ShardID, conf *neon.LocationConfig,
	opts reconciler.PutOptions,
) error {
	return p.client.PutLocation(ctx, addressOf(node), shard, *conf, pageserver.PutOptions{
		FlushMS: int(opts.Flush.Milliseconds()), Lazy: opts.Lazy,
	})
}

func (p pageservers) Location(
	ctx context.Context, node *fsm.Node, shard neon.ShardID,
) (*neon.LocationConfig, error) {
	conf, found, err := p.client.Location(ctx, addressOf(node), shard)
	if err == nil && !found {
		err = reconciler.ErrAbsent
	}
	return conf, err
}

func (p pageservers) Locations(ctx context.Context, node *fsm.Node) ([]neon.ListedLocation, error) {
	return p.client.Locations(ctx, addressOf(node))
}

func (p pageservers) Utilization(ctx context.Context, node *fsm.Node) (*neon.Utilization, error) {
	u, err := p.client.Utilization(ctx, addressOf(node))
	if err != nil {
		return nil, err
	}
	return &u, nil
}

func (p pageservers) SecondaryDownload(
	ctx context.Context, node *fsm.Node, shard neon.ShardID, wait time.Duration,
) (bool, error) {
	_, done, err := p.client.SecondaryDownload(ctx, addressOf(node), shard, wait)
	return done, err
}

func (p pageservers) SecondaryStatus(
	ctx context.Context, node *fsm.Node, shard neon.ShardID,
) (neon.SecondaryProgress, error) {
	return p.client.SecondaryStatus(ctx, addressOf(node), shard)
}

func (p pageservers) HeatmapUpload(ctx context.Context, node *fsm.Node, shard neon.ShardID) error {
	return p.client.HeatmapUpload(ctx, addressOf(node), shard)
}

func (p pageservers) Timelines(
	ctx context.Context, node *fsm.Node, shard neon.ShardID,
) (map[neon.TimelineID]neon.Lsn, error) {
	list, err := p.client.TimelineList(ctx, addressOf(node), shard)
	if err != nil {
		return nil, err
	}
	last := make(map[neon.TimelineID]neon.Lsn, len(list))
	for _, t := range list {
		last[t.Timeline] = t.LastRecordLsn
	}
	return last, nil
}

func (p pageservers) WaitLSN(
	ctx context.Context, node *fsm.Node, shard neon.ShardID, want map[neon.TimelineID]neon.Lsn,
	timeout time.Duration,
) error {
	reached, err := p.client.WaitLSN(ctx, addressOf(node), shard, want, timeout)
	if err == nil && !reached {
		err = neon.Errorf(neon.Timeout, "shard %s on node %s did not catch up in %s", shard,
			node.ID, timeout)
	}
	return err
}

func (p pageservers) UpdateFeatureFlags(ctx context.Context, node *fsm.Node, spec string) error {
	return p.client.UpdateFeatureFlags(ctx, addressOf(node), spec)
}

// hook delivers a notification in one attempt.
type hook struct{ client *computehook.Client }

func (h hook) NotifyAttach(ctx context.Context, body *neon.NotifyAttach) error {
	o := h.client.NotifyAttach(ctx, *body)
	if o.Err != nil && o.Kind != computehook.Retryable {
		r := &outbox.Refusal{Err: o.Err, Never: o.Kind == computehook.Fatal}
		if o.Kind == computehook.SlowDown {
			r.Wait = computehook.SlowDownDelay
		}
		return r
	}
	return o.Err
}

// ImportComplete tells the control plane in one attempt.
func (h hook) ImportComplete(ctx context.Context, body neon.ImportComplete) error {
	return h.client.ImportComplete(ctx, body).Err
}

// observe counts the calls to pageservers.
func observe(m *metrics.Recorder) func(pageserver.Call) {
	return func(c pageserver.Call) {
		done := metrics.Call{
			Node: c.Node, Path: c.Path, Method: c.Method, OK: c.Status/100 == 2, Took: c.Duration,
		}
		if c.Passthrough {
			m.Passthrough(done)
		} else {
			m.Pageserver(done)
		}
	}
}

func (p pageservers) TenantDelete(ctx context.Context, node *fsm.Node, tenant neon.TenantID) error {
	return p.client.TenantDelete(ctx, addressOf(node), tenant)
}

func (p pageservers) TimelineCreate(
	ctx context.Context, node *fsm.Node, shard neon.ShardID, req neon.TimelineCreateRequest,
) (neon.TimelineInfo, error) {
	return p.client.TimelineCreate(ctx, addressOf(node), shard, req)
}

func (p pageservers) TimelineDelete(
	ctx context.Context, node *fsm.Node, shard neon.ShardID, timeline neon.TimelineID,
) (int, error) {
	return p.client.TimelineDelete(ctx, addressOf(node), shard, timeline)
}

func (p pageservers) Passthrough(
	ctx context.Context, node *fsm.Node, method, pathAndQuery string,
) (*http.Response, error) {
	return p.client.Passthrough(ctx, addressOf(node), method, pathAndQuery)
}

func (p pageservers) Call(
	ctx context.Context, node *fsm.Node, shard neon.ShardID, call neon.ShardCall,
) (int, []byte, error) {
	return p.client.Call(ctx, addressOf(node), shard, call)
}
