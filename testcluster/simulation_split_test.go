package testcluster_test

import (
	"context"
	"time"

	"quorate/api/neon"
	"quorate/testcluster"
)

const (
	mostShards = 8
	shardBytes = 1 << 20 // above which a tenant is split by itself

	// hungSplit ends the split of a pageserver that never answers. Without a limit that
	// would take an hour.
	hungSplit = 5 * time.Minute
)

// simSplits are the settings of automatic splits in an episode.
func simSplits() testcluster.Splits {
	return testcluster.Splits{
		Threshold: shardBytes, MaxShards: mostShards, Interval: 5 * time.Second,
		RequestTimeout: hungSplit,
	}
}

// shardsOf are the shards of a tenant of whichever worker.
func (e *episode) shardsOf(t *simTenant) []neon.ShardID {
	e.mu.Lock()
	defer e.mu.Unlock()
	return t.shards
}

// split cuts one of the worker's tenants into more shards, by request or by making
// it larger than its shards may be. A split that failed is tried again at the next
// opportunity, until the tenant has as many shards as it was to have.
func (w *worker) split(ctx context.Context, c *testcluster.Client, t *simTenant) {
	have := len(w.shardsOf(t))
	if t.want == 0 {
		want := have << (1 + w.rng.IntN(2))
		if want > mostShards {
			return
		}
		t.want = want
		if t.large = w.rng.IntN(2) == 0; t.large {
			w.Ledger().MaySplit(t.id, want)
			w.Fleet().Store().SetLogicalSize(t.id, uint64(want)*shardBytes)
		}
	}
	if !t.large {
		_, err := c.Tenants().Split(ctx, t.id, neon.ShardSplitRequest{Count: uint8(t.want)})
		w.count(err)
	}
	w.splitDone(ctx, c, t)
}

// splitDone takes note of the end of a split.
func (w *worker) splitDone(ctx context.Context, c *testcluster.Client, t *simTenant) {
	d, err := c.Tenants().Describe(ctx, t.id)
	if err != nil || len(d.Shards) != t.want {
		return
	}
	t.want, t.large = 0, false
	w.Fleet().Store().SetLogicalSize(t.id, 0)
	w.mu.Lock()
	defer w.mu.Unlock()
	t.shards = neon.ShardIDs(t.id, neon.ShardCount(len(d.Shards)))
}
