package reconciler

import (
	"fmt"
	"time"

	"quorate/fsm"
)

// A leader times what is in the way of a shard, and leaders may follow each other sooner than
// any patience ends. The log has when the operation got on last, so that what a leader
// finds in the way when it takes an operation up may have been there since then.
const (
	// handedPatience is how long an operation that leaders have handed on may not get on.
	// After that what a leader finds in the way of a shard, and what does not go away within
	// hereAtLeast, settles it.
	handedPatience = splitPatience
	hereAtLeast    = 10 * time.Second

	// foundWithin is how long after it has taken an operation up a leader finds what was
	// there before.
	foundWithin = 30 * time.Second

	// progressInterval is the least time between two notes about one operation.
	progressInterval = 30 * time.Second
)

// headway is what is known of how an operation gets on.
type headway struct {
	taken    time.Time // when this leader took it up
	handedOn bool      // an earlier leader has worked on it
	gotOn    time.Time // when a shard has come or gone last, or it was begun
}

// headwayOf is what the log says. It says nothing of an operation of the first level, which
// counts as begun now.
func headwayOf(op fsm.Operation) headway {
	p := headway{taken: time.Now()}
	if p.gotOn = p.taken; op.At != 0 {
		p.gotOn = time.UnixMilli(max(op.At, op.Progress))
	}
	return p
}

// settles reports whether an obstacle has lasted for as long as it may, under this leader or
// under several. Without a patience this leader knows otherwise whether it lasts.
func (p *headway) settles(x obstacle, patience time.Duration) bool {
	if patience > 0 && x.lasts(patience) {
		return true
	}
	return p.handedOn && time.Since(p.gotOn) >= handedPatience && x.lasts(hereAtLeast) &&
		x.since.Sub(p.taken) <= foundWithin
}

// noteProgress has the next leader know that an operation gets on. It need not succeed.
func (o *operations) noteProgress(op *operation) {
	c := fsm.NoteProgress{Node: op.node, Begun: op.Begun, At: op.gotOn.UnixMilli()}
	if op.At == 0 || op.gotOn.Sub(headwayOf(op.Operation).gotOn) < progressInterval ||
		fsm.Admit(o.log.State(), c) != nil {
		return
	}
	if _, err := o.log.Propose(o.ctx, fsm.RequestID{}, c); err != nil && o.ctx.Err() == nil {
		o.logger.Info("the progress of an operation was not noted", "node", op.node, "err", err)
	}
}

// overdue is why an operation begins nothing any more and waits for nothing, or "". One that
// leaders have handed on may not get on for as long as one move may take, whatever each of
// them has seen. As a whole an operation has as much time as its moves can take if each
// one lasts as long as it may. There are no more than twice as many as shards were attached
// on the node, or than a node has on average.
func (o *operations) overdue(st *fsm.State, op *operation) string {
	if op.At == 0 {
		return ""
	}
	if op.handedOn && time.Since(op.gotOn) >= movePatience {
		return fmt.Sprintf("no shard has come or gone for %s", movePatience)
	}
	nodes := 1
	for range st.Nodes() {
		nodes++
	}
	moves := 2*op.Total + st.ShardCount()/nodes
	atOnce := min(o.opts.OperationMoves, o.opts.PerNode)
	limit := movePatience * time.Duration(2+moves/atOnce)
	if time.Since(time.UnixMilli(op.At)) < limit {
		return ""
	}
	return fmt.Sprintf("the operation has lasted for %s", limit)
}
