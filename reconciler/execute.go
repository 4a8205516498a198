package reconciler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"quorate/fsm"
	"quorate/internal/neon"
	"quorate/scheduler"
)

// execute carries out Look, Issue, Put and Move. errDeferred means that the task was
// parked and comes back by itself.
func (t *term) execute(k *task, sc *Scene, step Step) error {
	switch step.Kind {
	case Look:
		return t.look(k, sc, step)
	case Issue:
		return t.issue(sc, step)
	case Put:
		return t.put(k, sc, step)
	case Move:
		return t.move(sc, step)
	}
	return fmt.Errorf("step %s is not for a worker", stepName(step.Kind))
}

// issue commits the next generation. A refusal means that the shard moved since
// it was read, and the next turn will see how.
func (t *term) issue(sc *Scene, step Step) error {
	_, err := t.Log.Propose(t.ctx, fsm.RequestID{}, fsm.IssueGenerations{Items: []fsm.Issue{{
		Shard: sc.Shard.ID, Node: step.Node, Generation: sc.Shard.Generation,
	}}})
	return err
}

// move commits that a warm secondary is the intended node from now on. A refusal
// means that the shard moved since it was read.
func (t *term) move(sc *Scene, step Step) error {
	in, err := scheduler.New(t.Log.State(), t.loads()).Migrate(sc.Shard, step.Node, scheduler.OverrideScheduler)
	if err != nil {
		return err
	}
	_, err = t.Log.Propose(t.ctx, fsm.RequestID{}, fsm.SetIntents{Intents: []fsm.Intent{in}})
	return err
}

// look asks one node about one shard. While the node is being listed the answer
// is on its way already.
func (t *term) look(k *task, sc *Scene, step Step) error {
	if t.nodes.awaitListing(step.Node, k.id) {
		t.queue.finish(k)
		return errDeferred
	}
	if !t.queue.acquire(step.Node, k) {
		return errDeferred
	}
	defer t.queue.release(step.Node)
	up, stop := t.whileUp(step.Node)
	defer stop()
	ctx, cancel := context.WithTimeout(up, t.Options.LookTimeout)
	defer cancel()
	began := t.seen.reading()
	conf, err := t.Locations.Location(ctx, sc.Node(step.Node), k.id)
	switch {
	case errors.Is(err, ErrAbsent):
		t.seen.looked(k.id, step.Node, &Conf{}, began)
		return nil
	case err != nil:
		return err
	case conf == nil:
		t.seen.looked(k.id, step.Node, nil, began)
		return fmt.Errorf("node %d is changing the location", step.Node)
	}
	t.seen.looked(k.id, step.Node, unwire(conf), began)
	return nil
}

// put makes a location be what the step says. The location is unknown from before
// the call until an answer comes.
func (t *term) put(k *task, sc *Scene, step Step) error {
	if !t.queue.acquire(step.Node, k) {
		return errDeferred
	}
	defer t.queue.release(step.Node)
	node := sc.Node(step.Node)
	conf := step.Conf
	if conf.Mode == "" {
		conf.Mode = neon.Detached
	}
	body := wire(k.id, conf)
	body.StripeSize = sc.Tenant.Stripe // an unsharded tenant needs it once it splits
	opts := PutOptions{Lazy: true}
	if step.Flush {
		opts.Flush = t.Options.FlushBeforeMove
	}
	up, stop := t.whileUp(step.Node)
	defer stop()
	if up.Err() != nil {
		return fmt.Errorf("node %d is not available", step.Node)
	}
	ctx, cancel := context.WithTimeout(up, t.Options.PutTimeout)
	defer cancel()
	t.seen.beginCall(k.id, step.Node, conf.Generation)
	err := t.Locations.PutLocation(ctx, node, k.id, body, opts)
	now, _ := t.Log.State().Node(step.Node)
	t.seen.endCall(k.id, step.Node, step.Conf, err == nil && now.Incarnation == node.Incarnation)
	if err != nil && up.Err() != nil {
		return t.ctx.Err() // the node went down: what to do now is decided anew
	}
	return err
}

// longStep is a worker's turn in the pool of long steps. Afterwards the shard is
// looked at again as any other.
func (t *term) longStep(k *task) {
	step := *k.step
	sc, ok := t.scene(t.Log.State(), k)
	var err error
	if ok && t.ctx.Err() == nil {
		ctx, stop := t.whileUp(step.Node)
		if step.Kind == Warm {
			err = t.warm(ctx, sc, step)
		} else {
			err = t.catchUp(ctx, sc, step)
		}
		stop()
	}
	t.queue.mu.Lock()
	k.step = nil
	k.again = true
	t.queue.mu.Unlock()
	if err != nil && t.ctx.Err() == nil {
		// The origin may have stopped serving: look before the next try.
		t.seen.looked(k.id, step.From, nil, t.seen.reading())
		t.failed(k, sc, step, err)
		return
	}
	t.queue.finish(k)
}

// whileUp is the term's context, ended also when a node stops being available.
func (t *term) whileUp(n neon.NodeID) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.ctx)
	stop := t.nodes.onDown(n, cancel)
	return ctx, func() { stop(); cancel() }
}

// warm lets the destination download. A destination that stays cold does not stop
// the move: the cut-over is only slower.
func (t *term) warm(ctx context.Context, sc *Scene, step Step) error {
	ctx, cancel := context.WithTimeout(ctx, t.Options.WarmTimeout)
	defer cancel()
	for ctx.Err() == nil {
		if now, ok := t.Log.State().Shard(sc.Shard.ID); !ok || now.Attached != step.Node && now.PreferredNode != step.Node {
			return nil // somebody changed their mind
		}
		done, err := t.Migrations.SecondaryDownload(ctx, sc.Node(step.Node), sc.Shard.ID, t.Options.WarmRequest)
		if err != nil || done {
			if err != nil {
				t.Logger.Info("destination stays cold", "shard", sc.Shard.ID, "node", step.Node, "err", err)
			}
			break
		}
	}
	t.seen.progress(sc.Shard.ID, func(sh *shardSeen) { sh.warm = step.Node })
	return nil
}

// catchUp lets the destination replay what the origin has now. A timeline that
// the destination does not have was deleted meanwhile.
func (t *term) catchUp(ctx context.Context, sc *Scene, step Step) error {
	ctx, cancel := context.WithTimeout(ctx, t.Options.CatchUpTimeout)
	defer cancel()
	want, err := t.Migrations.Timelines(ctx, sc.Node(step.From), sc.Shard.ID)
	if err != nil {
		return fmt.Errorf("baseline of node %d: %w", step.From, err)
	}
	for len(want) > 0 {
		if err := t.Migrations.WaitLSN(ctx, sc.Node(step.Node), sc.Shard.ID, want, 10*time.Second); err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		have, err := t.Migrations.Timelines(ctx, sc.Node(step.Node), sc.Shard.ID)
		if err == nil && reached(have, want) {
			break
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return fmt.Errorf("node %d does not catch up: %w", step.Node, err)
		}
	}
	t.seen.progress(sc.Shard.ID, func(sh *shardSeen) { sh.caughtUp = step.Node })
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

// pause waits, or returns the context's error.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
