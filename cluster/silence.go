package cluster

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"quorate/internal/wait"
)

// silenceWatch suspects a leader that has been silent for the heartbeat time-out, as one that
// stands still or is cut off is. The detector asks the other survivors, and elects if a majority
// has not heard it either. Raft's own time-outs are random, up to twice as long, and begin anew
// when the leader was heard in the first part of one; and the second follower waits for its own.
// Together they take up to three times as long.
//
// Raft's time-outs let a leader pass that stands still for little more than one, if it does so
// at the right moment. This one does not. So it leaves a new leader to them for a while: where
// each one stalls, since leading is too much for the host, leaders do not follow each other
// faster than that.
//
// Silence counts only for a server that runs on time itself. Where processes wait for a
// processor, a silent leader is one that waits too, and raft's time-outs decide.
type silenceWatch struct {
	detector *crashDetector
	off      bool
	led      func() time.Duration // for how long the leader has led, as far as is known

	mu    sync.Mutex
	timer *time.Timer // nil before the first heartbeat
	due   time.Time   // when it runs out

	stopped bool
}

const (
	// silentLooks is how often this server looks again, each after a lookPause, and onTime
	// how much later than it asked for it may run.
	silentLooks = 3
	lookPause   = 10 * time.Millisecond
	onTime      = 10 * time.Millisecond
	// settled is how long a leader must have led.
	settled = 5 * time.Second
)

// heard notes a sign of the leader.
func (w *silenceWatch) heard() {
	if !w.off {
		w.wait(w.detector.silence)
	}
}

// wait looks after a while.
func (w *silenceWatch) wait(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	w.due = time.Now().Add(d)
	if w.timer == nil {
		w.timer = time.AfterFunc(d, func() { w.detector.background.Go(w.look) })
		return
	}
	w.timer.Reset(d)
}

// stop ends it.
func (w *silenceWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped = true; w.timer != nil {
		w.timer.Stop()
	}
}

// late reports whether this server runs later than it asked for.
func (w *silenceWatch) late() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.due) > onTime
}

// look has a leader suspected that is silent. It looks again after another silence, as long
// as this server is a follower with a leader.
func (w *silenceWatch) look() {
	late := w.late()
	s, silent := w.suspect()
	if s.id == "" {
		return // the first heartbeat of the next leader begins anew
	}
	if left := w.detector.silence - silent; left > 0 {
		w.wait(left)
		return
	}
	defer w.wait(w.detector.silence)
	for range silentLooks {
		began := time.Now()
		if late || wait.Sleep(w.detector.ctx, lookPause) != nil {
			return
		}
		late = time.Since(began) > lookPause+onTime
	}
	if !late && w.led() >= settled && w.detector.holds(s) {
		w.detector.stand(w.detector.ctx, s)
	}
}

// suspect is the leader that this server follows, and for how long it was silent.
func (w *silenceWatch) suspect() (s suspicion, silent time.Duration) {
	d := w.detector
	r := d.node.raft()
	if r == nil || r.State() != raft.Follower || !d.node.isVoter(d.node.id) {
		return suspicion{}, 0
	}
	leader, id := r.LeaderWithID()
	if id == "" {
		return suspicion{}, 0
	}
	return suspicion{
		id: string(id), addr: d.peers.address(id, leader), term: r.CurrentTerm(), silent: true,
	}, time.Since(r.LastContact())
}
