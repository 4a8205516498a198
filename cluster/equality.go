package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// callPoints asks for all points of a server; see points.encode.
const callPoints byte = 0x20

// equality compares the states of the replicas at equal index, all the time. A replica
// whose state is not that of a majority of the voters is out of service: it answers no
// reads, does not lead, and replaces its state by that of the majority (see mend). While
// no majority can be asked, a replica that differs from its leader is out of service
// too, and keeps its state, since nobody knows which of the two is right.
type equality struct {
	c       *Cluster
	points  *points
	verdict atomic.Pointer[divergence] // nil: in service
	mended  atomic.Uint64
	wake    chan struct{} // cap 1: a difference was seen, or may be over

	// seenAt is the newest index at which another server had another hash.
	seenAt atomic.Uint64

	// Only run uses these.
	snapshotOwed bool
	mendPause    time.Duration
	mendNext     time.Time
}

// comparison is the newest one with a member.
type comparison struct {
	at    uint64
	equal bool
}

// divergence says since which index this server is out of service.
type divergence struct {
	index   uint64
	settled bool     // a majority has another state
	sources []string // who has it
}

func (d *divergence) Error() string {
	if d.settled {
		return fmt.Sprintf("its state at index %d is not that of the majority", d.index)
	}
	return fmt.Sprintf("its state at index %d is not that of the leader, "+
		"and no majority can be asked which is right", d.index)
}

func newEquality(c *Cluster, p *points) *equality {
	return &equality{c: c, points: p, wake: make(chan struct{}, 1)}
}

// sound reports whether this server may answer reads and lead.
func (e *equality) sound() bool { return e.verdict.Load() == nil }

// diverged says why this server is out of service; "" when it is not.
func (e *equality) diverged() string {
	if d := e.verdict.Load(); d != nil {
		return d.Error()
	}
	return ""
}

// hear compares what the member at the other end of a link has just reported.
func (e *equality) hear(l *link, r peerReport) {
	e.c.fsm.look()
	at, equal, known := e.points.compare(r.Scheme, r.Points)
	if known {
		l.compared.Store(&comparison{at, equal})
	}
	if known && !equal && at > e.seenAt.Load() {
		e.seenAt.Store(at) // two that race tell nearly the same index
	}
	if known && !equal || !e.sound() {
		select {
		case e.wake <- struct{}{}:
		default:
		}
	}
}

// run looks into differences until ctx ends.
func (e *equality) run(ctx context.Context) {
	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	for {
		select {
		case <-e.wake:
			e.examine(ctx)
		case <-tick.C:
			if e.snapshotOwed {
				e.snapshot()
			}
		case <-ctx.Done():
			return
		}
	}
}

// examine asks every voter for its points and decides about this server.
func (e *equality) examine(ctx context.Context) {
	_, leader := e.c.raft.LeaderWithID()
	old := e.verdict.Load()
	q := question{self: e.c.id, leader: string(leader), old: old, least: e.seenAt.Load()}
	if old != nil {
		q.least = old.index
	}
	q.hashes = e.ask(ctx)
	for _, s := range e.c.servers() {
		if s.Suffrage == raft.Voter {
			q.voters = append(q.voters, string(s.ID))
		}
	}
	next, known := q.judge()
	if !known && old != nil && old.settled {
		next, known = old, true
	}
	if !known || ctx.Err() != nil {
		return
	}
	e.decide(next)
	if next != nil && next.settled && !e.giveWay(ctx) {
		e.mend(ctx, next)
	}
}

// decide puts this server out of service, or back.
func (e *equality) decide(next *divergence) {
	old := e.verdict.Swap(next)
	e.c.leadership.refresh(fmt.Errorf("%w: %w", ErrLeadershipLost, ErrDiverged))
	switch {
	case old == nil && next != nil:
		e.c.log.Error("this replica is out of service: "+next.Error(), "index", next.index)
	case old != nil && next == nil:
		e.c.log.Info("this replica is back in service: its state is equal again",
			"index", e.c.fsm.applied.index())
	}
}

// giveWay hands the lead over; it reports whether there was something to hand over.
func (e *equality) giveWay(ctx context.Context) bool {
	if e.c.raft.State() != raft.Leader {
		return false
	}
	if err := e.c.TransferLeadership(ctx, ""); err != nil {
		e.c.log.Info("giving way again, since the state here is wrong", "err", err)
	}
	return true
}

// ask fetches the points of all members, those of this server included, as far as they
// come in time and can be compared with ours.
func (e *equality) ask(ctx context.Context) map[string]map[uint64]uint64 {
	ctx, cancel := context.WithTimeout(ctx, reportInterval/2)
	defer cancel()
	type answer struct {
		id   string
		body []byte
	}
	answers := make(chan answer, maxServers)
	asked := 0
	for _, s := range e.c.servers() {
		id := string(s.ID)
		l := e.c.peers.link(id)
		if l == nil || asked == cap(answers) {
			continue
		}
		if e.c.background.Go(func() {
			body, err := l.call(ctx, callPoints, nil)
			if err != nil {
				body = nil
			}
			answers <- answer{id, body}
		}) {
			asked++
		}
	}
	hashes := make(map[string]map[uint64]uint64)
	schemes := make(map[string]uint64)
	for ; asked > 0; asked-- {
		a := <-answers // call ends with ctx at the latest
		if scheme, byIndex, err := decodePoints(a.body); err == nil {
			hashes[a.id], schemes[a.id] = byIndex, scheme
		}
	}
	e.c.fsm.look()
	mine, own := e.points.all()
	for id, scheme := range schemes {
		if scheme != mine {
			delete(hashes, id)
		}
	}
	hashes[e.c.id] = own
	return hashes
}

// question is what a decision is made from.
type question struct {
	self, leader string
	voters       []string
	least        uint64                       // older points prove nothing
	hashes       map[string]map[uint64]uint64 // of each server that answered, by index
	old          *divergence
}

// judge decides whether the server itself has diverged; known is false when what it
// has heard says nothing about that.
func (q *question) judge() (d *divergence, known bool) {
	at, others := q.common()
	if others == 0 {
		return nil, false
	}
	mine := q.hashes[q.self][at]
	same := make(map[uint64][]string) // voters by hash
	for _, id := range q.voters {
		if hash, ok := q.hashes[id][at]; ok {
			same[hash] = append(same[hash], id)
		}
	}
	for hash, holders := range same {
		if len(holders) <= len(q.voters)/2 {
			continue
		}
		if hash == mine {
			return nil, true
		}
		// The leader first: it has everything.
		slices.SortStableFunc(holders, func(a, b string) int {
			return boolInt(b == q.leader) - boolInt(a == q.leader)
		})
		return &divergence{index: at, settled: true, sources: holders}, true
	}
	// There is no majority. What one has said before holds until another says otherwise.
	leaders, heard := q.hashes[q.leader][at]
	switch {
	case q.old != nil && q.old.settled:
		return q.old, true
	case q.leader == q.self, heard && leaders == mine:
		return nil, true
	case heard:
		return &divergence{index: at}, true
	}
	return nil, false
}

// common is the index at which most voters can be compared with the server itself, the
// newest if there are several, and how many voters beside it that are.
func (q *question) common() (at uint64, others int) {
	for index := range q.hashes[q.self] {
		n := 0
		for _, id := range q.voters {
			if _, ok := q.hashes[id][index]; ok && id != q.self {
				n++
			}
		}
		if index >= q.least && (n > others || n == others && index > at) {
			at, others = index, n
		}
	}
	return at, others
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
