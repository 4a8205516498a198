package fsm

import (
	"fmt"
	"math"
	"slices"

	"quorate/api/neon"
)

// RecoveryGap is added to every generation when a cluster is started again from
// a snapshot: far more than could have been issued to any shard since it was
// taken (a shard re-attached once a second needs 18 hours for 2^16).
const RecoveryGap = 1 << 16

// maxEpoch is how often a cluster can be recovered: the numbers of new tenants begin
// above all gaps.
const maxEpoch = uint64(neon.MaxGeneration) / RecoveryGap

// Recover prepares a restored snapshot to be the beginning of a new cluster. The
// numbers issued after the snapshot was taken are not known, so all are jumped
// over: those of the shards, those remembered of deleted tenants, and those of
// tenants that were only created later (see generationFloor). A number that a client
// has chosen since, in a creation or an unmanaged attachment, may lie beyond that. The
// cluster gets another id, so that no member of the old cluster can join it.
//
// A shard for which the jump leaves no number is Exhausted from then on.
func Recover(s *State, clusterID string) (*State, error) {
	if s.Epoch >= maxEpoch {
		return nil, fmt.Errorf("a cluster begins from a snapshot at most %d times", maxEpoch)
	}
	t := begin(s)
	t.ClusterID = clusterID
	t.Epoch++
	t.Leader = Leader{}
	for _, sh := range slices.Collect(t.ShardsFrom(neon.ShardID{})) {
		sh.Generation = jump(sh.Generation)
		t.setShard(sh)
	}
	var tombstones []tenantTombstone
	t.deletedTenants.values(func(g tenantTombstone) bool {
		tombstones = append(tombstones, g)
		return true
	})
	for _, g := range tombstones {
		g.generation = jump(g.generation)
		t.deletedTenants.add(g)
	}
	for _, sp := range slices.Collect(t.Splits()) {
		if sp.Phase == SplitAsking {
			sp.Phase, sp.Code, sp.Reason = SplitAborting, neon.Conflict, "The cluster was restored from a snapshot"
			t.splits.Set(sp)
		}
	}
	return t.snapshot(), nil
}

// jump is the first number that cannot have been issued since a snapshot, or the last
// one that there is.
func jump(g neon.Generation) neon.Generation { return g + min(RecoveryGap, math.MaxUint32-g) }
