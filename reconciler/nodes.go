package reconciler

import (
	"context"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/reconciler/plan"
)

// A healthy node is listed again now and then, to find what a late call may have
// changed behind our back. A listing of 10,000 locations costs the leader about
// 30 ms; relistShare lets a node with more than 3,000 be listed less often, so that
// the cost for each second has a bound.
const (
	relistInterval = time.Minute
	relistShare    = 20 * time.Millisecond // for each location

	// doubtTime is how long after a call that failed its late effect is looked for
	// where nodes are not listed again without a reason.
	doubtTime = 10 * time.Minute
)

// provingFailures is how many heartbeats in a row must have failed for a verdict: one
// that was under way while this process was frozen says nothing about the node.
const provingFailures = 2

// retryProbe is the pause between heartbeats while a node does not answer.
const retryProbe = 500 * time.Millisecond

// nodeWatch asks every node for signs of life, turns them into proposed verdicts
// and lists the locations of those that came (back).
type nodeWatch struct {
	*term
	began time.Time

	mu    sync.Mutex
	watch map[neon.NodeID]*watched

	// progress is closed and replaced whenever a probe ends.
	progress chan struct{}

	// moved tells the rules that a node changed.
	moved chan struct{}
	wg    sync.WaitGroup
}

// watched is what the leader remembers of one node.
type watched struct {
	last        fsm.Node // as of the last look at the state
	lastSuccess time.Time
	since       time.Time // when the present availability was first seen here
	due         time.Time
	busy        bool // a probe or a listing is under way
	probed      bool
	failing     bool
	failures    int // in a row
	listFailed  bool
	listedAt    time.Time
	relist      time.Duration // after listedAt
	doubted     time.Time     // when a call failed that may still be carried out
	utilization *neon.Utilization
	waiting     []neon.ShardID // to be woken by the listing
	downs       map[int]context.CancelFunc
	nextDown    int
}

func newNodeWatch(t *term) *nodeWatch {
	return &nodeWatch{
		term: t, began: time.Now(), watch: make(map[neon.NodeID]*watched),
		progress: make(chan struct{}), moved: make(chan struct{}, 1),
	}
}

// run probes what is due and judges, until the term ends.
func (w *nodeWatch) run() {
	tick := time.NewTicker(min(250*time.Millisecond,
		max(w.Options.HeartbeatInterval/4, 10*time.Millisecond)))
	defer tick.Stop()
	for {
		w.probeDue()
		w.judge()
		select {
		case <-w.ctx.Done():
			w.wg.Wait()
			return
		case <-tick.C:
		}
	}
}

// changed compares the nodes of the state with what was known of them. Whoever needs
// to know now may call it too.
func (w *nodeWatch) changed() {
	now := time.Now()
	var restarted, woken, downed, deleted []neon.NodeID
	var stranded []neon.ShardID // which wait for a listing that does not come
	w.mu.Lock()
	st := w.Log.State()
	alive := make(map[neon.NodeID]bool)
	for n := range st.Nodes() {
		alive[n.ID] = true
		e := w.watch[n.ID]
		if e == nil {
			e = &watched{last: *n, since: now, due: now, downs: make(map[int]context.CancelFunc)}
			w.watch[n.ID] = e
			if n.Availability == neon.NodeOffline {
				w.wentAway(st, n.ID)
			}
			continue
		}
		last := e.last
		e.last = *n
		if last.Incarnation != n.Incarnation {
			restarted = append(restarted, n.ID)
			e.listFailed, e.due = false, now
		}
		if last.Availability != n.Availability || last.Incarnation != n.Incarnation {
			e.since = now
		}
		if last.Available() && (!n.Available() || last.Incarnation != n.Incarnation) {
			cancelAll(e.downs)
			downed = append(downed, n.ID)
			stranded, e.waiting = append(stranded, e.waiting...), nil
		}
		spared := plan.Forced(last.Operation) && !plan.Forced(n.Operation)
		if n.Available() && (!last.Available() || spared) {
			woken = append(woken, n.ID)
		}
		if n.Availability == neon.NodeOffline && last.Availability != neon.NodeOffline {
			w.wentAway(st, n.ID)
		}
		w.say(&last, n)
	}
	for id, e := range w.watch {
		if !alive[id] {
			cancelAll(e.downs)
			delete(w.watch, id)
			deleted = append(deleted, id)
			stranded = append(stranded, e.waiting...)
		}
	}
	w.mu.Unlock()
	for _, id := range deleted {
		w.seen.dropNode(id)
	}
	for _, id := range restarted {
		w.seen.forgetNode(id)
	}
	for _, id := range woken {
		w.wakeNode(st, id)
	}
	w.queue.wake(Normal, stranded...)
	for _, id := range append(woken, downed...) {
		// Not only those that are meant to be there: what is left there can be taken
		// away now, and migrations from there need not wait for compute any more.
		w.queue.wake(Normal, w.seen.attachedOn(id)...)
	}
	w.poke()
}

