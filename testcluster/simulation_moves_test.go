package testcluster_test

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/testcluster/spoil"
)

// moves watches every entry of the log for moves and numbers that nothing permits:
//
//   - a shard comes to a node that takes nothing, and no operator has asked for that;
//   - a pinned tenant moves, or one that is not optimised, without a need of its node;
//   - a shard is taken, without a hand-over, from a node that is there and serves it;
//   - a stopped tenant gets a number that nobody will attach;
//   - a shard is still to move where nothing may arrive any more;
//   - a shard comes back to a node that it left for an even load, or for a better place,
//     while nothing has changed, nor have others of its tenant left that node: for the fourth
//     time, or at all where that is demanded.
type moves struct {
	report func(string)

	mu      sync.Mutex // guards all that follows
	last    *fsm.State
	changed time.Time // when circumstances did
	begun   map[neon.ShardID]departure
	left    map[neon.ShardID]map[neon.NodeID]departure
	done    int // voluntary moves
	returns int
	strict  bool                      // no return is excused
	recent  map[neon.ShardID][]string // the last records of each shard
}

// departure is when a move was decided and when it arrived, and where all was then.
type departure struct {
	decided, arrived time.Time
	places           string
	beside           int // other shards of the tenant on the node that it leaves
	again            int // returns before, while nothing changed
}

// mostReturns is how often a shard may come back while nothing changes that the log shows. What
// has been unsteady becomes steady, and better places are found one after another, also while
// clients move others to and fro. What never ends comes back every few seconds.
const mostReturns = 3

// keptRecords is how many records of a shard are kept for a report.
const keptRecords = 8

// homesick is for how long a shard that has left a node should not come back.
const homesick = time.Hour

func newMoves(report func(string)) *moves {
	return &moves{
		report: report, left: make(map[neon.ShardID]map[neon.NodeID]departure),
		begun: make(map[neon.ShardID]departure), recent: make(map[neon.ShardID][]string),
	}
}

// foreseen is called with the states of all controllers. The first one counts.
func (m *moves) foreseen(is *fsm.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.last
	if was != nil && is.Index <= was.Index {
		return
	}
	if m.last = is; was == nil || !was.KnowsBasis() {
		return
	}
	if circumstances(was, is) {
		m.changed = time.Now()
	}
	for sh := range is.ShardsFrom(neon.ShardID{}) {
		if why := unwelcome(is, &sh); why != "" {
			m.report(fmt.Sprintf("entry %d: shard %s %s: %+v", is.Index, sh.ID, why, sh))
		}
		old, known := was.Shard(sh.ID)
		if !known || old.Sequence != sh.Sequence || old.Generation != sh.Generation {
			m.keep(is, &sh)
		}
		if sh.PreferredNode != 0 && sh.PreferredNode != old.PreferredNode {
			m.begun[sh.ID] = departure{
				decided: time.Now(), places: placesOf(is), beside: beside(is, &sh, sh.Attached),
			}
		}
		if !known || old.Attached == sh.Attached && old.Generation == sh.Generation {
			continue
		}
		s := &step{was: was, is: is, old: old, now: sh}
		s.tenantWas, _ = was.Tenant(sh.ID.Tenant)
		s.tenantIs, _ = is.Tenant(sh.ID.Tenant)
		if why := s.forbidden(); why != "" {
			from, _ := was.Node(old.Attached)
			m.report(fmt.Sprintf("entry %d: shard %s %s: it was %+v, it is %+v, tenant %+v, node %+v",
				is.Index, sh.ID, why, old, sh, s.tenantIs, from))
		}
		if s.voluntary() {
			m.count(is, &old, &sh)
		}
	}
}

// shards is how many there are in the newest state.
func (m *moves) shards() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil {
		return 0
	}
	return m.last.ShardCount()
}

// keep remembers a record of a shard, for a report.
func (m *moves) keep(is *fsm.State, sh *fsm.Shard) {
	all := append(m.recent[sh.ID],
		fmt.Sprintf("%s entry %d: %+v", time.Now().Format("04:05.000"), is.Index, *sh))
	m.recent[sh.ID] = all[max(0, len(all)-keptRecords):]
}

