package reconciler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"quorate/api/neon"
	"quorate/internal/wait"
	"quorate/reconciler/plan"
)

// baseline is what the destination of a live migration has to replay: what the origin had
// when the destination first tried. The origin goes on, so that a destination that is
// behind would never reach a goal that is set anew for each try.
type baseline struct {
	generation neon.Generation
	node       neon.NodeID // the destination
	lsns       map[neon.TimelineID]neon.Lsn
}

// isFor reports whether a baseline is that of a step.
func (b *baseline) isFor(sc *plan.Scene, step plan.Step) bool {
	return b.generation == sc.Shard.Generation && b.node == step.Node
}

// catchUp lets the destination replay what the origin had, or has now if this is the first
// try in this generation. A timeline that the destination does not have was deleted
// meanwhile.
func (m *mover) catchUp(ctx context.Context, sc *plan.Scene, step plan.Step) error {
	ctx, cancel := context.WithTimeout(ctx, m.opts.CatchUpTimeout)
	defer cancel()
	if !m.baseline.isFor(sc, step) {
		lsns, err := m.migrations.Timelines(ctx, sc.Node(step.From), sc.Shard.ID)
		if err != nil {
			return fmt.Errorf("%w: baseline of node %d: %w", errOrigin, step.From, err)
		}
		*m.baseline = baseline{sc.Shard.Generation, step.Node, lsns}
	}
	for want := m.baseline.lsns; len(want) > 0; {
		if _, err := m.migrations.WaitLSN(ctx, sc.Node(step.Node), sc.Shard.ID, want,
			10*time.Second); errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("catching up of node %d: %w", step.Node, err)
		}
		have, err := m.migrations.Timelines(ctx, sc.Node(step.Node), sc.Shard.ID)
		if err == nil && reached(have, want) {
			break
		}
		if err := wait.Sleep(ctx, 500*time.Millisecond); err != nil {
			return fmt.Errorf("node %d does not catch up: %w", step.Node, err)
		}
	}
	m.seen.SetCaughtUp(sc.Shard.ID, step.Node)
	return nil
}

func reached(have, want map[neon.TimelineID]neon.Lsn) bool {
	for id, lsn := range want {
		if at, ok := have[id]; ok && at < lsn {
			return false
		}
	}
	return true
}
