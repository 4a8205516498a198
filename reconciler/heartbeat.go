package reconciler

import (
	"context"
	"slices"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/reconciler/queue"
	"quorate/scheduler"
)

// provingFailures is how many heartbeats in a row must have failed for a verdict: one
// that was under way while this process was frozen says nothing about the node.
const provingFailures = 2

// retryProbe is the pause between heartbeats while a node does not answer.
const retryProbe = 500 * time.Millisecond

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

// probe is one heartbeat and what follows from it. The next one is not held up by a
// listing that takes its time.
func (w *nodeWatch) probe(node fsm.Node) {
	ctx, cancel := context.WithTimeout(w.ctx, w.opts.ProbeTimeout)
	u, err := w.prober.Utilization(ctx, &node)
	cancel()
	now := time.Now()
	w.mu.Lock()
	e := w.watch[node.ID]
	if e == nil {
		w.mu.Unlock()
		return
	}
	news := !e.probed || e.failing != (err != nil)
	var told []neon.ShardID // who waits for the listing has to hear that it does not come soon
	if err != nil && !e.failing {
		told, e.waiting = e.waiting, nil
	}
	e.probed, e.failing = true, err != nil
	e.due = now.Add(w.opts.HeartbeatInterval)
	if err != nil {
		e.failures++
		e.due = now.Add(min(retryProbe, w.opts.HeartbeatInterval))
	} else {
		e.failures, e.lastSuccess, e.utilization = 0, now, u
		e.full = w.opts.Disks.full(e.full, loadOf(u))
	}
	stale := e.stale(now, w.began, w.opts.RelistInDoubt)
	inc, listed := w.seen.ListedAt(node.ID)
	e.busy = false
	if err == nil && e.endListing == nil &&
		(!listed || inc != node.Incarnation || !node.Available() || stale) {
		ctx, cancel := context.WithCancel(w.ctx)
		e.endListing = cancel
		w.wg.Go(func() { w.take(ctx, e, node) })
	}
	w.mu.Unlock()
	w.queue.Wake(queue.Normal, told...)
	if news {
		w.wakeRules() // the rules ask who answers
	}
	w.progress.Notify()
}

// take lists a node, and proposes to use one that is not used.
func (w *nodeWatch) take(ctx context.Context, e *watched, node fsm.Node) {
	listed := w.list(ctx, &node) == nil
	if !node.Available() && (listed || w.startedLongAgo(node.ID)) {
		w.propose([]fsm.Verdict{{
			Node: node.ID, From: node.Availability, To: neon.NodeActive,
			Incarnation: node.Incarnation,
		}})
	}
	w.mu.Lock()
	e.endListing()
	e.endListing = nil
	w.mu.Unlock()
	w.progress.Notify()
}

// startedLongAgo reports whether a node warms up for as long as it may. It answers its
// heartbeats, so that nothing else would end that: it is used without a listing, and
// what it has is looked at one by one.
func (w *nodeWatch) startedLongAgo(n neon.NodeID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.watch[n]
	return e != nil && e.last.Availability == neon.NodeWarmingUp &&
		time.Since(e.since) >= w.opts.MaxWarmingUp
}

// judge proposes, in one command, that the nodes which did not answer for long
// are Offline, and then says which have become silent, or answer again.
func (w *nodeWatch) judge() {
	now := time.Now()
	var verdicts []fsm.Verdict
	var silences []fsm.Silence
	notes := fsm.Admit(w.log.State(), fsm.NoteSilence{}) == nil // else somebody does not know it
	w.mu.Lock()
	for id, e := range w.watch {
		if now.Sub(w.silentSince(e)) >= w.patience(e) && e.failures >= provingFailures &&
			e.last.Availability != neon.NodeOffline {
			verdicts = append(verdicts, fsm.Verdict{
				Node: id, From: e.last.Availability, To: neon.NodeOffline,
				Incarnation: e.last.Incarnation,
			})
			continue
		}
		if !notes {
			continue
		}
		if s, ok := w.silence(e, now); ok {
			silences = append(silences, s)
		}
	}
	w.mu.Unlock()
	if len(verdicts) > 0 {
		w.propose(verdicts)
	}
	if len(silences) > 0 {
		w.note(silences)
	}
}

// patience is how long a node may be silent.
func (w *nodeWatch) patience(e *watched) time.Duration {
	if e.last.Availability == neon.NodeWarmingUp {
		return w.opts.MaxWarmingUp
	}
	return w.opts.MaxOffline
}

// silentSince is the moment from which the silence of a node counts: its last answer, or
// what an earlier leader has said of it. Without either it has the whole time from the
// beginning of the term. The caller holds the lock.
func (w *nodeWatch) silentSince(e *watched) time.Time {
	from := w.began
	if e.last.Availability == neon.NodeWarmingUp {
		from = e.since
	}
	switch told := time.UnixMilli(e.last.Silent); {
	case e.lastSuccess.After(from):
		return e.lastSuccess
	case e.last.Silent != 0 && e.lastSuccess.IsZero() && told.Before(from):
		return told
	}
	return from
}