// count takes note of a move that nobody has asked for.
func (m *moves) count(is *fsm.State, old, now *fsm.Shard) {
	m.done++
	left := m.left[now.ID]
	if left == nil {
		left = make(map[neon.NodeID]departure)
		m.left[now.ID] = left
	}
	d := m.begun[now.ID]
	if d.decided.IsZero() {
		d.decided = time.Now()
	}
	d.arrived = time.Now()
	before, again := left[now.Attached]
	if again && time.Since(before.decided) < homesick {
		m.returns++
		same := before.decided.After(m.changed)
		fewer := beside(is, now, now.Attached) < before.beside // of those it has made room for
		if same && !fewer {
			d.again = before.again + 1
		}
		if same && (m.strict || d.again > mostReturns) {
			m.report(fmt.Sprintf(
				"entry %d: shard %s comes back to node %s from node %s, %s after it has left it, and"+
					" nothing has changed:\n%s\nFIRST\n%s\nTHEN\n%s\nNOW\n%s",
				is.Index, now.ID, now.Attached, old.Attached, time.Since(before.arrived),
				strings.Join(m.recent[now.ID], "\n"), before.places, d.places, placesOf(is)))
		}
	}
	left[old.Attached] = d
	delete(m.begun, now.ID)
}

// beside counts the other shards of a tenant that are attached on a node.
func beside(s *fsm.State, sh *fsm.Shard, n neon.NodeID) (others int) {
	for other := range s.TenantShards(sh.ID.Tenant) {
		if other.ID != sh.ID && other.Attached == n {
			others++
		}
	}
	return others
}

// demandNoReturn has every return reported, or not any more.
func (m *moves) demandNoReturn(is bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.strict = is
}

// counts are the voluntary moves so far, and how many of them were back.
func (m *moves) counts() (moves, returns int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.done, m.returns
}

// circumstances reports whether something has changed that may be a reason to move shards:
// nodes, the leader, which shards there are, their homes or their policies.
func circumstances(was, is *fsm.State) bool {
	if was.Leader != is.Leader {
		return true
	}
	for n := range is.Nodes() {
		old, known := was.Node(n.ID)
		if n.ID != spoil.Node && (!known || old.Scheduling != n.Scheduling ||
			old.Availability != n.Availability || old.Silent != n.Silent ||
			old.Incarnation != n.Incarnation) {
			return true
		}
	}
	for n := range was.Nodes() {
		if now, ok := is.Node(n.ID); n.ID != spoil.Node && (!ok || now.Tombstone) {
			return true
		}
	}
	count := 0
	for sh := range is.ShardsFrom(neon.ShardID{}) {
		count++
		old, known := was.Shard(sh.ID)
		if !known || old.PreferredAZ != sh.PreferredAZ || old.Unmanaged != sh.Unmanaged ||
			old.PlacedAt != sh.PlacedAt || (old.Attached == 0) != (sh.Attached == 0) {
			return true
		}
	}
	for t := range is.TenantsFrom(neon.TenantID{}) {
		if old, _ := was.Tenant(t.ID); old.Policy != t.Policy || old.Scheduling != t.Scheduling {
			return true
		}
	}
	return was.ShardCount() != count
}

// unwelcome is why a shard should not be on its way to where it is to move, or "".
func unwelcome(s *fsm.State, sh *fsm.Shard) string {
	if sh.PreferredNode == 0 || sh.Insisted {
		return ""
	}
	if n, ok := s.Node(sh.PreferredNode); !ok || !n.Takes() {
		return "is to move to a node that takes nothing"
	}
	tenant, _ := s.Tenant(sh.ID.Tenant)
	from, _ := s.Node(sh.Attached)
	if tenant.Pinned() && from.Operation.Kind != fsm.OperationDelete {
		return "is to move, although its tenant is pinned"
	}
	return ""
}

// step is what an entry of the log did to one shard.
type step struct {
	was, is             *fsm.State
	old, now            fsm.Shard
	tenantWas, tenantIs fsm.Tenant
}

