package simsafekeeper

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"quorate/api/neon"
)

// Fleet is some safekeepers and what is known of the timelines on them.
type Fleet struct {
	mu    sync.Mutex
	nodes map[neon.NodeID]*Node

	// committed is what the controllers' log says, by timeline, newest last.
	committed map[neon.TimelineRef]*record
	watching  bool // Commit was called
	index     uint64
	safe      map[neon.TimelineRef]position // what a quorum has once had
	terms     map[neon.TimelineRef]uint64   // of the last compute of Write
	wrong     []string
}

// record is one timeline in the controllers' log.
type record struct {
	confs   map[neon.SafekeeperGeneration]neon.Membership
	newest  neon.Membership
	deleted bool
}

// position is how far a log reaches. A later term is further, whatever the LSN.
type position struct {
	term uint64
	lsn  neon.Lsn
}

func (p position) compare(o position) int {
	return cmp.Or(cmp.Compare(p.term, o.term), cmp.Compare(p.lsn, o.lsn))
}

// NewFleet makes a fleet without safekeepers.
func NewFleet() *Fleet {
	return &Fleet{
		nodes: make(map[neon.NodeID]*Node), committed: make(map[neon.TimelineRef]*record),
		safe: make(map[neon.TimelineRef]position), terms: make(map[neon.TimelineRef]uint64),
	}
}

// Listen opens a listener; it is called at each start.
type Listen func() (net.Listener, error)

// Add adds a safekeeper that does not run yet. A token, unless empty, must come
// with every request.
func (f *Fleet) Add(id neon.NodeID, token string, listen Listen) *Node {
	n := &Node{
		id: id, fleet: f, listen: listen, token: token,
		timelines:  make(map[neon.TimelineRef]*timeline),
		tombstones: make(map[neon.TimelineRef]neon.SafekeeperGeneration),
		tenants:    make(map[neon.TenantID]bool),
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nodes[id] = n
	return n
}

// Node finds a safekeeper; nil if there is none.
func (f *Fleet) Node(id neon.NodeID) *Node {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.nodes[id]
}

// Nodes lists all safekeepers by id.
func (f *Fleet) Nodes() []*Node {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*Node
	for _, n := range f.nodes {
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b *Node) int { return cmp.Compare(a.id, b.id) })
	return all
}

// Close ends all safekeepers.
func (f *Fleet) Close() {
	for _, n := range f.Nodes() {
		n.Kill()
	}
}

// Committed is one timeline as the controllers' log has it.
type Committed struct {
	Ref     neon.TimelineRef
	Conf    neon.Membership
	Deleted bool
}

// Commit says what the log of the controllers holds at an index, before any of them
// acts on it. Replicas that lag behind may say so too late and are not heard.
func (f *Fleet) Commit(index uint64, all []Committed) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watching = true; index <= f.index {
		for _, c := range all {
			if f.committed[c.Ref] == nil {
				f.fail("I27: the log was heard up to entry %d, and now has timeline %s at %d",
					f.index, c.Ref, index)
			}
		}
		return
	}
	f.index = index
	here := make(map[neon.TimelineRef]bool)
	for _, c := range all {
		here[c.Ref] = true
		r := f.committed[c.Ref]
		if r == nil || r.deleted && !c.Deleted {
			r = &record{confs: make(map[neon.SafekeeperGeneration]neon.Membership)}
			f.committed[c.Ref] = r
			delete(f.safe, c.Ref)
		}
		f.record(c.Ref, r, c.Conf)
		r.deleted = c.Deleted
	}
	for ref, r := range f.committed {
		if !here[ref] {
			r.deleted = true
		}
	}
}

func (f *Fleet) record(ref neon.TimelineRef, r *record, conf neon.Membership) {
	was, known := r.confs[conf.Generation]
	switch {
	case known && !same(was, conf):
		f.fail("I28: generation %d of timeline %s is committed as %s and as %s", conf.Generation,
			ref, show(was), show(conf))
	case conf.Generation < r.newest.Generation:
		f.fail("I27: timeline %s fell from generation %d to %d", ref, r.newest.Generation,
			conf.Generation)
	}
	if old := r.newest; !known && old.NewMembers != nil && conf.NewMembers == nil &&
		sameMembers(conf.Members, *old.NewMembers) {
		f.durable(ref, conf.Members)
	}
	r.confs[conf.Generation], r.newest = conf, conf
}

