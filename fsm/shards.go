package fsm

import (
	"iter"

	"github.com/tidwall/btree"

	"quorate/api/neon"
)

// shardTable holds the tenants and their shards, and finds the shards of a node.
type shardTable struct {
	tenants  table[neon.TenantID, Tenant]
	shards   table[neon.ShardID, Shard]
	byNode   *btree.BTreeG[nodeShard] // derived from shards
	removals *btree.BTreeG[removal]   // derived from tenants
	totals   Totals                   // derived from all tables
}

// removal is one entry of the index from nodes to the tenants whose remote data they
// were asked to remove.
type removal struct {
	node   neon.NodeID
	tenant neon.TenantID
}

func lessRemoval(a, b removal) bool {
	if a.node != b.node {
		return a.node < b.node
	}
	return a.tenant.Less(b.tenant)
}

// Totals are numbers of shards, kept up to date by every command, so that nobody has to
// walk the shards for them.
type Totals struct {
	Placed    int // of tenants that are not detached
	Elsewhere int // attached in another zone than they prefer
	Exhausted int // without a number left
}

// Totals are those of the whole state.
func (t *shardTable) Totals() Totals { return t.totals }

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

func newShardTable() shardTable {
	return shardTable{
		tenants: newTable(tagTenant, func(t *Tenant) neon.TenantID { return t.ID },
			neon.TenantID.Less, appendTenant),
		shards: newTable(tagShard, func(s *Shard) neon.ShardID { return s.ID },
			neon.ShardID.Less, appendShard),
		byNode: tree(lessNodeShard), removals: tree(lessRemoval),
	}
}

func (t *shardTable) copy() shardTable {
	c := *t
	c.tenants, c.shards, c.byNode = t.tenants.copy(), t.shards.copy(), t.byNode.Copy()
	c.removals = t.removals.Copy()
	return c
}

// Tenant finds a tenant, deleting ones included.
func (t *shardTable) Tenant(
	id neon.TenantID,
) (Tenant, bool) {
	return t.tenants.Get(id)
}

// Shard finds a shard by its exact id.
func (t *shardTable) Shard(id neon.ShardID) (Shard, bool) { return t.shards.Get(id) }

// TenantsFrom yields tenants by id, beginning with the first id >= from.
func (t *shardTable) TenantsFrom(from neon.TenantID) iter.Seq[Tenant] {
	return func(yield func(Tenant) bool) { t.tenants.Ascend(from, yield) }
}

// ShardsFrom yields shards in id order, beginning with the first id >= from.
func (t *shardTable) ShardsFrom(from neon.ShardID) iter.Seq[Shard] {
	return func(yield func(Shard) bool) { t.shards.Ascend(from, yield) }
}

// TenantShards yields the shards of one tenant by number.
func (t *shardTable) TenantShards(id neon.TenantID) iter.Seq[Shard] {
	return func(yield func(Shard) bool) {
		t.shards.Ascend(neon.ShardID{Tenant: id}, func(sh Shard) bool {
			return sh.ID.Tenant == id && yield(sh)
		})
	}
}

// NodeShards yields, in shard order, every shard that refers to a node, be it as
// an intended location or as the holder of its newest generation.
func (t *shardTable) NodeShards(id neon.NodeID) iter.Seq[Shard] {
	return t.nodeShards(id, roleAttached|roleSecondary|roleGeneration, neon.ShardID{})
}

// AttachedOn yields the shards whose intent is to be attached on a node,
// beginning with the first shard id >= from.
func (t *shardTable) AttachedOn(id neon.NodeID, from neon.ShardID) iter.Seq[Shard] {
	return t.nodeShards(id, roleAttached, from)
}

// SecondaryOn yields the shards whose intent is to be a secondary on a node,
// beginning with the first shard id >= from.
func (t *shardTable) SecondaryOn(id neon.NodeID, from neon.ShardID) iter.Seq[Shard] {
	return t.nodeShards(id, roleSecondary, from)
}

func (t *shardTable) nodeShards(id neon.NodeID, want roles, from neon.ShardID) iter.Seq[Shard] {
	return func(yield func(Shard) bool) {
		t.byNode.Ascend(nodeShard{node: id, shard: from}, func(e nodeShard) bool {
			if e.node != id {
				return false
			}
			if e.roles&want == 0 {
				return true
			}
			sh, ok := t.Shard(e.shard)
			return !ok || yield(sh)
		})
	}
}

// TenantCount is the number of tenants, deleting ones included.
func (t *shardTable) TenantCount() int { return t.tenants.Len() }

// ShardCount is the number of shards, detached ones included.
func (t *shardTable) ShardCount() int { return t.shards.Len() }

// indexRemover keeps the index of removals for a tenant whose record was replaced.
func (t *shardTable) indexRemover(last, next *Tenant) {
	if last.Remover.Node == next.Remover.Node {
		return
	}
	if last.Remover.Node != 0 {
		t.removals.Delete(removal{last.Remover.Node, last.ID})
	}
	if next.Remover.Node != 0 {
		t.removals.Set(removal{next.Remover.Node, next.ID})
	}
}

// putShard inserts or replaces a shard and returns the record that was there.
func (t *shardTable) putShard(next Shard) (last Shard) {
	last, had := t.shards.Set(next)
	if had {
		t.unindex(&last, &next)
	}
	next.nodes(func(n neon.NodeID) {
		if r := next.rolesOn(n); r != last.rolesOn(n) {
			t.byNode.Set(nodeShard{node: n, shard: next.ID, roles: r})
		}
	})
	return last
}

// removeShard forgets a shard and returns the record that was there.
func (t *shardTable) removeShard(id neon.ShardID) (last Shard, had bool) {
	if last, had = t.shards.Delete(id); had {
		t.unindex(&last, &Shard{})
	}
	return last, had
}

// unindex removes the entries of the nodes that next does not refer to any more.
func (t *shardTable) unindex(last, next *Shard) {
	last.nodes(func(n neon.NodeID) {
		if next.rolesOn(n) == 0 {
			t.byNode.Delete(nodeShard{node: n, shard: last.ID})
		}
	})
}