func cancelAll(downs map[int]context.CancelFunc) {
	for _, cancel := range downs {
		cancel()
	}
}

// poke has the rules looked at.
func (w *nodeWatch) poke() {
	select {
	case w.moved <- struct{}{}:
	default:
	}
}

// silent lists the schedulable nodes whose last heartbeats were not answered (one
// that is lost on the way does not count), and tells whether every schedulable one
// was asked in this term.
func (w *nodeWatch) silent() (ids []neon.NodeID, asked bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	asked = true
	patience := w.Options.HeartbeatInterval + w.Options.ProbeTimeout
	for id, e := range w.watch {
		if !e.last.Schedulable() {
			continue
		}
		asked = asked && e.probed
		if e.failing && time.Since(e.lastSuccess) > patience {
			ids = append(ids, id)
		}
	}
	return ids, asked
}

func (w *nodeWatch) say(last, n *fsm.Node) {
	switch {
	case last.Availability == n.Availability:
	case n.Availability == neon.NodeOffline:
		w.Logger.Info("node " + n.ID.String() + " going offline")
	case n.Availability == neon.NodeActive:
		w.Logger.Info("Node " + n.ID.String() + " transition to active")
	}
}

// wakeNode makes every shard that has to do with a node be looked at.
func (w *nodeWatch) wakeNode(st *fsm.State, id neon.NodeID) {
	for sh := range st.NodeShards(id) {
		w.queue.wake(Normal, sh.ID)
	}
}

// wentAway takes down which shards have a location on a node that went offline.
func (w *nodeWatch) wentAway(st *fsm.State, id neon.NodeID) {
	for sh := range st.NodeShards(id) {
		w.report.wentAway(sh.ID, id)
	}
}

// probeDue starts the heartbeats whose time has come.
func (w *nodeWatch) probeDue() {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.watch {
		if e.busy || now.Before(e.due) || w.ctx.Err() != nil {
			continue
		}
		e.busy = true
		node := e.last
		w.wg.Go(func() { w.probe(node) })
	}
}

// probe is one heartbeat and what follows from it.
func (w *nodeWatch) probe(node fsm.Node) {
	ctx, cancel := context.WithTimeout(w.ctx, w.Options.ProbeTimeout)
	u, err := w.Prober.Utilization(ctx, &node)
	cancel()
	now := time.Now()
	w.mu.Lock()
	e := w.watch[node.ID]
	if e == nil {
		w.mu.Unlock()
		return
	}
	news := !e.probed || e.failing != (err != nil)
	e.probed, e.failing = true, err != nil
	e.due = now.Add(w.Options.HeartbeatInterval)
	if err != nil {
		e.failures++
		e.due = now.Add(min(retryProbe, w.Options.HeartbeatInterval))
	} else {
		e.failures, e.lastSuccess, e.utilization = 0, now, u
	}
	stale := now.Sub(e.listedAt) > e.relist &&
		(!w.Options.RelistInDoubt || !e.doubted.IsZero() && now.Sub(e.doubted) < doubtTime)
	w.mu.Unlock()
	if news {
		w.poke() // the rules ask who answers
	}
	if err == nil {
		if inc, ok := w.seen.listedAt(node.ID); !ok || inc != node.Incarnation ||
			!node.Available() || stale {
			if w.list(&node) == nil && !node.Available() {
				w.propose([]fsm.Verdict{{
					Node: node.ID, From: node.Availability, To: neon.NodeActive,
					Incarnation: node.Incarnation,
				}})
			}
		}
	}
	w.mu.Lock()
	e.busy = false
	close(w.progress)
	w.progress = make(chan struct{})
	w.mu.Unlock()
}

