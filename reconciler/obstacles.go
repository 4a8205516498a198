package reconciler

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/reconciler/outbox"
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

	// removalPatience is how long the deletion of a node waits for what the node removes.
	// That of a large tenant takes long, and only a forced deletion does not wait.
	removalPatience = 30 * time.Minute

	// movePatience is how long a move may take in all, also if something happens again
	// and again: it is far more than all its time limits together.
	movePatience = 30 * time.Minute
)

// Reasons for which shards stay.
const (
	beingSplit  = "its tenant is being split"
	noOtherNode = "there is no other node for it"
	gaveUp      = "its destination did not become warm"
	removesData = "the node may be removing the remote data of its tenant; if its process is dead, delete it by force"
	logRefuses  = "the log refuses its move"
)

func pinnedBy(t fsm.Tenant) string {
	return fmt.Sprintf("the scheduling policy of its tenant is %s", t.Scheduling)
}

// obstacle is what a shard cannot get over.
type obstacle struct {
	since    time.Time
	why      string
	patience time.Duration // of the opinion
}

func (x obstacle) lasts(long time.Duration) bool { return time.Since(x.since) >= long }

// meet notes what is in the way of a shard.
func (op *operation) meet(id neon.ShardID, why string, patience time.Duration) obstacle {
	x, ok := op.obstacles[id]
	if !ok || x.patience != patience {
		x.since = time.Now()
	}
	x.why, x.patience = why, patience
	op.obstacles[id] = x
	return x
}

// refused notes that the log has refused an intent for a shard, and reports whether it
// has for long.
func (op *operation) refused(id neon.ShardID, long time.Duration) bool {
	return op.meet(id, logRefuses, long).lasts(long)
}

// status names what hinders the operation.
func (op *operation) status() (s decide.OperationStatus) {
	waits := make(map[neon.ShardID]string)
	for id, x := range op.obstacles {
		if _, settled := op.left[id]; !settled {
			waits[id] = x.why
		}
	}
	return decide.OperationStatus{Waits: hindered(waits), Stays: hindered(op.left)}
}

// namedShards bounds the shards that are named of an operation: those with the lowest
// ids.
const namedShards = 16

func hindered(why map[neon.ShardID]string) decide.Hindered {
	h := decide.Hindered{Count: len(why)}
	ids := slices.SortedFunc(maps.Keys(why), neon.ShardID.Compare)
	for _, id := range ids[:min(namedShards, len(ids))] {
		w := why[id] // as an answer had it, of whatever length
		h.Named = append(h.Named, decide.HinderedShard{Shard: id, Why: w[:min(fsm.MaxWhy, len(w))]})
	}
	return h
}

// settle turns a verdict into "it stays" once the shard has not got on for long.
func (o *operations) settle(l *look, v opinion) opinion {
	if v.verdict == finished || v.verdict == stays {
		return v
	}
	if l.op.overdue != "" {
		return opinion{verdict: stays, why: because(l.op.overdue, v.why)}
	}
	if m, begun := l.op.moving[l.id]; begun && time.Since(m.since) >= movePatience {
		why := cmp.Or(v.why, o.queue.Status(l.id).LastError, "nothing")
		return opinion{verdict: stays, why: fmt.Sprintf("it was waited for for %s, in the end for: %s",
			movePatience, why)}
	}
	if x, ok := l.op.obstacles[l.id]; v.verdict == act {
		if ok && x.why == logRefuses && l.op.settles(x, o.opts.Stalled) {
			return opinion{verdict: stays, why: x.why}
		}
		return v // whether it is refused again is seen then
	}
	if v.why == "" {
		delete(l.op.obstacles, l.id)
		return v
	}
	if x := l.op.meet(l.id, v.why, v.patience); l.op.settles(x, v.patience) {
		return opinion{verdict: stays, why: v.why}
	}
	return v
}

// because adds what was in the way in the end.
func because(why, last string) string {
	if last == "" {
		return why
	}
	return why + ", in the end it waited for: " + last
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
	return o.slowed(sh, waiting)
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
		return o.slowed(sh, waiting)
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
	if t := o.outbox.Trouble(sh.ID.Tenant); forGood(t) {
		return untold(t)
	}
	return ""
}

// slowed is a verdict about a shard for which nothing can be done at present, or whose
// calls fail, with the reason if that is so.
func (o *operations) slowed(sh fsm.Shard, v verdict) opinion {
	q, t := o.queue.Status(sh.ID), o.outbox.Trouble(sh.ID.Tenant)
	switch {
	case q.Blocked:
		return opinion{verdict: v, why: q.LastError, patience: o.opts.Stalled}
	case t.Failures > 0:
		return opinion{verdict: v, why: untold(t)}
	case q.Failures > 0:
		return opinion{verdict: v, why: q.LastError}
	}
	return opinion{verdict: v}
}

// hindered is the verdict about a shard whose move should not be begun now, since it
// would stop halfway. That calls fail where it is is no reason to leave it there.
func (o *operations) hindered(sh fsm.Shard) (v opinion, yes bool) {
	if t := o.outbox.Trouble(sh.ID.Tenant); t.Failures > 0 {
		if forGood(t) {
			return opinion{verdict: stays, why: untold(t)}, true
		}
		return opinion{verdict: later, why: untold(t)}, true
	}
	if q := o.queue.Status(sh.ID); q.Blocked {
		return opinion{verdict: later, why: q.LastError, patience: o.opts.Stalled}, true
	}
	return v, false
}

// forGood reports whether compute will not be told, as far as anybody can know.
func forGood(t outbox.Trouble) bool {
	return t.Failures >= queue.StuckAfter || t.Never && t.Failures >= refusalsForGood
}

func untold(t outbox.Trouble) string { return "compute cannot be told: " + t.Why }
