package fsm

import (
	"iter"

	"github.com/tidwall/btree"

	"quorate/api/neon"
)

// State is one version of everything that is replicated. It is immutable: Apply
// makes a new one that shares all that did not change. Holding a State costs
// nothing but the records that changed since.
//
// The records stand in tables, one for each subject. A table knows only its own
// records. What spans tables is done by txn.
type State struct {
	// Index is the log index of the last entry applied.
	Index uint64

	// ClusterID is the id of the cluster. Its first committed command sets it.
	// Epoch counts the disaster recoveries (see Recover).
	ClusterID string
	Epoch     uint64

	// Leader is the replica that last took up its duties.
	Leader Leader

	level uint64 // see AgreedLevel; 0: the first

	nodeTable
	shardTable
	splitTable
	safekeeperTable
	timelineWorkTable
	travelTable

	done           recent[request]
	deletedTenants recent[tenantTombstone]
	outcomes       recent[Outcome]
}

// Leader says who leads, for clients and for replicas that forward.
type Leader struct {
	ServerID  string `cbor:"1,keyasint"`
	Address   string `cbor:"2,keyasint"` // URL of its HTTP API
	StartedAt int64  `cbor:"3,keyasint"` // Unix time in milliseconds
	Term      uint64 `cbor:"4,keyasint"`
}

// NewState is the state before the first entry.
func NewState() *State {
	return &State{
		shardTable:        newShardTable(),
		splitTable:        newSplitTable(),
		safekeeperTable:   newSafekeeperTable(),
		timelineWorkTable: newTimelineWorkTable(),
		travelTable:       newTravelTable(),
		done:              newRequests(),
		deletedTenants:    newTenantTombstones(),
		outcomes:          newOutcomes(),
	}
}

// AgreedLevel is the level that all members know. Commands above it are refused.
func (s *State) AgreedLevel() uint64 { return max(s.level, firstLevel) }

// KnowsBasis reports whether decisions are held against what they were based on, and
// moves that were begun against what was decided since. Below the level some member
// would not do so.
func (s *State) KnowsBasis() bool { return s.AgreedLevel() >= secondLevel }

// Removing finds the pageserver that may be removing the remote data of a tenant. There
// is none once its process is known to have ended, or its node was deleted: by force, as a
// node that removes data is deleted in no other way.
func (s *State) Removing(tenant *Tenant) (Node, bool) {
	n, ok := s.Node(tenant.Remover.Node)
	return n, ok && !n.Tombstone && n.Incarnation == tenant.Remover.Incarnation
}

// RemovedBy yields the tenants whose remote data a pageserver may be removing.
func (s *State) RemovedBy(node neon.NodeID) iter.Seq[Tenant] {
	return func(yield func(Tenant) bool) {
		s.removals.Ascend(removal{node: node}, func(r removal) bool {
			if r.node != node {
				return false
			}
			tenant, ok := s.Tenant(r.tenant)
			if _, removing := s.Removing(&tenant); !ok || !removing {
				return true
			}
			return yield(tenant)
		})
	}
}

// Frozen is the refusal of a change of a tenant that is being split, or whose remote data
// is being put back in time. It is empty for any other.
func (s *State) Frozen(id neon.TenantID) Result {
	if s.Splitting(id) {
		return refuse(neon.Conflict, "Tenant %s is being split", id)
	}
	if _, ok := s.Travel(id); ok {
		return refuse(neon.Conflict, "Remote data of tenant %s is being put back in time", id)
	}
	return Result{}
}

// copy makes a State that can be changed without changing s, or the reverse.
func (s *State) copy() State {
	c := *s
	c.nodeTable.owned = false
	c.shardTable = s.shardTable.copy()
	c.splitTable = s.splitTable.copy()
	c.safekeeperTable = s.safekeeperTable.copy()
	c.timelineWorkTable = s.timelineWorkTable.copy()
	c.travelTable = s.travelTable.copy()
	c.done, c.deletedTenants = s.done.copy(), s.deletedTenants.copy()
	c.outcomes = s.outcomes.copy()
	return c
}

// tree makes an ordered set of records. It takes no locks: only the applying
// goroutine writes, and it publishes copies.
func tree[R any](less func(a, b R) bool) *btree.BTreeG[R] {
	return btree.NewBTreeGOptions(less, btree.Options{NoLocks: true})
}

// deletesOf are the deletions of timelines of a tenant that are recorded.
func (s *State) deletesOf(id neon.TenantID) (all []TimelineDelete) {
	s.deletes.Ascend(neon.TimelineRef{Tenant: id}, func(d TimelineDelete) bool {
		if d.Tenant == id {
			all = append(all, d)
		}
		return d.Tenant == id
	})
	return all
}