// judge proposes, in one command, that the nodes which did not answer for long
// are Offline. A new leader gives every node the whole time again.
func (w *nodeWatch) judge() {
	now := time.Now()
	var verdicts []fsm.Verdict
	w.mu.Lock()
	for id, e := range w.watch {
		limit := w.Options.MaxOffline
		from := w.began
		if e.last.Availability == neon.NodeWarmingUp {
			limit, from = w.Options.MaxWarmingUp, e.since
		}
		if e.lastSuccess.After(from) {
			from = e.lastSuccess
		}
		if e.last.Availability != neon.NodeOffline && e.failures >= provingFailures &&
			now.Sub(from) >= limit {
			verdicts = append(verdicts, fsm.Verdict{
				Node: id, From: e.last.Availability, To: neon.NodeOffline,
				Incarnation: e.last.Incarnation,
			})
		}
	}
	w.mu.Unlock()
	if len(verdicts) > 0 {
		w.propose(verdicts)
	}
}

func (w *nodeWatch) propose(v []fsm.Verdict) {
	if w.Failpoints != nil &&
		w.Failpoints.Pausable(w.ctx, "heartbeat-pre-node-state-configure") != nil {
		return
	}
	if _, err := w.Log.Propose(w.ctx, fsm.RequestID{},
		fsm.SetNodeAvailability{Verdicts: v}); err != nil && w.ctx.Err() == nil {
		w.Logger.Info("verdict was not committed, it will be tried again", "err", err)
	}
}

// loads are the last utilisations.
func (w *nodeWatch) utilizations() map[neon.NodeID]*neon.Utilization {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make(map[neon.NodeID]*neon.Utilization, len(w.watch))
	for id, e := range w.watch {
		if e.utilization != nil {
			out[id] = e.utilization
		}
	}
	return out
}

// onDown registers a cancel for the moment a node stops being available or its
// process is replaced; the returned function takes it back.
func (w *nodeWatch) onDown(n neon.NodeID, cancel context.CancelFunc) (stop func()) {
	if now, ok := w.Log.State().Node(n); ok && now.Available() && !w.available(n) {
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

// doubt takes down that a call to a node failed and may be carried out later.
func (w *nodeWatch) doubt(n neon.NodeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.watch[n]; e != nil {
		e.doubted = time.Now()
	}
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

// allListed tells whether every available node was listed in this term. One that
// has re-attached since can hold nothing but what it had before.
func (w *nodeWatch) allListed(st *fsm.State) bool {
	for n := range st.Nodes() {
		inc, ok := w.seen.listedAt(n.ID)
		switch n.Availability {
		case neon.NodeActive:
			if !ok || inc != n.Incarnation {
				return false
			}
		case neon.NodeWarmingUp:
			if !w.seen.everListed(n.ID) {
				return false
			}
		}
	}
	return true
}

// firstRound waits until every node answered or failed once and those that are
// available were listed, for a bounded time.
func (w *nodeWatch) firstRound() {
	limit := time.NewTimer(w.Options.StartScanTimeout)
	defer limit.Stop()
	for {
		w.mu.Lock()
		settled := true
		for id, e := range w.watch {
			inc, ok := w.seen.listedAt(id)
			listed := ok && inc == e.last.Incarnation
			settled = settled && e.probed && (e.failing || e.listFailed || listed && !e.busy)
		}
		progress := w.progress
		w.mu.Unlock()
		if settled {
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
