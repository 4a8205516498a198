package reconciler

import (
	"context"
	"fmt"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/reconciler/plan"
	"quorate/scheduler"
)

// warm lets the destination download what the location it takes over from has now.
// A destination that stays cold does not stop the move: the cut-over is only
// slower. The time is looked at between requests: a pageserver complains of one that
// is dropped.
func (t *term) warm(up context.Context, sc *plan.Scene, step plan.Step) error {
	p := t.patienceFor(sc.Shard.ID)
	t.publish(up, sc, step.From)
	for began := time.Now(); up.Err() == nil; {
		if now, ok := t.Log.State().Shard(sc.Shard.ID); !ok || now.Attached != step.Node {
			return nil // somebody changed their mind
		}
		done, err := t.Migrations.SecondaryDownload(up, sc.Node(step.Node), sc.Shard.ID, p.request)
		if err != nil {
			t.Logger.Info("destination stays cold", "shard", sc.Shard.ID, "node", step.Node,
				"err", err)
		}
		if err != nil || done || time.Since(began) >= p.warm ||
			pause(up, t.Options.RetryMin) != nil {
			break
		}
	}
	if up.Err() == nil {
		t.seen.progress(sc.Shard.ID, func(sh *shardSeen) { sh.warm = step.Node })
	}
	return nil
}

// freshness is how much a destination may still have to download when a shard
// moves for its own good; one that is smaller than that has to have it all.
const freshness = 10 << 30

// warmRequest bounds one download request of a move that is not urgent.
const warmRequest = 5 * time.Second

// prewarm lets the preferred node download while the shard is served where it
// is, so it has time. A destination that is not warm enough in the end is treated
// as the purpose of the move demands: a drain leaves the shard where it is, a
// fill and a deletion move it nevertheless, and every other move waits on.
func (t *term) prewarm(ctx context.Context, sc *plan.Scene, step plan.Step) error {
	until := time.Now().Add(t.Options.WarmTimeout)
	op := t.purpose(sc, step.Node)
	have, err := t.Migrations.SecondaryStatus(ctx, sc.Node(step.Node), sc.Shard.ID)
	if err != nil {
		return fmt.Errorf("how warm node %d is: %w", step.Node, err)
	}
	if op == fsm.OperationNone && !t.warmEnough(sc, have, op) {
		t.Logger.Info(fmt.Sprintf(
			"Skipping migration of %s to %d because secondary isn't ready: %d of %d bytes",
			sc.Shard.ID, step.Node, have.BytesDownloaded, have.BytesTotal))
	}
	if have.HeatmapMtime == nil {
		t.publish(ctx, sc, sc.Shard.Attached)
	}
	have = t.download(ctx, sc, step, loading{op: op, have: have, until: until})
	if now, ok := t.Log.State().Shard(sc.Shard.ID); !ok || now.PreferredNode != step.Node ||
		now.Attached != sc.Shard.Attached {
		return nil // somebody changed their mind
	}
	switch {
	case t.warmEnough(sc, have, op), op == fsm.OperationFill, op == fsm.OperationDelete:
		t.seen.progress(sc.Shard.ID, func(sh *shardSeen) { sh.warm = step.Node })
		return nil
	case op == fsm.OperationDrain:
		return t.giveUp(sc, step.Node)
	}
	return errCold
}

// coldShare is how many cold destinations are looked at in one ColdRetry. With more
// of them each is looked at less often, so that the pageservers and the pool of long
// steps do not suffer, and no move has to be given up for another.
const coldShare = 32

func (t *term) coldRetry() time.Duration {
	_, waits := t.queue.load()
	return t.Options.ColdRetry * time.Duration(1+waits/coldShare)
}

// purpose is the operation that a shard moves for, if it does for any.
func (t *term) purpose(sc *plan.Scene, to neon.NodeID) fsm.OperationKind {
	if n := sc.Node(sc.Shard.Attached); n != nil &&
		(n.Operation.Kind == fsm.OperationDrain || n.Operation.Kind == fsm.OperationDelete) {
		return n.Operation.Kind
	}
	if n := sc.Node(to); n != nil && n.Operation.Kind == fsm.OperationFill {
		return n.Operation.Kind
	}
	return fsm.OperationNone
}