// durable demands that a quorum of the members has all that a quorum once had.
func (f *Fleet) durable(ref neon.TimelineRef, members []neon.SafekeeperMember) {
	want, have := f.safe[ref], 0
	for _, m := range members {
		if n := f.nodes[m.ID]; n != nil && n.timelines[ref] != nil &&
			n.timelines[ref].at.compare(want) >= 0 {
			have++
		}
	}
	if have < len(members)/2+1 {
		f.fail("I29: timeline %s was moved to %v, of which %d have the log up to %s", ref,
			ids(members), have, want.lsn)
	}
}

// checkSent checks a configuration that a controller sent to a safekeeper.
func (f *Fleet) checkSent(ref neon.TimelineRef, conf *neon.Membership) {
	if !f.watching || conf == nil {
		return
	}
	r := f.committed[ref]
	if r == nil {
		f.fail(
			"I27: timeline %s in generation %d was sent and is not committed, the log was heard up to entry %d",
			ref, conf.Generation, f.index)
		return
	}
	if was, ok := r.confs[conf.Generation]; !ok || !same(was, *conf) {
		f.fail("I27: timeline %s was sent %s, which was not committed", ref, show(*conf))
	}
}

// checkDelete checks the order to drop a timeline for good.
func (f *Fleet) checkDelete(id neon.NodeID, ref neon.TimelineRef) {
	if r := f.committed[ref]; f.watching && r != nil && !r.deleted {
		f.fail("I29: safekeeper %s was told to delete timeline %s, which is not deleted", id, ref)
	}
}

func (f *Fleet) fail(format string, args ...any) {
	if len(f.wrong) < 100 {
		f.wrong = append(f.wrong, fmt.Sprintf(format, args...))
	}
}

// Err is what must not have happened; nil if nothing did.
func (f *Fleet) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.wrong) == 0 {
		return nil
	}
	return errors.New(strings.Join(f.wrong, "\n"))
}

// Append extends the log of a timeline on some safekeepers, as a compute of a term
// does, and remembers what is on a quorum of the configuration.
func (f *Fleet) Append(ref neon.TimelineRef, term uint64, by neon.Lsn, on ...neon.NodeID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var last position
	for _, id := range on {
		if t := f.nodes[id].timelines[ref]; t != nil && t.at.lsn > last.lsn {
			last.lsn = t.at.lsn
		}
	}
	last.term, last.lsn = term, last.lsn+by
	var has []neon.NodeID
	for _, id := range on {
		if t := f.nodes[id].timelines[ref]; t != nil {
			t.at = last
			has = append(has, id)
		}
	}
	r := f.committed[ref]
	if r == nil || !quorum(r.newest.Members, has) ||
		r.newest.NewMembers != nil && !quorum(*r.newest.NewMembers, has) {
		return
	}
	if f.safe[ref].compare(last) < 0 {
		f.safe[ref] = last
	}
}

func quorum(members []neon.SafekeeperMember, has []neon.NodeID) bool {
	n := 0
	for _, m := range members {
		if slices.Contains(has, m.ID) {
			n++
		}
	}
	return n >= len(members)/2+1
}

func ids(members []neon.SafekeeperMember) (list []neon.NodeID) {
	for _, m := range members {
		list = append(list, m.ID)
	}
	return list
}

func same(a, b neon.Membership) bool {
	if a.Generation != b.Generation || !sameMembers(a.Members, b.Members) ||
		(a.NewMembers == nil) != (b.NewMembers == nil) {
		return false
	}
	return a.NewMembers == nil || sameMembers(*a.NewMembers, *b.NewMembers)
}

// sameMembers compares the ids: where a safekeeper is reached may change.
func sameMembers(a, b []neon.SafekeeperMember) bool { return slices.Equal(ids(a), ids(b)) }

func show(m neon.Membership) string {
	if m.NewMembers == nil {
		return fmt.Sprintf("%d:%v", m.Generation, ids(m.Members))
	}
	return fmt.Sprintf("%d:%v->%v", m.Generation, ids(m.Members), ids(*m.NewMembers))
}
