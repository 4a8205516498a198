package reconciler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/reconciler/plan"
	"quorate/scheduler"
)

// execute carries out Look, Issue, Put and Move. errDeferred means that the task was
// parked and comes back by itself.
func (t *term) execute(k *task, sc *plan.Scene, step plan.Step) error {
	switch step.Kind {
	case plan.Look:
		return t.look(k, sc, step)
	case plan.Issue:
		return t.issue(sc, step)
	case plan.Put:
		return t.put(k, sc, step)
	case plan.Move:
		return t.move(sc, step)
	}
	return fmt.Errorf("step %s is not for a worker", step.Kind)
}

// issue commits the next generation. A refusal means that the shard moved since
// it was read, and the next turn will see how.
func (t *term) issue(sc *plan.Scene, step plan.Step) error {
	_, err := t.Log.Propose(t.ctx, fsm.RequestID{}, fsm.IssueGenerations{Items: []fsm.Issue{{
		Shard: sc.Shard.ID, Node: step.Node, Generation: sc.Shard.Generation,
	}}})
	return err
}

// move commits that a warm secondary is the intended node from now on. A refusal
// means that the shard moved since it was read.
func (t *term) move(sc *plan.Scene, step plan.Step) error {
	in, ok := scheduler.New(t.Log.State(), t.loads()).Arrive(sc.Shard)
	if !ok || in.Attached != step.Node {
		return nil // it was decided otherwise meanwhile
	}
	_, err := t.Log.Propose(t.ctx, fsm.RequestID{}, fsm.SetIntents{Intents: []fsm.Intent{in}})
	return err
}

// look asks one node about one shard. While the node is being listed the answer
// is on its way already.
func (t *term) look(k *task, sc *plan.Scene, step plan.Step) error {
	if t.nodes.awaitListing(step.Node, k.id) {
		t.calm(k)
		t.queue.finish(k)
		return errDeferred
	}
	if !t.queue.acquire(step.Node, k) {
		return errDeferred
	}
	defer t.queue.release(step.Node)
	up, stop := t.whileUp(k, step.Node)
	defer stop()
	ctx, cancel := context.WithTimeout(up, t.Options.LookTimeout)
	defer cancel()
	began := t.seen.reading()
	conf, err := t.Locations.Location(ctx, sc.Node(step.Node), k.id)
	switch {
	case errors.Is(err, ErrAbsent):
		t.seen.looked(k.id, step.Node, &plan.Conf{}, began)
		return nil
	case err != nil:
		return err
	case conf == nil:
		t.seen.looked(k.id, step.Node, nil, began)
		return fmt.Errorf("node %d is changing the location", step.Node)
	}
	t.seen.looked(k.id, step.Node, plan.ConfOf(conf), began)
	return nil
}

// put makes a location be what the step says. The location is unknown from before
// the call until an answer comes.
func (t *term) put(k *task, sc *plan.Scene, step plan.Step) error {
	if !t.queue.acquire(step.Node, k) {
		return errDeferred
	}
	defer t.queue.release(step.Node)
	node := sc.Node(step.Node)
	conf := step.Conf
	if conf.Mode == "" {
		conf.Mode = neon.Detached
	}
	body := conf.LocationConfig(k.id)
	body.StripeSize = sc.Tenant.Stripe // an unsharded tenant needs it once it splits
	opts := PutOptions{Lazy: true}
	if step.Flush {
		opts.Flush = t.Options.FlushBeforeMove
	}
	up, stop := t.whileUp(k, step.Node)
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
	if err != nil {
		t.nodes.doubt(step.Node)
	}
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
	// it may have been deleted meanwhile
	lives := func(n neon.NodeID) bool { return n == 0 || sc.Node(n) != nil }
	if ok && t.ctx.Err() == nil && lives(step.Node) && lives(step.From) {
		ctx, stop := t.whileUp(k, step.Node, step.From)
		switch {
		case step.Kind == plan.CatchUp:
			err = t.catchUp(ctx, sc, step)
		case sc.Shard.Attached == step.Node:
			err = t.warm(ctx, sc, step)
		default:
			err = t.prewarm(ctx, sc, step)
		}
		if ctx.Err() != nil {
			err = nil // a node went down: what to do now is decided anew
		}
		stop()
	}
	if t.queue.isCancelled(k) {
		err = nil
		t.seen.progress(k.id, func(sh *shardSeen) { sh.warm = 0 }) // it is not for being cut short
	}
	t.queue.mu.Lock()
	k.step = nil
	k.again = true
	t.queue.mu.Unlock()
	if errors.Is(err, errCold) && t.ctx.Err() == nil {
		t.queue.note(k, cold, fmt.Sprintf("secondary on node %d isn't ready", step.Node))
		t.queue.retry(k, t.coldRetry())
		return
	}
	if err != nil && t.ctx.Err() == nil {
		// The origin may have stopped serving, or a secondary be gone: look before
		// the next try.
		t.seen.looked(k.id, cmp.Or(step.From, step.Node), nil, t.seen.reading())
		if errors.Is(err, errOrigin) {
			k.blame(step.From)
		}
		t.failed(k, sc, step, err)
		return
	}
	t.queue.finish(k)
}

// whileUp is the term's context, ended also when one of some nodes, zero for none,
// stops being available, or somebody cancels the work on the shard.
func (t *term) whileUp(k *task, nodes ...neon.NodeID) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.ctx)
	t.queue.during(k, cancel)
	var stops []func()
	for _, n := range nodes {
		if n != 0 {
			stops = append(stops, t.nodes.onDown(n, cancel))
		}
	}
	return ctx, func() {
		t.queue.during(k, nil)
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}

// catchUp lets the destination replay what the origin has now. A timeline that
// the destination does not have was deleted meanwhile.
func (t *term) catchUp(ctx context.Context, sc *plan.Scene, step plan.Step) error {
	ctx, cancel := context.WithTimeout(ctx, t.Options.CatchUpTimeout)
	defer cancel()
	want, err := t.Migrations.Timelines(ctx, sc.Node(step.From), sc.Shard.ID)
	if err != nil {
		return fmt.Errorf("%w: baseline of node %d: %w", errOrigin, step.From, err)
	}
	for len(want) > 0 {
		if err := t.Migrations.WaitLSN(ctx, sc.Node(step.Node), sc.Shard.ID, want,
			10*time.Second); err != nil && ctx.Err() != nil {
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
