package fsm

import (
	"fmt"
	"math"

	"quorate/api/neon"
)

// RecoveryGap is added to every generation when a cluster is started again from
// a snapshot: far more than could have been issued to any shard since it was
// taken (a shard re-attached once a second needs 18 hours for 2^16).
const RecoveryGap = 1 << 16

// floor is the number from which a tenant without any history counts. After a
// recovery it may have had one that the snapshot did not know.
func (t *txn) floor() neon.Generation {
	return neon.Generation(min(t.Epoch, math.MaxUint32/RecoveryGap) * RecoveryGap)
}

// Recover prepares a restored snapshot to be the beginning of a new cluster. The
// numbers issued after the snapshot was taken are not known, so all are jumped
// over: those of the shards, those remembered of deleted tenants, and those of
// tenants that were only created later (see floor). What somebody has chosen by
// himself since, in a creation or an attachment by hand, may lie beyond that. The
// cluster gets another id, so that no member of the old one can meet it.
func Recover(s *State, clusterID string) (*State, error) {
	t := begin(s)
	t.ClusterID = clusterID
	t.Epoch++
	t.Leader = Leader{}
	var all []Shard
	t.shards.Scan(func(sh Shard) bool { all = append(all, sh); return true })
	for _, sh := range all {
		if sh.Generation > math.MaxUint32-RecoveryGap {
			return nil, fmt.Errorf("generations of %s are used up", sh.ID)
		}
		sh.Generation += RecoveryGap
		t.shards.Set(sh)
	}
	var graves []grave
	t.graves.values(func(g grave) bool { graves = append(graves, g); return true })
	for _, g := range graves {
		g.generation += min(RecoveryGap, math.MaxUint32-g.generation)
		t.graves.add(g)
	}
	var splits []Split
	t.splits.Scan(func(sp Split) bool { splits = append(splits, sp); return true })
	for _, sp := range splits {
		if sp.Phase == SplitAsking {
			sp.Phase, sp.Code, sp.Reason = SplitAborting, neon.Conflict, "The cluster was restored from a snapshot"
			t.splits.Set(sp)
		}
	}
	return t.snapshot(), nil
}