// noteInterval is the least time between two notes about one node, so that one that
// answers every other time does not fill the log.
const noteInterval = 5 * time.Second

// silence is what the log has to be told about a node: that it has become silent, or that
// it answers again. The caller holds the lock.
func (w *nodeWatch) silence(e *watched, now time.Time) (s fsm.Silence, ok bool) {
	silent := e.failures >= provingFailures
	if e.last.Availability == neon.NodeOffline || silent == (e.last.Silent != 0) ||
		!e.probed || !silent && e.failing || now.Sub(e.noted) < noteInterval {
		return s, false
	}
	e.noted = now
	s = fsm.Silence{Node: e.last.ID, Incarnation: e.last.Incarnation}
	if silent {
		s.Since = w.silentSince(e).UnixMilli()
	}
	return s, true
}

// note has the next leader know who is silent. It need not succeed.
func (w *nodeWatch) note(silences []fsm.Silence) {
	c := fsm.NoteSilence{Nodes: silences}
	if _, err := w.log.Propose(w.ctx, fsm.RequestID{}, c); err != nil && w.ctx.Err() == nil {
		w.logger.Info("the silence of nodes was not noted", "nodes", len(silences), "err", err)
	}
}

func (w *nodeWatch) propose(v []fsm.Verdict) {
	if w.failpoints != nil &&
		w.failpoints.Pausable(w.ctx, "heartbeat-pre-node-state-configure") != nil {
		return
	}
	if _, err := w.log.Propose(w.ctx, fsm.RequestID{},
		fsm.SetNodeAvailability{Verdicts: v}); err != nil && w.ctx.Err() == nil {
		w.logger.Info("verdict was not committed, it will be tried again", "err", err)
	}
}

// silent lists the nodes that are not judged and do not answer: neither calls, nor their
// last heartbeats. One heartbeat that is lost on the way does not count.
func (w *nodeWatch) silent() []neon.NodeID {
	ids := w.answers.unresponsive()
	w.mu.Lock()
	defer w.mu.Unlock()
	limit := w.opts.HeartbeatInterval + w.opts.ProbeTimeout
	for id, e := range w.watch {
		if e.last.Available() && e.failing && time.Since(e.lastSuccess) > limit &&
			!slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// unasked lists the nodes that could take something and were not asked for a sign of
// life in this term.
func (w *nodeWatch) unasked() (ids []neon.NodeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, e := range w.watch {
		if e.last.Schedulable() && !e.probed {
			ids = append(ids, id)
		}
	}
	return ids
}

// firstAnswers is how long a placement at the beginning of a term waits for the first
// answers of the nodes.
const firstAnswers = 100 * time.Millisecond

// awaitFirstAnswers waits until every node that could take something has answered or failed
// once in this term, at most until firstAnswers after its beginning. Until the nodes have
// been asked, one that hangs looks like all others, and what is placed there is not served
// before the verdict on it. Only what is placed waits: other writes do not depend on nodes.
func (w *nodeWatch) awaitFirstAnswers() {
	left := time.Until(w.began.Add(firstAnswers))
	if left <= 0 {
		return
	}
	w.awaitProgress(left, func() bool { return w.known.Load() && len(w.unasked()) == 0 })
}

// utilizations are what the last heartbeats that were answered said.
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

// loads are what the last heartbeats said, as the scheduler wants it. Nodes that do not
// answer, or were not asked yet, take nothing that another one can take.
func (w *nodeWatch) loads() map[neon.NodeID]scheduler.Load {
	out := make(map[neon.NodeID]scheduler.Load)
	for id, u := range w.utilizations() {
		out[id] = loadOf(u)
	}
	for _, id := range append(w.silent(), w.unasked()...) {
		l := out[id]
		l.Silent = true
		out[id] = l
	}
	doubted := w.answers.doubted()
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for id, e := range w.watch {
		unsteady := e.unsteady(now, w.opts.SteadyAfter) || slices.Contains(doubted, id)
		if unsteady || e.full {
			l := out[id]
			l.Unsteady, l.Full = unsteady, e.full
			out[id] = l
		}
	}
	return out
}

func loadOf(u *neon.Utilization) scheduler.Load {
	total := u.DiskUsageBytes + u.FreeSpaceBytes
	return scheduler.Load{
		DiskWanted: u.DiskWantedBytes, DiskUsable: total / 100 * uint64(u.DiskUsablePct),
		DiskUsed: u.DiskUsageBytes, DiskTotal: total,
		Shards: int(u.ShardCount), MaxShards: int(u.MaxShardCount),
	}
}

// answering are the loads for the rules. It is false as long as some node that could
// take something was not asked in this term; that is about to change.
func (w *nodeWatch) answering() (map[neon.NodeID]scheduler.Load, bool) {
	if len(w.unasked()) > 0 {
		return nil, false
	}
	return w.loads(), true
}
