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

// catchUp lets the destination replay what the origin has now. A timeline that
// the destination does not have was deleted meanwhile.
func (m *mover) catchUp(ctx context.Context, sc *plan.Scene, step plan.Step) error {
	ctx, cancel := context.WithTimeout(ctx, m.opts.CatchUpTimeout)
	defer cancel()
	want, err := m.migrations.Timelines(ctx, sc.Node(step.From), sc.Shard.ID)
	if err != nil {
		return fmt.Errorf("%w: baseline of node %d: %w", errOrigin, step.From, err)
	}
	for len(want) > 0 {
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
