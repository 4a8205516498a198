package split

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"quorate/api/neon"
	"quorate/fsm"
)

// What is left of a shard is removed unless a tenant has that shard again.
func TestAShardOfATenantIsNoLeftover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, f := splitWorld(t, 2, Options{})
		node, _ := p.Log.State().Node(1)
		gone := neon.ShardIDs(tenantOne, 4)[0]
		for _, id := range []neon.ShardID{neon.ShardIDs(tenantOne, 2)[0], gone} {
			if err := p.detachOne(t.Context(), &node, id); err != nil {
				t.Error(err)
			}
		}
		if !slices.Equal(f.detached, []neon.ShardID{gone}) {
			t.Errorf("detached %v", f.detached)
		}
		f.log.FailReads(errors.New("no majority"))
		if err := p.detachOne(t.Context(), &fsm.Node{ID: 1}, gone); err == nil ||
			len(f.detached) != 1 {
			t.Errorf("detached %v, not knowing whose it is: %v", f.detached, err)
		}
	})
}