// publish makes an attached location say what a secondary should hold.
func (t *term) publish(ctx context.Context, sc *plan.Scene, attached neon.NodeID) {
	if n := sc.Node(attached); n != nil && n.Available() {
		if err := t.Migrations.HeatmapUpload(ctx, n, sc.Shard.ID); err != nil {
			t.Logger.Info("no heatmap", "shard", sc.Shard.ID, "node", n.ID, "err", err)
		}
	}
}

// loading is the download of one destination.
type loading struct {
	op    fsm.OperationKind
	have  neon.SecondaryProgress // the last that was heard of it
	until time.Time              // no request begins later
}

// patience is how long a destination may make no progress. A drain waits for a
// secondary that it had to make, but does not let one hold it up that has been there
// and is behind.
func (t *term) patience(sc *plan.Scene, op fsm.OperationKind) time.Duration {
	if op == fsm.OperationDrain && len(sc.Shard.Secondary) <= sc.Tenant.Policy.WantedSecondaries() {
		return min(t.Options.Stalled, warmRequest)
	}
	return t.Options.Stalled
}

// download makes the destination download until it has everything, does not get
// any further, or nobody wants it any more, and returns how far it came. A move that
// is not for an operation makes one request: it is looked at again later.
func (t *term) download(
	ctx context.Context, sc *plan.Scene, step plan.Step, l loading,
) neon.SecondaryProgress {
	since := time.Now()
	for ctx.Err() == nil && time.Now().Before(l.until) {
		st := t.Log.State()
		if now, ok := st.Shard(sc.Shard.ID); !ok || now.PreferredNode != step.Node ||
			st.Splitting(now.ID.Tenant) {
			break
		}
		done, err := t.Migrations.SecondaryDownload(ctx, sc.Node(step.Node), sc.Shard.ID,
			min(t.Options.WarmRequest, warmRequest))
		most := l.have.BytesDownloaded
		if p, serr := t.Migrations.SecondaryStatus(ctx, sc.Node(step.Node),
			sc.Shard.ID); serr == nil {
			l.have = p
		}
		if err != nil || done || l.op == fsm.OperationNone {
			break
		}
		if l.have.BytesDownloaded > most {
			since = time.Now()
		}
		if time.Since(since) >= t.patience(sc, l.op) || pause(ctx, t.Options.RetryMin) != nil {
			break
		}
	}
	return l.have
}

// warmEnough tells whether a destination has enough for a move. A tenant without
// timelines has nothing to download, and no heatmap either.
func (t *term) warmEnough(sc *plan.Scene, p neon.SecondaryProgress, op fsm.OperationKind) bool {
	if p.HeatmapMtime == nil {
		n := sc.Node(sc.Shard.Attached)
		if n == nil || !n.Available() {
			return false
		}
		ctx, cancel := context.WithTimeout(t.ctx, t.Options.LookTimeout)
		defer cancel()
		timelines, err := t.Migrations.Timelines(ctx, n, sc.Shard.ID)
		return err == nil && len(timelines) == 0
	}
	lag := p.BytesTotal - min(p.BytesTotal, p.BytesDownloaded)
	switch {
	case op == fsm.OperationDrain:
		return lag <= t.Options.MaxSecondaryLag
	case p.BytesTotal < freshness:
		return lag == 0
	}
	return lag <= freshness
}

// giveUp ends a move whose destination stays cold: the shard stays where it is.
func (t *term) giveUp(sc *plan.Scene, to neon.NodeID) error {
	t.Logger.Info("shard stays where it is: its destination is too far behind",
		"shard", sc.Shard.ID, "node", sc.Shard.Attached, "destination", to)
	in, ok := scheduler.New(t.Log.State(), t.loads()).GiveUp(sc.Shard)
	if !ok {
		return nil
	}
	if _, err := t.Log.Propose(t.ctx, fsm.RequestID{},
		fsm.SetIntents{Intents: []fsm.Intent{in}}); err != nil {
		return fmt.Errorf("give up a move: %w", err)
	}
	return nil
}
