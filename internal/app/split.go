package app

import (
	"context"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/pageserver"
)

// splitCalls are the calls of splits to pageservers.
type splitCalls struct{ pageservers }

func (p splitCalls) ShardSplit(
	ctx context.Context, node *fsm.Node, shard neon.ShardID, req neon.ShardSplitRequest,
	timeout time.Duration,
) ([]neon.ShardID, error) {
	return p.client.ShardSplit(ctx, addressOf(node), shard, req, timeout)
}

func (p splitCalls) SeeLocation(
	ctx context.Context, node *fsm.Node, shard neon.ShardID,
) (*neon.LocationConfig, bool, error) {
	return p.client.Location(ctx, addressOf(node), shard)
}

func (p splitCalls) Detach(ctx context.Context, node *fsm.Node, shard neon.ShardID) error {
	return p.client.PutLocation(ctx, addressOf(node), shard,
		neon.LocationConfig{Mode: neon.Detached}, pageserver.PutOptions{})
}

func (p splitCalls) HeatmapUpload(ctx context.Context, node *fsm.Node, shard neon.ShardID) error {
	return p.client.HeatmapUpload(ctx, addressOf(node), shard)
}

func (p splitCalls) DownloadSecondary(
	ctx context.Context, node *fsm.Node, shard neon.ShardID,
) error {
	_, _, err := p.client.SecondaryDownload(ctx, addressOf(node), shard, 0)
	return err
}

func (p splitCalls) TopTenants(
	ctx context.Context, node *fsm.Node, req neon.TopTenantsRequest,
) ([]neon.TopTenant, error) {
	return p.client.TopTenants(ctx, addressOf(node), req)
}

func (p splitCalls) TimelineIDs(
	ctx context.Context, node *fsm.Node, shard neon.ShardID,
) ([]neon.TimelineID, error) {
	return p.client.TimelineIDs(ctx, addressOf(node), shard)
}