// forbidden is why that may not be, or "".
func (s *step) forbidden() string {
	id := s.now.ID.Tenant
	if s.old.Unmanaged || s.now.Unmanaged || s.was.Splitting(id) || s.is.Splitting(id) {
		return ""
	}
	if why := s.numbered(); why != "" {
		return why
	}
	if s.now.Attached == 0 || s.now.Attached == s.old.Attached || s.asked() {
		return ""
	}
	if !s.ever(s.now.Attached, func(n *fsm.Node) bool { return n.Schedulable() }) {
		return "comes to a node that takes nothing"
	}
	if s.old.Attached == 0 || s.lost() || !s.served() {
		return ""
	}
	switch {
	case s.now.Generation > s.old.Generation && s.now.GenNode == s.now.Attached &&
		!s.ever(s.old.Attached, func(n *fsm.Node) bool { return n.Operation.Force }):
		return "is taken without a hand-over from a node that serves it"
	case s.pinned() && !s.operated(fsm.OperationDelete):
		return "moves although its tenant is pinned"
	case s.scheduling(neon.ShardEssential) && !s.operated(fsm.OperationDelete,
		fsm.OperationDrain):
		return "moves although its tenant is not optimised"
	}
	return ""
}

// numbered is why the shard should have no new number, or "". The start of a pageserver
// numbers all that it has.
func (s *step) numbered() string {
	old, _ := s.was.Node(s.now.GenNode)
	now, _ := s.is.Node(s.now.GenNode)
	if s.now.Generation > s.old.Generation && s.scheduling(neon.ShardStop) &&
		(s.now.GenNode != s.old.GenNode || old.Incarnation == now.Incarnation) {
		return "gets a number although its tenant is stopped"
	}
	return ""
}

// asked reports whether an operator has asked for the shard to be where it comes to.
func (s *step) asked() bool {
	to := s.now.Attached
	return s.now.PlacedOn == to &&
		(s.old.PlacedOn != to || s.now.PlacedAt != s.old.PlacedAt) ||
		s.old.Insisted && s.old.PreferredNode == to
}

// ever reports whether something holds for a node before the entry or after it: one entry
// may hold several commands.
func (s *step) ever(id neon.NodeID, holds func(*fsm.Node) bool) bool {
	old, _ := s.was.Node(id)
	now, _ := s.is.Node(id)
	return holds(&old) || holds(&now)
}

// lost reports whether the shard cannot be where it was.
func (s *step) lost() bool {
	return s.ever(s.old.Attached, func(n *fsm.Node) bool {
		return n.ID == 0 || n.Tombstone || n.Availability == neon.NodeOffline
	})
}

// served reports whether compute used the shard where it was.
func (s *step) served() bool {
	return s.old.GenNode == s.old.Attached && s.old.ComputeAcknowledged
}

func (s *step) pinned() bool { return s.tenantWas.Pinned() && s.tenantIs.Pinned() }

func (s *step) scheduling(is neon.ShardScheduling) bool {
	return s.tenantWas.Scheduling == is && s.tenantIs.Scheduling == is
}

// operated reports whether the shard moves for one of some operations, or a fill.
func (s *step) operated(kinds ...fsm.OperationKind) bool {
	for _, kind := range kinds {
		if s.ever(s.old.Attached, func(n *fsm.Node) bool { return n.Operation.Kind == kind }) {
			return true
		}
	}
	return s.ever(s.now.Attached,
		func(n *fsm.Node) bool { return n.Operation.Kind == fsm.OperationFill })
}

// voluntary reports whether the shard has moved for an even load or a better place.
func (s *step) voluntary() bool {
	return s.old.Attached != 0 && s.now.Attached != 0 && s.old.Attached != s.now.Attached &&
		!s.old.Unmanaged && !s.now.Unmanaged && !s.asked() && !s.lost() && s.served() &&
		s.scheduling(neon.ShardActive) && s.tenantWas.Policy == s.tenantIs.Policy &&
		!s.operated(fsm.OperationDrain, fsm.OperationDelete) &&
		s.ever(s.old.Attached, func(n *fsm.Node) bool { return n.Schedulable() })
}

// placesOf is where everything is, in words.
func placesOf(s *fsm.State) string {
	var b strings.Builder
	for n := range s.Nodes() {
		fmt.Fprintf(&b, "node %s in %s %s %s has %+v\n", n.ID, n.AZ, n.Scheduling,
			n.Availability, s.Counts(n.ID))
	}
	for sh := range s.ShardsFrom(neon.ShardID{}) {
		t, _ := s.Tenant(sh.ID.Tenant)
		fmt.Fprintf(&b, "%s %s %s, home %q, on %s and %v, prefers %s, owes %v\n", sh.ID,
			t.Scheduling, t.Policy, sh.PreferredAZ, sh.Attached, sh.Secondary, sh.PreferredNode,
			sh.OwesNotification())
	}
	return b.String()
}
