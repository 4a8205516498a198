package scheduler

import (
	"testing"

	"pgregory.net/rapid"

	"quorate/api/neon"
	"quorate/fsm"
)

// departures are the nodes that shards have left for better places.
type departures map[neon.ShardID]map[neon.NodeID]bool

// watch demands that what has moved between two states has not come back.
func (d departures) watch(w *world, was *fsm.State) {
	w.t.Helper()
	for sh := range w.state.ShardsFrom(neon.ShardID{}) {
		old, _ := was.Shard(sh.ID)
		if old.Attached == sh.Attached || old.Attached == 0 {
			continue
		}
		if d[sh.ID][sh.Attached] {
			w.t.Fatalf("%s comes back to node %s from node %s", sh.ID, sh.Attached, old.Attached)
		}
		if d[sh.ID] == nil {
			d[sh.ID] = make(map[neon.NodeID]bool)
		}
		d[sh.ID][old.Attached] = true
	}
}

// Whatever the shards' places were, optimising takes no shard back to where it was: each
// move is one of compute, too. What has to leave a node is a secondary, if one can.
func TestOptimisingBringsNoShardBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, _ := disordered(t, 4)
		w.left = make(departures)
		w.optimise(10 * w.locations())
	})
}
