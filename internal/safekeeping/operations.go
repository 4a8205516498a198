package safekeeping

import (
	"context"
	"errors"
	"fmt"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/wait"
)

const (
	// opTries is how often an operation is tried before it makes room for others of
	// the same safekeeper.
	opTries = 10

	// opTime bounds one try. A pull may have to copy a long log.
	opTime   = 10 * time.Second
	pullTime = 5 * time.Minute

	// rescanInterval is how often the state is read although nothing has changed. A
	// safekeeper may have operations that failed and wait for their turn.
	rescanInterval = 5 * time.Second
)

// operations starts what safekeepers owe, as far as there is room, until the term
// ends. Then it joins what it started.
func (t *term) operations() {
	defer t.wg.Wait()
	tick := time.NewTicker(rescanInterval)
	defer tick.Stop()
	for {
		st := t.Log.State()
		for k := range st.Safekeepers() {
			if k.Scheduling == neon.SafekeeperActive {
				t.launch(st, k)
			}
		}
		select {
		case <-t.ctx.Done():
			return
		case <-t.wakeup:
		case <-tick.C:
		}
	}
}

// launch starts operations of one safekeeper. Each call goes on after the operation at
// which the last one stopped, and begins again at the end. So a few operations that
// always fail do not keep the rest from their turn.
func (t *term) launch(st *fsm.State, k *fsm.Safekeeper) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for range 2 {
		begin := t.cursor[k.ID]
		for op := range st.SafekeeperOps(k.ID, begin) {
			if t.queued[k.ID] >= t.Options.PerSafekeeper {
				return
			}
			t.cursor[k.ID] = op
			if _, busy := t.busy[keyOf(&op)]; busy {
				continue
			}
			t.busy[keyOf(&op)] = struct{}{}
			t.queued[k.ID]++
			t.wg.Go(func() { t.retry(op) })
		}
		t.cursor[k.ID] = fsm.SafekeeperOp{}
		if begin == (fsm.SafekeeperOp{}) {
			return
		}
	}
}

// retry tries one operation until it is done, is not owed any more, or has failed
// opTries times.
func (t *term) retry(op fsm.SafekeeperOp) {
	defer func() {
		t.mu.Lock()
		delete(t.busy, keyOf(&op))
		t.queued[op.Safekeeper]--
		t.mu.Unlock()
		t.wakeup.Set()
	}()
	for n := range opTries {
		if n > 0 && wait.Sleep(t.ctx, t.Options.RetryPause) != nil {
			return
		}
		err := t.try(op)
		switch {
		case err == nil || t.ctx.Err() != nil:
			return
		case n == 0 || n == opTries-1:
			t.Logger.Info("an operation on a safekeeper failed and will be tried again",
				"safekeeper", op.Safekeeper, "op", op.Kind, "tenant", op.Tenant,
				"timeline", op.Timeline, "err", err)
		}
	}
}

var (
	errPaused = errors.New("the safekeeper is not active")

	// An exclusion waits until a quorum of the members does not need the excluded
	// safekeeper any more.
	errNeeded = errors.New("the members do not know yet that it is excluded")
)

// try carries an operation out and records that in the log. It decides on a state that
// holds everything acknowledged: a leader that does not know yet that it was deposed must
// not drop a timeline whose member the safekeeper has become again.
func (t *term) try(op fsm.SafekeeperOp) error {
	st, err := t.Log.ReadState(t.ctx)
	if err != nil {
		return err
	}
	if owed, ok := st.SafekeeperOp(op.Safekeeper, op.Tenant, op.Timeline); !ok || owed != op {
		return nil
	}
	k, ok := st.Safekeeper(op.Safekeeper)
	if !ok || k.Scheduling != neon.SafekeeperActive {
		return errPaused
	}
	if err := t.perform(st, &k, op); err != nil {
		return err
	}
	if _, err := t.Log.Propose(t.ctx, fsm.RequestID{},
		fsm.FinishSafekeeperOps{Ops: []fsm.SafekeeperOp{op}}); err != nil {
		return fmt.Errorf("done, but not recorded: %w", err)
	}
	t.Metrics.SafekeeperDone(&k)
	t.Logger.Info("an operation on a safekeeper was carried out",
		"safekeeper", op.Safekeeper, "op", op.Kind, "tenant", op.Tenant, "timeline", op.Timeline)
	return nil
}

func (t *term) perform(st *fsm.State, k *fsm.Safekeeper, op fsm.SafekeeperOp) error {
	limit := opTime
	if op.Kind == fsm.OpPull {
		limit = pullTime
	}
	ctx, cancel := context.WithTimeout(t.ctx, limit)
	defer cancel()
	tl, known := st.Timeline(op.Tenant, op.Timeline)
	switch {
	case op.WholeTenant():
		return t.Calls.DeleteTenant(ctx, k, op.Tenant)
	case op.Kind == fsm.OpDelete:
		return t.Calls.DeleteTimeline(ctx, k, op.Ref())
	case !known:
		return nil
	case op.Kind == fsm.OpPull && tl.Member(k.ID):
		return t.pull(ctx, st, k, &tl)
	case op.Kind == fsm.OpExclude && !tl.Deleted && tl.QuorumAcknowledged < op.Generation:
		return errNeeded
	case op.Kind == fsm.OpExclude && !tl.Member(k.ID):
		return t.exclude(ctx, st, k, &tl)
	}
	return nil
}

// pull makes a member copy a timeline from the others.
func (t *term) pull(ctx context.Context, st *fsm.State, k *fsm.Safekeeper, tl *fsm.Timeline) error {
	conf := st.Membership(tl)
	req := neon.PullTimelineRequest{
		Tenant: tl.Tenant, Timeline: tl.ID, HTTPHosts: neon.List[string]{}, Membership: &conf,
	}
	for _, id := range tl.Set {
		if donor, ok := st.Safekeeper(id); ok && id != k.ID {
			req.HTTPHosts = append(req.HTTPHosts, t.Calls.BaseURL(&donor))
		}
	}
	if len(req.HTTPHosts) == 0 {
		return nil // it is the only member, so no other has more
	}
	_, err := t.Calls.PullTimeline(ctx, k, req)
	return err
}

// exclude makes a safekeeper drop a timeline that it is no member of, under the
// newest configuration. It never deletes. A deletion would take the log in remote storage
// away from the members, and would also drop the timeline of one that is a member again.
func (t *term) exclude(
	ctx context.Context, st *fsm.State, k *fsm.Safekeeper, tl *fsm.Timeline,
) error {
	return t.Calls.ExcludeTimeline(ctx, k, tl.Ref(), st.Membership(tl))
}
