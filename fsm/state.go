package fsm

import (
	"iter"
	"slices"

	"github.com/tidwall/btree"

	"quorate/api/neon"
)

// State is one version of everything that is replicated. It is immutable: Apply
// makes a new one that shares all that did not change, so holding a State costs
// nothing but the records changed since.
type State struct {
	// Index is the log index of the last entry applied.
	Index uint64

	// ClusterID is the id of the cluster, its first committed command; Epoch
	// counts the disaster recoveries (see Recover).
	ClusterID string
	Epoch     uint64

	// Leader is the replica that last took up its duties.
	Leader Leader

	level uint64 // see AgreedLevel; 0: the first

	tenants *btree.BTreeG[Tenant]
	shards  *btree.BTreeG[Shard]
	byNode  *btree.BTreeG[nodeShard]
	splits  *btree.BTreeG[Split] // by tenant
	nodes   []Node               // by id; replaced, never modified
	counts  []NodeCounts         // parallel to nodes
	done    memory[request]
	graves  memory[grave]

	safekeepers []Safekeeper // by id; replaced, never modified
	timelines   *btree.BTreeG[Timeline]
	ops         *btree.BTreeG[SafekeeperOp]

	imports *btree.BTreeG[Import]
	deletes *btree.BTreeG[TimelineDelete]
}

// Leader says who leads, for clients and for replicas that forward.
type Leader struct {
	ServerID  string `cbor:"1,keyasint"`
	Address   string `cbor:"2,keyasint"` // URL of its HTTP API
	StartedAt int64  `cbor:"3,keyasint"` // Unix time in milliseconds
	Term      uint64 `cbor:"4,keyasint"`
}

// nodeShard is one entry of the index from nodes to their shards.
type nodeShard struct {
	node  neon.NodeID
	shard neon.ShardID
	roles roles
}

func lessNodeShard(a, b nodeShard) bool {
	if a.node != b.node {
		return a.node < b.node
	}
	return a.shard.Less(b.shard)
}

// The trees take no locks: only the applying goroutine writes, and it publishes
// copies.
var treeOptions = btree.Options{NoLocks: true}

// NewState is the state before the first entry.
func NewState() *State {
	return &State{
		tenants: btree.NewBTreeGOptions(func(
			a, b Tenant,
		) bool {
			return compareIDs(a.ID, b.ID) < 0
		}, treeOptions),
		shards: btree.NewBTreeGOptions(func(a, b Shard) bool { return a.ID.Less(b.ID) },
			treeOptions),
		byNode: btree.NewBTreeGOptions(lessNodeShard, treeOptions),
		splits: btree.NewBTreeGOptions(func(
			a, b Split,
		) bool {
			return compareIDs(a.Tenant, b.Tenant) < 0
		}, treeOptions),
		done:   newRequests(),
		graves: newGraves(),

		timelines: btree.NewBTreeGOptions(func(
			a, b Timeline,
		) bool {
			return compareTimelines(a, b) < 0
		}, treeOptions),
		ops: btree.NewBTreeGOptions(func(a, b SafekeeperOp) bool { return compareOps(a, b) < 0 },
			treeOptions),

		imports: btree.NewBTreeGOptions(func(
			a, b Import,
		) bool {
			return compareRefs(a.Ref(), b.Ref()) < 0
		}, treeOptions),
		deletes: btree.NewBTreeGOptions(func(
			a, b TimelineDelete,
		) bool {
			return compareRefs(a.Ref(), b.Ref()) < 0
		}, treeOptions),
	}
}

func compareIDs(a, b neon.TenantID) int { return slices.Compare(a[:], b[:]) }

// Tenant finds a tenant, deleting ones included.
func (s *State) Tenant(id neon.TenantID) (Tenant, bool) { return s.tenants.Get(Tenant{ID: id}) }

// Shard finds a shard by its exact id.
func (s *State) Shard(id neon.ShardID) (Shard, bool) { return s.shards.Get(Shard{ID: id}) }

// Node finds a node, tombstones included.
func (s *State) Node(id neon.NodeID) (Node, bool) {
	if i, ok := s.nodeIndex(id); ok {
		return s.nodes[i], true
	}
	return Node{}, false
}

// Counts are the intended locations of a node; zero for an unknown one.
func (s *State) Counts(id neon.NodeID) NodeCounts {
	if i, ok := s.nodeIndex(id); ok {
		return s.counts[i]
	}
	return NodeCounts{}
}

func (s *State) nodeIndex(id neon.NodeID) (int, bool) {
	return slices.BinarySearchFunc(s.nodes, id, func(n Node, id neon.NodeID) int {
		switch {
		case n.ID < id:
			return -1
		case n.ID > id:
			return 1
		}
		return 0
	})
}

// Nodes yields the nodes that are not tombstones, by id.
func (s *State) Nodes() iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		for i := range s.nodes {
			if !s.nodes[i].Tombstone && !yield(&s.nodes[i]) {
				return
			}
		}
	}
}

// Tombstones yields the deleted nodes, by id.
func (s *State) Tombstones() iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		for i := range s.nodes {
			if s.nodes[i].Tombstone && !yield(&s.nodes[i]) {
				return
			}
		}
	}
}

// TenantsFrom yields tenants by id, beginning with the first id >= from.
func (s *State) TenantsFrom(from neon.TenantID) iter.Seq[Tenant] {
	return func(yield func(Tenant) bool) { s.tenants.Ascend(Tenant{ID: from}, yield) }
}

// ShardsFrom yields shards in id order, beginning with the first id >= from.
func (s *State) ShardsFrom(from neon.ShardID) iter.Seq[Shard] {
	return func(yield func(Shard) bool) { s.shards.Ascend(Shard{ID: from}, yield) }
}

// TenantShards yields the shards of one tenant by number.
func (s *State) TenantShards(id neon.TenantID) iter.Seq[Shard] {
	return func(yield func(Shard) bool) {
		s.shards.Ascend(Shard{ID: neon.ShardID{Tenant: id}}, func(sh Shard) bool {
			return sh.ID.Tenant == id && yield(sh)
		})
	}
}

// NodeShards yields, in shard order, every shard that refers to a node, be it as
// an intended location or as the holder of its newest generation.
func (s *State) NodeShards(id neon.NodeID) iter.Seq[Shard] {
	return s.nodeShards(id, roleAttached|roleSecondary|roleGeneration, neon.ShardID{})
}

// AttachedOn yields the shards whose intent is to be attached on a node,
// beginning with the first shard id >= from.
func (s *State) AttachedOn(id neon.NodeID, from neon.ShardID) iter.Seq[Shard] {
	return s.nodeShards(id, roleAttached, from)
}

// SecondaryOn yields the shards whose intent is to be a secondary on a node,
// beginning with the first shard id >= from.
func (s *State) SecondaryOn(id neon.NodeID, from neon.ShardID) iter.Seq[Shard] {
	return s.nodeShards(id, roleSecondary, from)
}

func (s *State) nodeShards(id neon.NodeID, want roles, from neon.ShardID) iter.Seq[Shard] {
	return func(yield func(Shard) bool) {
		s.byNode.Ascend(nodeShard{node: id, shard: from}, func(e nodeShard) bool {
			if e.node != id {
				return false
			}
			if e.roles&want == 0 {
				return true
			}
			sh, ok := s.Shard(e.shard)
			return !ok || yield(sh)
		})
	}
}

// TenantCount and ShardCount are how many records there are.
func (s *State) TenantCount() int { return s.tenants.Len() }

// ShardCount is the number of shards, detached ones included.
func (s *State) ShardCount() int { return s.shards.Len() }
