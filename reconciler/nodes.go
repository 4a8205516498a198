package reconciler

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/failpoint"
	"quorate/internal/wait"
	"quorate/reconciler/observed"
	"quorate/reconciler/plan"
	"quorate/reconciler/queue"
)

// A healthy node is listed again now and then, to find what a late call may have
// changed behind our back. A listing of 10,000 locations costs the leader about
// 60 ms; relistShare lets the nodes of a fleet with more than 60,000 in all be listed less
// often, so that the cost for each second has a bound. A node to which a call has failed is
// not made to wait for that: only as long as its own locations, by doubtShare, make it.
const (
	relistInterval = time.Minute
	relistShare    = time.Millisecond      // for each location of the fleet
	doubtShare     = 20 * time.Millisecond // for each location of the node

	// doubtTime is how long after a call that failed its late effect is looked for.
	doubtTime = 10 * time.Minute
)

// nodeWatch asks every node for signs of life, turns them into proposed verdicts
// and lists the locations of those that came (back).
type nodeWatch struct {
	ctx        context.Context
	opts       Options
	log        decide.Log
	prober     Prober
	failpoints failpoint.Points
	logger     *slog.Logger
	seen       *observed.Locations
	strays     *strays
	lister     *lister
	queue      waker
	unsettled  *unsettled
	report     *report
	answers    *answers
	began      time.Time
	known      atomic.Bool // the nodes of the state were looked at

	progress  wait.Broadcast // a probe has ended
	rulesWake wait.Signal    // the rules have to look: a node changed
	looks     wait.Signal    // a node may have to be probed sooner
	wg        sync.WaitGroup

	mu    sync.Mutex
	watch map[neon.NodeID]*watched
}

// waker makes sure that shards are looked at.
type waker interface {
	Wake(p queue.Priority, ids ...neon.ShardID)
}

// watched is what the leader remembers of one node. The lock of the nodeWatch guards
// all of it.
type watched struct {
	last        fsm.Node // as of the last look at the state
	lastSuccess time.Time
	since       time.Time   // when the present availability was first seen here
	falls       []time.Time // when it was lost or restarted, in the last hour
	noted       time.Time   // when the log was last told of its silence
	due         time.Time
	busy        bool               // a probe is under way
	endListing  context.CancelFunc // ends the listing under way; nil for none
	probed      bool
	failing     bool
	failures    int   // in a row
	listErr     error // of the last listing
	listedAt    time.Time
	relist      time.Duration // after listedAt
	relistSoon  time.Duration // the same, in doubt
	doubted     time.Time     // when a call failed that may still be carried out
	utilization *neon.Utilization
	full        bool           // its disk is being relieved
	waiting     []neon.ShardID // to be woken by the listing
	downs       map[int]context.CancelFunc
	nextDown    int
}

func newNodeWatch(
	ctx context.Context, d Deps, seen *observed.Locations, s *strays, r *report,
) *nodeWatch {
	w := &nodeWatch{
		ctx: ctx, opts: d.Options, log: d.Log, prober: d.Prober, failpoints: d.Failpoints,
		logger: d.Logger, seen: seen, strays: s, report: r, began: time.Now(),
		lister:    &lister{log: d.Log, locations: d.Locations},
		rulesWake: wait.NewSignal(), looks: wait.NewSignal(), watch: make(map[neon.NodeID]*watched),
	}
	w.answers = newAnswers(d, w.wakeRules)
	return w
}

// looksWhenCalm is how often the nodes are looked at, at the least. Only what takes a second
// or longer to be noticed may depend on it.
const looksWhenCalm = time.Second

// run probes what is due and judges, until the term ends.
func (w *nodeWatch) run() {
	for {
		w.probeDue()
		w.judge()
		w.answers.look()
		tick := time.NewTimer(w.nextLook())
		select {
		case <-w.ctx.Done():
			tick.Stop()
			w.wg.Wait()
			return
		case <-w.looks:
		case <-tick.C:
		}
		tick.Stop()
	}
}

