package reconciler

import (
	"fmt"
	"time"

	"quorate/api/neon"
	"quorate/reconciler/plan"
	"quorate/reconciler/queue"
)

// The queue of a term, and a shard in it.
type (
	shardQueue = queue.Queue[memory]
	task       = queue.Task[memory]
)

// memory is what workers remember of a shard until nothing is left to do. It
// belongs to the worker that has the task.
type memory struct {
	step   *plan.Step // the long step that the next turn makes
	basis  uint64     // log index of the newest decision that the last look was based on
	acted  bool       // made a call or a proposal since a reconcile was last counted
	passed string     // the failpoint before the next step
	alarm  *alarm     // of a reconcile under way

	baseline baseline // of a live migration

	// Of the present pass: the first optional step that failed, the nodes on which such
	// steps failed, those from which a stray was detached, and the entries of the log.
	late      *failure
	skipped   []neon.NodeID
	cleared   []neon.NodeID
	proposals int
	parked    bool // it waits for a slot; its next turn goes on with it

	// nodeFailures are of nodes other than the intended one.
	nodeFailures map[neon.NodeID]nodeFailures
}

// failure is a step that failed.
type failure struct {
	step plan.Step
	err  error
}

// nodeFailures is how often something failed on a node, and since when.
type nodeFailures struct {
	times int
	since time.Time
}

// beginTurn forgets what was of the last pass only. After a wait for a slot the pass goes on,
// unless something newer was decided: if it began anew, it would ask a node that refuses
// once more and let the slot go meanwhile, so that slots went round without a pause.
func (m *memory) beginTurn(newest uint64) {
	if m.parked && newest <= m.basis {
		m.parked = false
		return
	}
	m.late, m.skipped, m.cleared, m.proposals, m.parked = nil, nil, nil, 0, false
}

// mostProposals bounds the entries that one pass adds to the log. A pass takes one or
// two. What takes more goes on after a pause.
const mostProposals = 8

// mayPropose counts the entries of a pass, and is an error when there are too many.
func (m *memory) mayPropose(k plan.Kind) error {
	if k != plan.Issue && k != plan.Move {
		return nil
	}
	if m.proposals++; m.proposals > mostProposals {
		return fmt.Errorf("it takes more than %d entries of the log", mostProposals)
	}
	return nil
}

// blame counts a failure on a node.
func (m *memory) blame(n neon.NodeID) {
	if m.nodeFailures == nil {
		m.nodeFailures = make(map[neon.NodeID]nodeFailures)
	}
	x := m.nodeFailures[n]
	if x.times++; x.times == 1 {
		x.since = time.Now()
	}
	m.nodeFailures[n] = x
}

// hopelessAfter is how many failures at least make a node hopeless: nothing is
// handed over from there.
const hopelessAfter = 3

// hopeless lists the nodes on which things have failed for at least that long.
func (m *memory) hopeless(long time.Duration) (ids []neon.NodeID) {
	for n, x := range m.nodeFailures {
		if x.times >= hopelessAfter && time.Since(x.since) >= long {
			ids = append(ids, n)
		}
	}
	return ids
}
