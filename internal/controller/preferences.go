package controller

import (
	"context"
	"maps"
	"slices"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
)

// One entry of the log names at most so many shards. An entry is at most 1 MiB, also when
// every zone has a name of longestAZ bytes.
const (
	zonesPerEntry  = 3_000
	healthPerEntry = 10_000
)

// longestAZ is the number of bytes that the name of a zone may have.
const longestAZ = 255

// SetPreferredAZs changes the zones that shards should be served from. It returns
// the shards that exist, by id; they are moved when there is nothing else to do.
func (t *Tenants) SetPreferredAZs(
	ctx context.Context, req neon.PreferredAZsRequest,
) (resp neon.PreferredAZsResponse, err error) {
	items := make([]fsm.PreferredAZ, 0, len(req))
	for _, id := range slices.SortedFunc(maps.Keys(req), neon.ShardID.Compare) {
		it := fsm.PreferredAZ{Shard: id}
		if az := req[id]; az != nil {
			it.AZ = *az
		}
		if len(it.AZ.String()) > longestAZ {
			return resp, neon.Errorf(neon.BadRequest, "the zone of %s has more than %d bytes", id,
				longestAZ)
		}
		items = append(items, it)
	}
	for batch := range slices.Chunk(items, zonesPerEntry) {
		r, err := decide.Propose(ctx, t.Log, fsm.SetPreferredAZs{Items: batch})
		if err != nil {
			return resp, err
		}
		s := t.Log.State()
		for _, it := range batch {
			_, unknown := slices.BinarySearchFunc(r.Refused, it.Shard, neon.ShardID.Compare)
			if r.Duplicate {
				_, known := s.Shard(it.Shard)
				unknown = !known
			}
			if !unknown {
				resp.Updated = append(resp.Updated, it.Shard)
			}
		}
	}
	return resp, nil
}

// SetHealth records which shards were just found healthy and unhealthy in remote
// storage. Unknown shards are ignored.
func (t *Tenants) SetHealth(ctx context.Context, req neon.MetadataHealthUpdate) error {
	at := time.Now().UnixMilli()
	for batch := range slices.Chunk(req.Healthy, healthPerEntry) {
		if _, err := decide.Propose(ctx, t.Log,
			fsm.SetMetadataHealth{Healthy: batch, At: at}); err != nil {
			return err
		}
	}
	for batch := range slices.Chunk(req.Unhealthy, healthPerEntry) {
		if _, err := decide.Propose(ctx, t.Log,
			fsm.SetMetadataHealth{Unhealthy: batch, At: at}); err != nil {
			return err
		}
	}
	return nil
}

// Unhealthy lists the shards last found unhealthy, from a linearizable read.
func (t *Tenants) Unhealthy(ctx context.Context) (resp neon.UnhealthyShards, err error) {
	s, err := t.Log.ReadState(ctx)
	if err != nil {
		return resp, err
	}
	for sh := range s.ShardsFrom(neon.ShardID{}) {
		if sh.Unhealthy {
			resp.Unhealthy = append(resp.Unhealthy, sh.ID)
		}
	}
	return resp, nil
}

// Outdated lists the shards that were last scrubbed longer ago than the request says, from
// a linearizable read. A shard that never was counts from its creation.
func (t *Tenants) Outdated(
	ctx context.Context, req neon.OutdatedRequest,
) (resp neon.OutdatedResponse, err error) {
	s, err := t.Log.ReadState(ctx)
	if err != nil {
		return resp, err
	}
	before := time.Now().Add(-time.Duration(req.NotScrubbedFor)).UnixMilli()
	for sh := range s.ShardsFrom(neon.ShardID{}) {
		if sh.ScrubbedAt < before {
			resp.Records = append(resp.Records, neon.HealthRecord{
				Shard: sh.ID, Healthy: !sh.Unhealthy,
				LastScrubbed: time.UnixMilli(sh.ScrubbedAt).UTC(),
			})
		}
	}
	return resp, nil
}