// nextLook is when to look again. While all nodes answer and no call is under way, nothing
// happens before the next heartbeat is due. What changes a node wakes.
func (w *nodeWatch) nextLook() time.Duration {
	soon := min(250*time.Millisecond, max(w.opts.HeartbeatInterval/4, 10*time.Millisecond))
	if !w.answers.calm() {
		return soon
	}
	next := max(soon, looksWhenCalm)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.watch {
		if e.failing || e.busy || !e.probed || !e.last.Available() {
			return soon
		}
		next = min(next, max(time.Until(e.due), soon/25))
	}
	return next
}

// changed compares the nodes of the state with what was known of them, and has
// everything looked at that depends on what is new. A caller that has to know now may
// call it too.
func (w *nodeWatch) changed() {
	w.mu.Lock()
	st := w.log.State() // under the lock, so that no caller compares an older one later
	d := w.compare(st)
	w.known.Store(true)
	w.mu.Unlock()
	w.looks.Set()
	for _, id := range d.deleted {
		w.seen.DropNode(id)
	}
	for _, id := range d.restarted {
		w.seen.ForgetNode(id)
		w.answers.forget(id)
	}
	for _, id := range d.woken {
		w.answers.forget(id)
		w.wakeNode(st, id)
	}
	w.queue.Wake(queue.Normal, d.stranded...)
	// Not only the shards that are meant to be on a node: what else was seen there can be
	// taken away once it is available, and migrations from there need not wait for compute
	// any more once it is not.
	for _, id := range d.woken {
		w.queue.Wake(queue.Normal, w.seen.AnyOn(id)...)
	}
	for _, id := range d.downed {
		w.queue.Wake(queue.Normal, w.seen.AttachedOn(id)...)
	}
	w.wakeRules()
}

// differences are what is new about nodes.
type differences struct {
	restarted []neon.NodeID // their process is another one
	woken     []neon.NodeID // available now
	downed    []neon.NodeID // not available any more, or restarted
	deleted   []neon.NodeID
	stranded  []neon.ShardID // wait for a listing that does not come
}

// compare takes over the nodes of a state. The caller holds the lock.
func (w *nodeWatch) compare(st *fsm.State) (d differences) {
	alive := make(map[neon.NodeID]bool)
	for n := range st.Nodes() {
		alive[n.ID] = true
		w.compareNode(st, n, &d)
	}
	for id, e := range w.watch {
		if !alive[id] {
			e.cancelCalls()
			if e.endListing != nil {
				e.endListing()
			}
			delete(w.watch, id)
			d.deleted = append(d.deleted, id)
			d.stranded = append(d.stranded, e.waiting...)
		}
	}
	return d
}

func (w *nodeWatch) compareNode(st *fsm.State, n *fsm.Node, d *differences) {
	e, now := w.watch[n.ID], time.Now()
	if e == nil {
		w.watch[n.ID] = &watched{
			last: *n, since: now, due: now, downs: make(map[int]context.CancelFunc),
		}
		if n.Availability == neon.NodeOffline {
			w.wentAway(st, n.ID)
		}
		return
	}
	last := e.last
	e.last = *n
	restarted := last.Incarnation != n.Incarnation
	if restarted {
		d.restarted = append(d.restarted, n.ID)
		e.listErr, e.due = nil, now
		e.failures, e.noted = 0, time.Time{} // it is not the one that did not answer
		if e.endListing != nil {
			e.endListing() // it would be one of the process that is gone
		}
	}
	if last.Availability != n.Availability || restarted {
		e.since = now
	}
	if last.Available() && (!n.Available() || restarted) {
		e.fell(now)
		e.cancelCalls()
		d.downed = append(d.downed, n.ID)
		d.stranded, e.waiting = append(d.stranded, e.waiting...), nil
	}
	spared := plan.Forced(last.Operation) && !plan.Forced(n.Operation)
	if n.Available() && (!last.Available() || spared) {
		d.woken = append(d.woken, n.ID)
	}
	if n.Availability == neon.NodeOffline && last.Availability != neon.NodeOffline {
		w.wentAway(st, n.ID)
	}
	w.logTransition(&last, n)
}

// cancelCalls ends the calls to a node that are under way.
func (e *watched) cancelCalls() {
	for _, cancel := range e.downs {
		cancel()
	}
}

// wakeRules has the rules looked at.
func (w *nodeWatch) wakeRules() { w.rulesWake.Set() }

