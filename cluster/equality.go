package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"quorate/internal/wait"
)

// callPoints asks for all points of a server; see points.encode.
const callPoints byte = 0x20

// An examination is repeated until all voters that answer can be compared at one index:
// under load they keep points at different ones.
const (
	examineTries = 6
	examinePause = 100 * time.Millisecond
)

// equality compares the states of the replicas at equal index, all the time. A replica
// whose state is not that of a majority of the voters is out of service: it answers no
// reads, does not lead, and replaces its state by that of the majority (see mend). While
// no majority can be asked, nobody knows which of two that differ is right. Then both are
// out of service, also the leader, and keep their states: what a wrong leader answers and
// decides cannot be taken back.
type equality struct {
	node       *raftNode
	peers      *peers
	background *group
	fsm        *fsm
	leadership *leadership
	transfer   *transfer
	log        *slog.Logger

	verdict atomic.Pointer[divergence] // nil: in service
	mended  atomic.Uint64
	wake    wait.Signal // a difference was seen, or may be over

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
	index     uint64
	confirmed bool     // a majority has another state
	sources   []string // who has it
	other     string   // while it is not confirmed: a voter that differs
}

func (d *divergence) Error() string {
	if d.confirmed {
		return fmt.Sprintf("its state at index %d is not that of the majority", d.index)
	}
	return fmt.Sprintf("its state at index %d is not that of %s, and no majority can be asked "+
		"which is right: start the missing members, or restart these two, one after the other, "+
		"since each then makes its state anew of what is on its disk", d.index, d.other)
}

// sound reports whether nobody is known to have another state.
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
	e.fsm.look()
	at, equal, known := e.fsm.points.compare(r.Scheme, r.Points)
	if known {
		l.compared.Store(&comparison{at, equal})
	}
	if known && !equal && at > e.seenAt.Load() {
		e.seenAt.Store(at) // two that race tell nearly the same index
	}
	if known && !equal || !e.sound() {
		e.wake.Set()
	}
}

// wrong reports whether a majority was found to have another state.
func (e *equality) wrong() bool {
	d := e.verdict.Load()
	return d != nil && d.confirmed
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
	old := e.verdict.Load()
	q := question{self: e.node.id, leader: e.node.leader(), old: old, least: e.seenAt.Load()}
	if old != nil {
		q.least = old.index
	}
	for _, s := range e.node.servers() {
		if id := string(s.ID); s.Suffrage == raft.Voter {
			q.voters = append(q.voters, id)
			if r := e.peers.report(id); r != nil && r.Wrong {
				q.wrong = append(q.wrong, id)
			}
		}
	}
	var next *divergence
	var known bool
	for try := 1; ; try++ {
		q.hashes = e.ask(ctx)
		next, known = q.judge()
		if try == examineTries || next != nil && next.confirmed {
			break
		}
		// A leader stops for another opinion only when nobody who is there is left to ask.
		hasty := next != nil && q.leader == q.self
		if q.complete() && !(hasty && e.someSilent(&q)) {
			break
		}
		if next != nil && !hasty {
			e.decide(next)
		}
		if wait.Sleep(ctx, examinePause) != nil {
			return
		}
	}
	if !known && old != nil && old.confirmed {
		next, known = old, true
	}
	if !known || ctx.Err() != nil {
		return
	}
	e.decide(next)
	if next != nil && next.confirmed && !e.giveWay(ctx) {
		e.mend(ctx, next)
	}
}

// someSilent reports whether a voter is connected and has not answered, or not so that it
// could be compared.
func (e *equality) someSilent(q *question) bool {
	return slices.ContainsFunc(q.voters, func(id string) bool {
		l := e.peers.link(id)
		return id != q.self && len(q.hashes[id]) == 0 && l != nil && l.up()
	})
}

// complete reports whether all voters that have answered can be compared at one index.
func (q *question) complete() bool {
	answered := 0
	for _, id := range q.voters {
		if len(q.hashes[id]) > 0 && id != q.self {
			answered++
		}
	}
	_, others := q.common()
	return others == answered
}

// decide puts this server out of service, or back.
func (e *equality) decide(next *divergence) {
	old := e.verdict.Swap(next)
	e.leadership.refresh(fmt.Errorf("%w: %w", ErrLeadershipLost, ErrDiverged))
	switch {
	case old == nil && next != nil:
		e.log.Error("this replica is out of service: "+next.Error(), "index", next.index)
	case old != nil && next == nil:
		e.log.Info("this replica is back in service: its state is equal again",
			"index", e.fsm.applied.index())
	}
}

// giveWay hands the lead over; it reports whether there was something to hand over.
func (e *equality) giveWay(ctx context.Context) bool {
	if !e.node.leads() {
		return false
	}
	if err := e.transfer.handOver(ctx, ""); err != nil {
		e.log.Info("giving way again, since the state here is wrong", "err", err)
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
	for _, s := range e.node.servers() {
		id := string(s.ID)
		l := e.peers.link(id)
		if l == nil || asked == cap(answers) {
			continue
		}
		if e.background.Go(func() {
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
	e.fsm.look()
	mine, own := e.fsm.points.all()
	for id, scheme := range schemes {
		if scheme != mine {
			delete(hashes, id)
		}
	}
	hashes[e.node.id] = own
	return hashes
}

// question is what a decision is made from.
type question struct {
	self, leader string
	voters       []string
	wrong        []string                     // those that have another state than a majority
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
		return &divergence{index: at, confirmed: true, sources: holders}, true
	}
	// There is no majority. What one has said before holds until another says otherwise.
	leaders, heard := q.hashes[q.leader][at]
	switch {
	case q.old != nil && q.old.confirmed:
		return q.old, true
	case q.leader == q.self:
		if other := q.contradiction(at); other != "" {
			return &divergence{index: at, other: other}, true
		}
		return nil, true
	case heard && leaders == mine:
		return nil, true
	case heard:
		return &divergence{index: at, other: q.leader}, true
	}
	return nil, false
}

// contradiction is a voter with another hash than this server, "" if there is none. One
// that knows itself to be wrong, since a majority said so, does not count.
func (q *question) contradiction(at uint64) string {
	for _, id := range q.voters {
		hash, ok := q.hashes[id][at]
		if ok && hash != q.hashes[q.self][at] && !slices.Contains(q.wrong, id) {
			return id
		}
	}
	return ""
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

// answer is the answer to callPoints.
func (e *equality) answer() []byte {
	e.fsm.look()
	return e.fsm.points.encode()
}

// fitness is the verdict on this server: its disk, the equality of its state, and that it
// does not serve in the place of another cluster.
type fitness struct {
	disk     diskHealth
	equality *equality
	former   *former
}

// refusal is why this server answers nothing although its disk works, or nil.
func (f fitness) refusal() error {
	if why := f.former.reason(); why != "" {
		return fmt.Errorf("%w: %s", ErrFormerMember, why)
	}
	if why := f.equality.diverged(); why != "" {
		return fmt.Errorf("%w: %s", ErrDiverged, why)
	}
	return nil
}

func (f fitness) Works() bool { return f.disk.Works() && f.refusal() == nil }
func (f fitness) Fit() bool   { return f.disk.Fit() && f.refusal() == nil }

// standing is fitness for an election. A server of which nobody knows whether its state is
// right may win one: it acts not as a leader, but those that come back get the log from it,
// and then a majority can say who is right.
type standing fitness

func (s standing) Works() bool { return s.disk.Works() && s.mayWin() }
func (s standing) Fit() bool   { return s.disk.Fit() && s.mayWin() }

func (s standing) mayWin() bool { return !s.equality.wrong() && s.former.reason() == "" }
