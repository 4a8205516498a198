package reconciler

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/wait"
	"quorate/reconciler/observed"
	"quorate/reconciler/plan"
	"quorate/scheduler"
)

// mover makes the long steps of moves: warming and catching up. It has no state of
// its own: what is to be remembered of a shard is in its task.
type mover struct {
	ctx        context.Context
	opts       Options
	log        decide.Log
	migrations Migrations
	baseline   *baseline // of the shard that is moved
	logger     *slog.Logger
	seen       *observed.Locations
	limits     *warmLimits
	loads      func() map[neon.NodeID]scheduler.Load
}

// warm lets the destination download what the location it takes over from has now.
// A destination that stays cold does not stop the move: the cut-over is only
// slower. The time is looked at between requests: a pageserver complains of one that
// is dropped.
func (m *mover) warm(up context.Context, sc *plan.Scene, step plan.Step) error {
	total, request := m.limits.of(sc.Shard.ID)
	m.publish(up, sc, step.From)
	for began := time.Now(); up.Err() == nil; {
		if now, ok := m.log.State().Shard(sc.Shard.ID); !ok || now.Attached != step.Node {
			return nil // it was decided otherwise meanwhile
		}
		done, _, err := m.migrations.SecondaryDownload(up, sc.Node(step.Node), sc.Shard.ID, request)
		if err != nil {
			m.logger.Info("destination stays cold", "shard", sc.Shard.ID, "node", step.Node,
				"err", err)
		}
		if err != nil || done || time.Since(began) >= total ||
			wait.Sleep(up, m.opts.RetryMin) != nil {
			break
		}
	}
	if up.Err() == nil {
		m.seen.SetWarm(sc.Shard.ID, step.Node)
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
// as the purpose of the move demands: a drain leaves the shard where it is, and so does a
// fill that had to make the secondary; a fill of a secondary that was there and a deletion
// move it nevertheless, and every other move waits on.
func (m *mover) prewarm(ctx context.Context, sc *plan.Scene, step plan.Step) error {
	until := time.Now().Add(m.opts.WarmTimeout)
	op := purpose(sc, step.Node)
	have, err := m.migrations.SecondaryStatus(ctx, sc.Node(step.Node), sc.Shard.ID)
	if err != nil {
		return fmt.Errorf("how warm node %d is: %w", step.Node, err)
	}
	if op == fsm.OperationNone && !m.warmEnough(ctx, sc, have, op) {
		m.logger.Info(fmt.Sprintf(
			"Skipping migration of %s to %d because secondary isn't ready: %d of %d bytes",
			sc.Shard.ID, step.Node, have.BytesDownloaded, have.BytesTotal))
	}
	if have.HeatmapMtime == nil {
		m.publish(ctx, sc, sc.Shard.Attached)
	}
	have = m.download(ctx, sc, step, loading{op: op, have: have, until: until})
	if now, ok := m.log.State().Shard(sc.Shard.ID); !ok || now.PreferredNode != step.Node ||
		now.Attached != sc.Shard.Attached {
		return nil // it was decided otherwise meanwhile
	}
	switch {
	case m.warmEnough(ctx, sc, have, op), op == fsm.OperationFill && !madeFor(sc),
		op == fsm.OperationDelete:
		m.seen.SetWarm(sc.Shard.ID, step.Node)
		return nil
	case op == fsm.OperationDrain, op == fsm.OperationFill:
		return m.giveUp(sc, step.Node)
	}
	return errCold
}

// purpose is the operation that a shard moves for, if it does for any.
func purpose(sc *plan.Scene, to neon.NodeID) fsm.OperationKind {
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
func (m *mover) publish(ctx context.Context, sc *plan.Scene, attached neon.NodeID) {
	if n := sc.Node(attached); n != nil && n.Available() {
		if err := m.migrations.HeatmapUpload(ctx, n, sc.Shard.ID); err != nil {
			m.logger.Info("no heatmap", "shard", sc.Shard.ID, "node", n.ID, "err", err)
		}
	}
}

// loading is the download of one destination.
type loading struct {
	op    fsm.OperationKind
	have  neon.SecondaryProgress // the last that was heard of it
	until time.Time              // no request begins later
}

// stallTimeout is how long a destination may make no progress. A drain waits for a
// secondary that it had to make, but does not let one hold it up that has been there
// and is behind.
func (m *mover) stallTimeout(sc *plan.Scene, op fsm.OperationKind) time.Duration {
	if op == fsm.OperationDrain && !madeFor(sc) {
		return min(m.opts.Stalled, warmRequest)
	}
	return m.opts.Stalled
}

// madeFor reports whether a shard has a secondary more than wanted, for its move.
func madeFor(sc *plan.Scene) bool {
	return len(sc.Shard.Secondary) > sc.Tenant.Policy.WantedSecondaries()
}

// download makes the destination download until it has everything, does not get
// any further, or the move was given up, and returns how far it came. A move that
// is not for an operation makes one request: it is looked at again later.
func (m *mover) download(
	ctx context.Context, sc *plan.Scene, step plan.Step, l loading,
) neon.SecondaryProgress {
	since := time.Now()
	for ctx.Err() == nil && time.Now().Before(l.until) {
		st := m.log.State()
		if now, ok := st.Shard(sc.Shard.ID); !ok || now.PreferredNode != step.Node ||
			st.Splitting(now.ID.Tenant) {
			break
		}
		done, p, err := m.migrations.SecondaryDownload(ctx, sc.Node(step.Node), sc.Shard.ID,
			min(m.opts.WarmRequest, warmRequest))
		var unknown error
		if err != nil { // it may have got further all the same
			p, unknown = m.migrations.SecondaryStatus(ctx, sc.Node(step.Node), sc.Shard.ID)
		}
		most := l.have.BytesDownloaded
		if unknown == nil {
			l.have = p
		}
		if err != nil || done || l.op == fsm.OperationNone {
			break
		}
		if l.have.BytesDownloaded > most {
			since = time.Now()
		}
		if time.Since(since) >= m.stallTimeout(sc, l.op) ||
			wait.Sleep(ctx, m.opts.RetryMin) != nil {
			break
		}
	}
	return l.have
}

// warmEnough reports whether a destination has enough for a move. A tenant without
// timelines has nothing to download, and no heatmap either.
func (m *mover) warmEnough(
	ctx context.Context, sc *plan.Scene, p neon.SecondaryProgress, op fsm.OperationKind,
) bool {
	if p.HeatmapMtime == nil {
		n := sc.Node(sc.Shard.Attached)
		if n == nil || !n.Available() {
			return false
		}
		timelines, err := m.migrations.Timelines(ctx, n, sc.Shard.ID)
		return err == nil && len(timelines) == 0
	}
	lag := p.BytesTotal - min(p.BytesTotal, p.BytesDownloaded)
	switch {
	case op == fsm.OperationDrain:
		return lag <= m.opts.MaxSecondaryLag
	case p.BytesTotal < freshness:
		return lag == 0
	}
	return lag <= freshness
}

// giveUp ends a move whose destination stays cold: the shard stays where it is.
func (m *mover) giveUp(sc *plan.Scene, to neon.NodeID) error {
	m.logger.Info("shard stays where it is: its destination is too far behind",
		"shard", sc.Shard.ID, "node", sc.Shard.Attached, "destination", to)
	in, ok := scheduler.New(m.log.State(), m.loads()).GiveUp(sc.Shard)
	if !ok {
		return nil
	}
	if _, err := m.log.Propose(m.ctx, fsm.RequestID{},
		fsm.SetIntents{Intents: []fsm.Intent{in}}); err != nil {
		return fmt.Errorf("give up a move: %w", err)
	}
	return nil
}
