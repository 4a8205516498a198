package scheduler

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"quorate/api/neon"
	"quorate/fsm"
)

// Load is what the last heartbeat of a pageserver said about its fullness. The
// zero value means that nothing is known.
type Load struct {
	// DiskWanted is how many bytes the attached shards would like to keep on
	// disk, whether they do or not; DiskUsable how many there may be.
	DiskWanted, DiskUsable uint64

	// Shards is the number of locations the node reports, MaxShards how many it
	// takes; DefaultMaxShards is used for zero.
	Shards, MaxShards int

	// Silent says that the node did not answer its last heartbeats. It is not judged
	// for that yet, but nothing new is placed on it: nodes often die together, and
	// not all are found out at once.
	Silent bool
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
type Scheduler struct {
	state *fsm.State
	nodes []node
	index map[neon.NodeID]int
	open  []int  // indices of the schedulable nodes
	zones []zone // of the schedulable nodes, by name

	// The tenant under decision, and the nodes with a location of it.
	tenant    fsm.Tenant
	splitting bool // the tenant
	entered   bool
	occupied  []int

	scratch []neon.NodeID
}

// node is one pageserver with everything scores are made of, kept up to date as
// locations are proposed.
type node struct {
	id       neon.NodeID
	az       neon.AZ
	zone     int // index into zones, -1 for none
	class    class
	counts   fsm.NodeCounts
	load     Load
	disk     uint64 // the part of the utilisation that is due to disk space
	used     uint64 // utilisation
	affinity int    // locations of the tenant under decision
}

// class is how useful a node is as the holder of an existing location.
type class uint8

const (
	schedulable class = iota
	available         // reachable, but takes nothing new
	unreachable
)

// zone sums up the schedulable nodes of an availability zone.
type zone struct {
	az    neon.AZ
	nodes int
	home  int
}

// New makes a Scheduler for one round of decisions on a state. Nodes without an
// entry in loads are scored by their intended locations alone. It costs
// O(nodes), whatever the number of shards.
func New(state *fsm.State, loads map[neon.NodeID]Load) *Scheduler {
	s := &Scheduler{state: state, index: make(map[neon.NodeID]int)}
	for n := range state.Nodes() {
		s.index[n.ID] = len(s.nodes)
		s.nodes = append(s.nodes, node{
			id: n.ID, az: n.AZ, zone: -1, class: classOf(n, loads[n.ID]),
			counts: state.Counts(n.ID), load: loads[n.ID],
		})
	}
	for i := range s.nodes {
		n := &s.nodes[i]
		n.disk = permillion(n.load.DiskWanted, n.load.DiskUsable)
		n.refresh()
		if n.class == schedulable {
			s.open = append(s.open, i)
			if !n.az.IsZero() {
				s.zones = append(s.zones, zone{az: n.az})
			}
		}
	}
	slices.SortFunc(s.zones,
		func(a, b zone) int { return strings.Compare(a.az.String(), b.az.String()) })
	s.zones = slices.Compact(s.zones)
	for _, i := range s.open {
		n := &s.nodes[i]
		n.zone = slices.IndexFunc(s.zones, func(z zone) bool { return z.az == n.az })
		if n.zone >= 0 {
			s.zones[n.zone].nodes++
			s.zones[n.zone].home += n.counts.Home
		}
	}
	return s
}

func classOf(n *fsm.Node, l Load) class {
	switch {
	case n.Schedulable() && !l.Silent:
		return schedulable
	case n.Available():
		return available
	}
	return unreachable
}

// node finds a node that exists and is not deleted.
func (s *Scheduler) node(id neon.NodeID) *node {
	if i, ok := s.index[id]; ok {
		return &s.nodes[i]
	}
	return nil
}

// Counts are the intended locations of a node, those proposed by s included.
func (s *Scheduler) Counts(id neon.NodeID) fsm.NodeCounts {
	if n := s.node(id); n != nil {
		return n.counts
	}
	return s.state.Counts(id)
}

// enter makes a tenant the one under decision: its locations, by node, are what
// keeps its shards apart.
func (s *Scheduler) enter(id neon.TenantID) {
	if s.entered && s.tenant.ID == id {
		return
	}
	for _, i := range s.occupied {
		s.nodes[i].affinity = 0
	}
	s.occupied = s.occupied[:0]
	tenant, ok := s.state.Tenant(id)
	if !ok {
		tenant = fsm.Tenant{ID: id}
	}
	s.tenant, s.splitting, s.entered = tenant, s.state.Splitting(id), true
	for sh := range s.state.TenantShards(id) {
		s.occupy(sh.Attached, +1)
		for _, n := range sh.Secondary {
			s.occupy(n, +1)
		}
	}
}

// held tells whether nothing of the tenant may be placed now: it is being deleted
// or split.
func (s *Scheduler) held() bool { return s.tenant.Deleting || s.splitting }

func (s *Scheduler) occupy(id neon.NodeID, by int) {
	if i, ok := s.index[id]; ok {
		if s.nodes[i].affinity == 0 {
			s.occupied = append(s.occupied, i)
		}
		s.nodes[i].affinity += by
	}
}

// draft is where one shard is to be, while that is being decided. Its locations
// are not counted until it is put down.
type draft struct {
	attached  neon.NodeID
	secondary []neon.NodeID
	preferred neon.NodeID
	az        neon.AZ
}

func (d *draft) holds(id neon.NodeID) bool {
	return d.attached == id || slices.Contains(d.secondary, id)
}

// drop removes a node from the secondaries.
func (d *draft) drop(id neon.NodeID) {
	d.secondary = slices.DeleteFunc(d.secondary, func(n neon.NodeID) bool { return n == id })
}

// take opens the decision on a shard: what it has is not counted meanwhile.
func (s *Scheduler) take(sh *fsm.Shard) draft {
	s.enter(sh.ID.Tenant)
	s.scratch = append(s.scratch[:0], sh.Secondary...)
	d := draft{
		attached: sh.Attached, secondary: s.scratch, preferred: sh.PreferredNode,
		az: sh.PreferredAZ,
	}
	s.count(&d, -1)
	return d
}

// put closes the decision: what the draft holds is counted from here on.
func (s *Scheduler) put(d *draft) { s.count(d, +1) }

// undo closes the decision on a shard without a change.
func (s *Scheduler) undo(sh *fsm.Shard) {
	s.put(&draft{attached: sh.Attached, secondary: sh.Secondary, az: sh.PreferredAZ})
}

func (s *Scheduler) count(d *draft, by int) {
	s.countOne(d.attached, d.az, fsm.NodeCounts{Shards: by, Attached: by})
	for _, id := range d.secondary {
		s.countOne(id, d.az, fsm.NodeCounts{Shards: by})
	}
}

func (s *Scheduler) countOne(id neon.NodeID, home neon.AZ, by fsm.NodeCounts) {
	n := s.node(id)
	if n == nil {
		return
	}
	s.occupy(id, by.Shards)
	n.counts.Shards += by.Shards
	n.counts.Attached += by.Attached
	if !home.IsZero() && home == n.az {
		n.counts.Home += by.Shards
		if n.zone >= 0 {
			s.zones[n.zone].home += by.Shards
		}
	}
	n.refresh()
}

// intent is the proposal that turns a shard into a draft.
func (d *draft) intent(sh *fsm.Shard) fsm.Intent {
	return fsm.Intent{
		Shard: sh.ID, Sequence: sh.Sequence, Attached: d.attached,
		Secondary: append([]neon.NodeID(nil), d.secondary...), PreferredNode: d.preferred,
	}
}

func (d *draft) differs(sh *fsm.Shard) bool {
	return d.attached != sh.Attached || d.preferred != sh.PreferredNode ||
		!slices.Equal(d.secondary, sh.Secondary)
}

// Changes tells whether an intent would change the shard that it was made for.
func Changes(sh fsm.Shard, in fsm.Intent) bool {
	d := draft{attached: in.Attached, secondary: in.Secondary, preferred: in.PreferredNode}
	return in.Issue || d.differs(&sh)
}

// unplaced is the error for a location that no node can take.
func (s *Scheduler) unplaced(id neon.ShardID) error {
	cause := ErrNoFit
	if len(s.nodes) == 0 {
		cause = ErrNoNodes
	}
	return &neon.Error{
		Code: neon.Conflict, Msg: "Scheduling error: " + cause.Error(),
		Err: fmt.Errorf("place %s: %w", id, cause),
	}
}