func (w *nodeWatch) logTransition(last, n *fsm.Node) {
	switch {
	case last.Availability == n.Availability:
	case n.Availability == neon.NodeOffline:
		w.logger.Info("node " + n.ID.String() + " going offline")
	case n.Availability == neon.NodeActive:
		w.logger.Info("Node " + n.ID.String() + " transition to active")
	}
}

// wakeNode makes every shard that has to do with a node be looked at.
func (w *nodeWatch) wakeNode(st *fsm.State, id neon.NodeID) {
	for sh := range st.NodeShards(id) {
		w.queue.Wake(queue.Normal, sh.ID)
	}
}

// wentAway notes which shards have a location on a node that went offline.
func (w *nodeWatch) wentAway(st *fsm.State, id neon.NodeID) {
	for sh := range st.NodeShards(id) {
		w.report.wentAway(sh.ID, id)
	}
}

// onDown registers a cancel for the moment a node stops being available or its
// process is replaced; the returned function takes it back.
func (w *nodeWatch) onDown(n neon.NodeID, cancel context.CancelFunc) (stop func()) {
	if now, ok := w.log.State().Node(n); ok && now.Available() && !w.available(n) {
		w.changed() // it was decided on a state that has not been looked at here
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.watch[n]
	if e == nil || !e.last.Available() {
		cancel()
		return func() {}
	}
	k := e.nextDown
	e.nextDown++
	e.downs[k] = cancel
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(e.downs, k)
	}
}

// doubt notes that a call to a node failed and may be carried out later.
func (w *nodeWatch) doubt(n neon.NodeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.watch[n]; e != nil {
		e.doubted = time.Now()
	}
}

// stale reports whether the node has to be listed again. Where nodes are listed in doubt only,
// a call to it must have failed. Calls of the leader before, which this one does not know of,
// may be carried out after the term began.
func (e *watched) stale(now, began time.Time, inDoubt bool) bool {
	failed := !e.doubted.IsZero() && now.Sub(e.doubted) < doubtTime
	if inDoubt && !failed {
		return false
	}
	after := e.relist
	if failed || now.Sub(began) < doubtTime {
		after = min(after, e.relistSoon)
	}
	return now.Sub(e.listedAt) > after
}

func (w *nodeWatch) available(n neon.NodeID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.watch[n]
	return e != nil && e.last.Available()
}

// offlineFor is how long this leader has seen a node be Offline.
func (w *nodeWatch) offlineFor(n neon.NodeID) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.watch[n]; e != nil && e.last.Availability == neon.NodeOffline {
		return time.Since(e.since)
	}
	return 0
}

// unlisted names a node that may have anything, or is "": an available one that was
// not listed in this term. One that has re-attached since can hold nothing but what it
// had before.
func (w *nodeWatch) unlisted(st *fsm.State) string {
	for n := range st.Nodes() {
		inc, ok := w.seen.ListedAt(n.ID)
		switch n.Availability {
		case neon.NodeActive:
			ok = ok && inc == n.Incarnation
		case neon.NodeWarmingUp:
			ok = w.seen.EverListed(n.ID)
		default:
			ok = true
		}
		if !ok {
			return w.whyUnlisted(n.ID)
		}
	}
	return ""
}

func (w *nodeWatch) whyUnlisted(n neon.NodeID) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.watch[n]; e != nil && e.listErr != nil {
		return fmt.Sprintf("node %d was not listed yet: %v", n, e.listErr)
	}
	return fmt.Sprintf("node %d was not listed yet", n)
}

// firstRound waits until every node answered or failed once and those that are
// available were listed, for a bounded time.
func (w *nodeWatch) firstRound() {
	w.awaitProgress(w.opts.StartScanTimeout, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for id, e := range w.watch {
			inc, ok := w.seen.ListedAt(id)
			listed := ok && inc == e.last.Incarnation
			if !e.probed || !e.failing && e.listErr == nil && (!listed || e.endListing != nil) {
				return false
			}
		}
		return true
	})
}

// awaitProgress waits until something holds, for a bounded time. It is looked at whenever a
// probe has ended.
func (w *nodeWatch) awaitProgress(atMost time.Duration, holds func() bool) {
	limit := time.NewTimer(atMost)
	defer limit.Stop()
	for {
		progress := w.progress.Changed()
		if holds() {
			return
		}
		select {
		case <-progress:
		case <-limit.C:
			return
		case <-w.ctx.Done():
			return
		}
	}
}
