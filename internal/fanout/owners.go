package fanout

import (
	"fmt"
	"slices"

	"quorate/api/neon"
	"quorate/fsm"
)

// Owner is a shard and the node that its newest generation was issued to.
type Owner struct {
	Shard      neon.ShardID
	Generation neon.Generation
	Node       fsm.Node
}

// Name is how texts for clients call the node of an owner.
func (o Owner) Name() string { return fmt.Sprintf("%d (%s)", o.Node.ID, o.Node.Addr.HTTPHost) }

// Owners finds the owners of all shards of a tenant, by shard number. There is at
// least one.
func Owners(s *fsm.State, id neon.TenantID) ([]Owner, error) {
	tenant, ok := s.Tenant(id)
	if !ok {
		return nil, neon.Errorf(neon.NotFound, "Tenant not found")
	}
	if s.Splitting(id) {
		return nil, neon.Errorf(neon.Unavailable, "Tenant %s is being split, please retry", id)
	}
	all := make([]Owner, 0, tenant.Count.Shards())
	for sh := range s.TenantShards(id) {
		o, err := OwnerOf(s, tenant, sh)
		if err != nil {
			return nil, err
		}
		all = append(all, o)
	}
	return all, nil
}

// OwnerOf finds the owner of one shard. Its errors say why there is none.
func OwnerOf(s *fsm.State, tenant fsm.Tenant, sh fsm.Shard) (Owner, error) {
	if sh.GenNode == 0 || !sh.HasGeneration {
		switch tenant.Policy.Kind {
		case neon.PlaceDetached:
			return Owner{}, neon.Errorf(neon.Conflict, "Shard %s tenant has policy Detached", sh.ID)
		case neon.PlaceSecondary:
			return Owner{}, neon.Errorf(neon.Conflict, "Shard %s tenant has policy Secondary",
				sh.ID)
		}
		return Owner{}, neon.Errorf(neon.Unavailable,
			"One or more shards in tenant is not yet attached")
	}
	node, ok := s.Node(sh.GenNode)
	if !ok || node.Tombstone {
		return Owner{}, neon.Errorf(neon.Conflict, "Raced with removal of node %d", sh.GenNode)
	}
	return Owner{Shard: sh.ID, Generation: sh.Generation, Node: node}, nil
}

// AnyAvailable finds a pageserver that should answer, one not to be avoided if there
// is any.
func AnyAvailable(s *fsm.State, avoid ...neon.NodeID) (found *fsm.Node) {
	for n := range s.Nodes() {
		if !n.Available() {
			continue
		}
		if !slices.Contains(avoid, n.ID) {
			return n
		}
		found = n
	}
	return found
}
