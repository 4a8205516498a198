package simpageserver

import (
	"testing"

	"quorate/api/neon"
)

// What a superseded owner uploads of a deleted timeline while it cannot be reached,
// no controller can prevent.
func TestI17ExcusesWhatNobodyCanReach(t *testing.T) {
	w := newWorld(t, Options{Store: NewStore(StoreOptions{WALRate: 1 << 20})})
	a, b := w.node(1), w.node(2)
	shard := shardOf(0)
	w.attach(a, shard)
	w.timeline(a, shard, 1)
	w.attach(b, shard)
	w.fleet.Oracle().Unreachable(1)
	w.want(202, b, "DELETE", timelinePath(shard)+"/"+timelineOf(1).String(), nil)
	w.want(404, b, "GET", timelinePath(shard)+"/"+timelineOf(1).String(), nil)
	w.fleet.Removed(timelineOf(1), shard.Tenant)
	w.growLayers(a, shard, 1)
	w.fleet.Oracle().Reachable(1)
	w.put(a, shard, neon.Detached, 0)
	w.attach(b, shard)
	w.silent()
	if err := w.fleet.CheckQuiescent(); err != nil {
		t.Error(err)
	}
}
