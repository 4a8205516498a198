package reconciler

import (
	"context"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/reconciler/plan"
)

// timelinesTimeout is for an answer with as many records as a shard has timelines.
const timelinesTimeout = 30 * time.Second

// questions are the calls of one long step. Each has its own time limit, and tells
// whether its node answers: the step as a whole may well take long.
type questions struct {
	calls *calls
	to    Migrations
	task  *task
	scene *plan.Scene
}

func (q *questions) look() time.Duration { return q.calls.opts.LookTimeout }

// limits are how long a question may well take, and how long at most.
type limits struct{ usual, most time.Duration }

func (q *questions) ask(
	ctx context.Context, n *fsm.Node, l limits,
	question func(context.Context) error,
) error {
	limited, cancel := context.WithTimeout(ctx, l.most)
	defer cancel()
	call := nodeCall{
		node: n.ID, shard: q.task.ID, kind: asking, sequence: q.scene.Shard.Sequence,
		patience: l.usual,
	}
	end := q.calls.note(q.task, call)
	err := question(limited)
	end(outcomeOf(err, ctx.Err()))
	return err
}

func (q *questions) SecondaryDownload(
	ctx context.Context, node *fsm.Node, shard neon.ShardID, wait time.Duration,
) (done bool, p neon.SecondaryProgress, err error) {
	err = q.ask(ctx, node, limits{wait, max(2*wait, q.look())}, func(ctx context.Context) error {
		done, p, err = q.to.SecondaryDownload(ctx, node, shard, wait)
		return err
	})
	return done, p, err
}

func (q *questions) SecondaryStatus(
	ctx context.Context, node *fsm.Node, shard neon.ShardID,
) (p neon.SecondaryProgress, err error) {
	err = q.ask(ctx, node, limits{0, q.look()}, func(ctx context.Context) error {
		p, err = q.to.SecondaryStatus(ctx, node, shard)
		return err
	})
	return p, err
}

func (q *questions) HeatmapUpload(
	ctx context.Context, node *fsm.Node, shard neon.ShardID,
) error {
	return q.ask(ctx, node, limits{0, 2 * q.look()}, func(ctx context.Context) error {
		return q.to.HeatmapUpload(ctx, node, shard)
	})
}

func (q *questions) Timelines(
	ctx context.Context, node *fsm.Node, shard neon.ShardID,
) (at map[neon.TimelineID]neon.Lsn, err error) {
	err = q.ask(ctx, node, limits{0, timelinesTimeout}, func(ctx context.Context) error {
		at, err = q.to.Timelines(ctx, node, shard)
		return err
	})
	return at, err
}

func (q *questions) WaitLSN(
	ctx context.Context, node *fsm.Node, shard neon.ShardID, want map[neon.TimelineID]neon.Lsn,
	timeout time.Duration,
) (reached bool, err error) {
	err = q.ask(ctx, node, limits{timeout, timeout + 2*q.look()}, func(ctx context.Context) error {
		reached, err = q.to.WaitLSN(ctx, node, shard, want, timeout)
		return err
	})
	return reached, err
}
