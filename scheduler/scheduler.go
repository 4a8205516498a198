package scheduler

import (
	"errors"

	"quorate/api/neon"
	"quorate/fsm"
)

// Load is what the last heartbeat of a pageserver said about its fullness. The
// zero value means that nothing is known.
type Load struct {
	// DiskWanted is how many bytes the attached shards would like to keep on
	// disk, whether they do or not; DiskUsable how many there may be.
	DiskWanted, DiskUsable uint64

	// DiskUsed and DiskTotal are of the whole disk, whatever is on it. Full says that it is
	// too full, and is being relieved: the node counts as overloaded.
	DiskUsed, DiskTotal uint64
	Full                bool

	// Shards is the number of locations the node reports, MaxShards how many it
	// takes; DefaultMaxShards is used for zero.
	Shards, MaxShards int

	// Silent says that the node did not answer its last heartbeats, or does not answer
	// calls. It is not judged for that yet, but nothing new is placed on it: nodes often
	// die together, and not all are found out at once. Only what a client asks for goes
	// there, when no other node can take it.
	Silent bool

	// Unsteady says that the node has come back only lately, or did not answer the last
	// change that it was asked for. It takes what has to be somewhere, but nothing is moved
	// there for a better place or an even load: that may be in vain.
	Unsteady bool
}

// DefaultMaxShards is the number of shards a pageserver is assumed to take when
// it does not say; the pageservers' own default.
const DefaultMaxShards = 2500

// The reasons why a location cannot be placed. They are the causes of the
// neon.Conflict errors of this package, with the texts clients know.
var (
	//lint:ignore ST1005 clients know these words
	ErrNoNodes = errors.New("No pageservers found")
	//lint:ignore ST1005 clients know these words
	ErrNoFit = errors.New("No pageserver found matching constraint")
)

// Scheduler proposes intents. It is not safe for concurrent use.
type Scheduler struct{ round }

// New makes a Scheduler for one round of decisions on a state. Nodes without an
// entry in loads are scored by their intended locations alone. It costs
// O(nodes), whatever the number of shards.
func New(state *fsm.State, loads map[neon.NodeID]Load) *Scheduler {
	return &Scheduler{round{fleet: newFleet(state, loads), state: state}}
}

// Counts are the intended locations of a node, those proposed by s included.
func (s *Scheduler) Counts(id neon.NodeID) fsm.NodeCounts {
	if n := s.node(id); n != nil {
		return n.counts
	}
	return s.state.Counts(id)
}

// Takes reports whether a node may take a location that no client has asked for.
func (s *Scheduler) Takes(id neon.NodeID) bool {
	n := s.node(id)
	return n != nil && n.class == schedulable
}

// Changes reports whether an intent would change the shard that it was made for.
func Changes(sh fsm.Shard, in fsm.Intent) bool {
	d := draft{attached: in.Attached, secondary: in.Secondary, preferred: in.PreferredNode}
	return in.Issue || d.differs(&sh)
}

// Fill lists the shards that should be attached on a node which came back: first those that
// are at home in the node's zone, are attached outside it, and have a secondary on the node;
// then, as long as the node has less than its fair share (see Balance), others that may
// come, from the nodes that have the most for their share, those with a secondary on the
// node first. Shards on their way to the node already are not listed, but count.
func (s *Scheduler) Fill(node neon.NodeID) []neon.ShardID { return fill(&s.round, node) }

// Explain scores every node for a shard. Nothing is proposed.
func (s *Scheduler) Explain(sh fsm.Shard) Explanation { return explain(&s.round, sh) }

// SplitSecondaries chooses the secondaries of the children of a split, by child
// number: as many as the policy wants, and apart from each other, so that each
// child can be moved to a node of its own. The children stay attached where their
// parents are. For a tenant that may not be scheduled it is nil.
func (s *Scheduler) SplitSecondaries(sp fsm.Split) [][]neon.NodeID {
	return splitSecondaries(&s.round, sp)
}

// Optimise proposes one step to a better place for a shard that has all it needs:
// to be attached in its home zone, or on a node with fewer locations of its
// tenant, or to have a secondary on such a node or outside the home zone.
//
// A better attached location is proposed as a preferred node, which is warmed
// first (see Prewarm and Arrive); a secondary is replaced at once. False means that
// nothing is better in a way that is worth moving for, that the tenant is not
// Active, that the shard is unmanaged, that a move is under way, or that a
// node is in a state in which it cannot be compared. Utilisation chooses among
// better nodes and is never a reason: it changes by the move itself. At home, a shard leaves
// a node for its tenant's sake only if no secondary there has a better place.
//
// Every accepted step lowers a measure that is bounded below: the locations in a
// wrong zone, then the pairs of locations of one tenant on one node, then those
// that the attached ones are paired with. So whatever is optimised comes to rest.
func (s *Scheduler) Optimise(sh fsm.Shard) (fsm.Intent, bool) {
	return (&improvement{round: &s.round, shard: &sh}).step()
}

// Balance proposes moves that make loads even: shards that have all they need get a
// preferred node, as by Optimise. A plan begins at most o.Moves moves, and one of each
// tenant.
//
// The fair share of a node is its part, by the size of its disk, of what its zone has. A
// zone has the shards that are at home there; the others are shared out over all zones by
// capacity. Nothing is moved while every node has its fair share by number, give or take 5
// %, or two shards where that share is less than 20, to the next whole shard; and no more
// bytes than 115 % of its fair share, or than that and 1 GiB. Bytes are looked at only when
// nothing is to be moved by number.
//
// First of all, with o.Disks, a node whose disk is full gives locations to others with room
// on theirs, and no node gets more than it has room for.
//
// At rest a node has more than that only when a shard that it has is about as large as
// what it has too much, or when what it has may not go: shards stay at home while any node
// there is schedulable, go nowhere where more of their tenant is, and stay where their
// operator has pinned them. Only schedulable nodes, which answer, are looked at, and none
// takes anything that is overloaded.
func (s *Scheduler) Balance(o Balancing) []fsm.Intent {
	if len(s.open) < 2 || o.Moves <= 0 {
		return nil
	}
	return newBalance(&s.round, o).plan()
}
