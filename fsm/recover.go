package fsm

import (
	"fmt"
	"math"
)

// RecoveryGap is added to every generation when a cluster is started again from
// a snapshot: far more than could have been issued to any shard since it was
// taken (a shard re-attached once a second needs 18 hours for 2^16).
const RecoveryGap = 1 << 16

// Recover prepares a restored snapshot to be the beginning of a new cluster. The
// numbers issued after the snapshot was taken are not known, so all are jumped
// over, and the cluster gets another id, so that no member of the old one can
// meet it.
func Recover(s *State, clusterID string) (*State, error) {
	t := begin(s)
	t.ClusterID = clusterID
	t.Epoch++
	t.Leader = Leader{}
	var all []Shard
	t.shards.Scan(func(sh Shard) bool { all = append(all, sh); return true })
	for _, sh := range all {
		if !sh.HasGeneration {
			continue
		}
		if sh.Generation > math.MaxUint32-RecoveryGap {
			return nil, fmt.Errorf("generations of %s are used up", sh.ID)
		}
		sh.Generation += RecoveryGap
		t.shards.Set(sh)
	}
	return t.snapshot(), nil
}
