package api

import (
	"math"
	"time"

	"quorate/api/neon"
	"quorate/internal/controller"
	"quorate/internal/split"
)

// shardHandler answers requests about the shards of tenants and their locations.
type shardHandler struct {
	shards    *controller.Shards
	splits    *split.Splitter
	timelines *controller.Timelines
}

func (h shardHandler) migrate(c *call) (answer, error) {
	id, req, err := migration(c)
	if err != nil {
		return answer{}, err
	}
	return reply(nothing{}, h.shards.Migrate(c.ctx, id, req))
}

func (h shardHandler) migrateSecondary(c *call) (answer, error) {
	id, req, err := migration(c)
	if err != nil {
		return answer{}, err
	}
	return reply(nothing{}, h.shards.MigrateSecondary(c.ctx, id, req))
}

func (h shardHandler) cancelReconcile(c *call) (answer, error) {
	id, err := c.shard("tenant_id")
	if err != nil {
		return answer{}, err
	}
	return done(h.shards.Cancel(c.ctx, id))
}

func (h shardHandler) split(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	var req neon.ShardSplitRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	shards, err := h.splits.Split(c.ctx, id, req)
	return reply(neon.ShardSplitResponse{Shards: shards}, err)
}

func (h shardHandler) downloadSecondaries(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	ms, ok, err := c.queryUint("wait_ms")
	if err != nil {
		return answer{}, err
	}
	var wait *time.Duration
	if ok {
		wait = new(time.Duration(min(ms, math.MaxInt32)) * time.Millisecond)
	}
	status, resp, err := h.timelines.DownloadSecondaries(c.ctx, id, wait)
	return replyWith(status, resp, err)
}

// migration reads which shard is to be moved and where to.
func migration(c *call) (id neon.ShardID, req neon.MigrateRequest, err error) {
	if id, err = c.shard("tenant_id"); err != nil {
		return id, req, err
	}
	return id, req, c.decode(&req)
}
