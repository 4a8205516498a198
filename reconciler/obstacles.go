package reconciler

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/reconciler/queue"
	"quorate/scheduler"
)

// An operation ends although some shards cannot go where it wants them. One rule
// settles a shard, for all kinds: its work has failed queue.StuckAfter times, compute
// refuses it for good, or something has been in its way for long. It is counted and
// named in the outcome, and its move, if it has not come to the cut-over, is given up.
const (
	// refusalsForGood is how often compute must have refused for good: what it said once
	// may have been about one moment.
	refusalsForGood = 3

	// splitPatience is how long an operation waits for the split of a tenant.
	splitPatience = 5 * time.Minute

	// movePatience is how long a move may take in all, also if something happens again
	// and again: it is far more than all its time limits together.
	movePatience = 30 * time.Minute

	// namedInLog bounds the shards that the line about the end of an operation names.
	namedInLog = 5
)

// Reasons for which shards stay.
const (
	beingSplit  = "its tenant is being split"
	noOtherNode = "there is no other node for it"
	gaveUp      = "its destination did not become warm"
	logRefuses  = "the log refuses its move"
)

func pinnedBy(t fsm.Tenant) string {
	return fmt.Sprintf("the scheduling policy of its tenant is %s", t.Scheduling)
}

// obstacle is what a shard cannot get over.
type obstacle struct {
	since time.Time
	why   string
}

func (x obstacle) lasts(long time.Duration) bool { return time.Since(x.since) >= long }

// meet notes what is in the way of a shard.
func (op *operation) meet(id neon.ShardID, why string) obstacle {
	x, ok := op.obstacles[id]
	if !ok {
		x.since = time.Now()
	}
	x.why = why
	op.obstacles[id] = x
	return x
}

// refused notes that the log has refused an intent for a shard.
func (op *operation) refused(id neon.ShardID) obstacle { return op.meet(id, logRefuses) }

// named lists up to that many of the shards that stay, with the reasons.
func (op *operation) named(limit int) (list []string) {
	ids := make([]neon.ShardID, 0, len(op.left))
	for id := range op.left {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, neon.ShardID.Compare)
	for _, id := range ids[:min(limit, len(ids))] {
		list = append(list, id.String()+": "+op.left[id])
	}
	return list
}

// settle turns a verdict into "it stays" once the shard has not got on for long.
func (o *operations) settle(l *look, v opinion) opinion {
	if v.verdict == finished || v.verdict == stays {
		return v
	}
	since, begun := l.op.moving[l.id]
	if begun && time.Since(since) >= movePatience {
		why := cmp.Or(v.why, o.queue.Status(l.id).LastError, "nothing")
		return opinion{verdict: stays, why: fmt.Sprintf("it was waited for for %s, in the end for: %s",
			movePatience, why)}
	}
	if x, ok := l.op.obstacles[l.id]; v.verdict == act {
		if ok && x.why == logRefuses && x.lasts(o.opts.Stalled) {
			return opinion{verdict: stays, why: x.why}
		}
		return v // whether it is refused again is seen then
	}
	if v.patience == 0 {
		delete(l.op.obstacles, l.id)
	} else if x := l.op.meet(l.id, v.why); x.lasts(v.patience) {
		return opinion{verdict: stays, why: v.why}
	}
	return v
}

// lookAgain takes from those that stay the ones that have got there nevertheless.
func (o *operations) lookAgain(op *operation) {
	st := o.log.State()
	sched := scheduler.New(st, o.loads())
	for id := range op.left {
		l := &look{st: st, sched: sched, op: op, id: id, begun: true}
		if o.next(l).verdict == finished {
			delete(op.left, id)
		}
	}
}

// onItsWay waits for a shard to be warm on its destination, unless nothing works
// there.
func (o *operations) onItsWay(sh fsm.Shard) opinion {
	if why := o.failing(sh); why != "" {
		return opinion{verdict: stays, why: why}
	}
	return o.blocked(sh, waiting)
}

// inPlace is finished once a shard is as its intent says, nothing of the move being
// left to do. What else cannot be done for a shard that has gone is no matter of the
// operation.
func (o *operations) inPlace(l *look, sh fsm.Shard) opinion {
	if o.scenes.done(l.st, l.id) {
		return opinion{}
	}
	why := o.failing(sh)
	if why == "" {
		return o.blocked(sh, waiting)
	}
	if o.moved(l) {
		return opinion{}
	}
	return opinion{verdict: stays, why: why}
}

// moved reports whether a shard is known to be served where it should be, and to have left
// the node unless it is filled.
func (o *operations) moved(l *look) bool {
	sc, ok := o.scenes.of(l.st, l.id)
	if !ok {
		return true
	}
	at := sc.On(sc.Shard.Attached)
	served := at.Attached() && at.Conf.Mode == neon.AttachedSingle &&
		at.Conf.Generation == sc.Shard.Generation
	here := sc.On(l.op.node)
	switch l.op.Kind {
	case fsm.OperationFill:
		return served
	case fsm.OperationDrain:
		return served && here.Known && !here.Attached()
	}
	return served && here.Absent()
}

// failing is why nothing is to be expected of a shard any more, or "".
func (o *operations) failing(sh fsm.Shard) string {
	if q := o.queue.Status(sh.ID); q.Failures >= queue.StuckAfter {
		return fmt.Sprintf("it has failed %d times: %s", q.Failures, q.LastError)
	}
	t := o.outbox.Trouble(sh.ID.Tenant)
	if t.Failures >= queue.StuckAfter || t.Never && t.Failures >= refusalsForGood {
		return "compute cannot be told: " + t.Why
	}
	return ""
}

// blocked is a verdict about a shard for which nothing can be done at present, if that is
// so.
func (o *operations) blocked(sh fsm.Shard, v verdict) opinion {
	if q := o.queue.Status(sh.ID); q.Blocked {
		return opinion{verdict: v, why: q.LastError, patience: o.opts.Stalled}
	}
	return opinion{verdict: v}
}

// hindered is the verdict about a shard whose move should not be begun now, since it
// would stop halfway.
func (o *operations) hindered(sh fsm.Shard) (v opinion, yes bool) {
	t := o.outbox.Trouble(sh.ID.Tenant)
	switch {
	case t.Failures >= queue.StuckAfter || t.Never && t.Failures >= refusalsForGood:
		return opinion{verdict: stays, why: "compute cannot be told: " + t.Why}, true
	case t.Failures > 0:
		return opinion{verdict: later, why: "compute cannot be told: " + t.Why}, true
	}
	v = o.blocked(sh, later)
	return v, v.why != ""
}
