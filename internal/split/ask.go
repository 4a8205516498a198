package split

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/wait"
)

const (
	// lookPause is the pause between two looks at a pageserver that is splitting.
	lookPause = 100 * time.Millisecond

	// lookTries is how often a pageserver is looked at that does not answer.
	lookTries = 5

	// lateTime bounds the wait for a split whose answer was lost.
	lateTime = 5 * time.Minute
)

// ask has every parent split and returns when all children are attached in their
// parents' generations and the parents are not. Each pageserver is asked at most
// once; a split whose answer was lost is recognised by what it left, unless the
// answer took longer than a request may. The error is for the client.
//
// When one parent fails, no other one is begun. Those that are under way are waited for: a
// pageserver goes on with what it has begun, and the roll-back waits for it anyway.
func (p *Splitter) ask(ctx context.Context, sp fsm.Split) error {
	calls, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g, ctx := errgroup.WithContext(calls)
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		p.watch(calls, sp, done, cancel)
	}()
	if p.Failpoints.Armed("shard-split-post-remote-sleep") {
		// The test that sets this looks at one that was split while the next was not.
		g.SetLimit(1)
	}
	for _, parent := range sp.Parents {
		g.Go(func() error { return p.askOne(ctx, calls, sp, parent) })
	}
	err := g.Wait()
	close(done)
	<-watched
	return err
}

// watch ends a split whose pageserver went away or that was ended meanwhile.
func (p *Splitter) watch(
	ctx context.Context, sp fsm.Split, done <-chan struct{}, cancel context.CancelCauseFunc,
) {
	for {
		changed := p.Log.Changed()
		s := p.Log.State()
		if now, ok := s.Split(sp.Tenant); !ok || now.Began != sp.Began ||
			now.Phase != fsm.SplitAsking {
			cancel(neon.Errorf(neon.Conflict, "Failed to split %s: it is being rolled back",
				sp.Tenant))
			return
		}
		for _, parent := range sp.Parents {
			if node, ok := s.Node(parent.Node); !ok || !node.Available() {
				cancel(neon.Errorf(neon.Conflict,
					"Failed to split %s: pageserver %s is not available", parent.Shard,
					parent.Node))
				return
			}
		}
		select {
		case <-done:
			return
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// askOne has one parent split. What has no effect ends with ctx, the call with calls.
func (p *Splitter) askOne(
	ctx, calls context.Context, sp fsm.Split, parent fsm.SplitParent,
) error {
	node, ok := p.Log.State().Node(parent.Node)
	if !ok || !node.Available() {
		return neon.Errorf(neon.Conflict, "Failed to split %s: pageserver %s is not available",
			parent.Shard, parent.Node)
	}
	switch v, err := p.look(ctx, sp, parent, &node); {
	case err != nil:
		return splitFailed(ctx, parent.Shard, err)
	case v == allChildren:
		return p.deleteStrayTimelines(ctx, sp, parent, &node)
	case v != onlyParent:
		return neon.Errorf(neon.Conflict, "Failed to split %s: the pageserver has %s", parent.Shard,
			v)
	}
	if err := p.takeInventory(ctx, sp, parent, &node); err != nil {
		return splitFailed(ctx, parent.Shard, err)
	}
	req := neon.ShardSplitRequest{Count: uint8(sp.Count)}
	if parent.Shard.Count.Shards() == 1 {
		req.StripeSize = &sp.Stripe
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	children, asked := p.Pageservers.ShardSplit(calls, &node, parent.Shard, req,
		p.Options.RequestTimeout)
	if answered(asked) ||
		asked != nil && p.Options.RequestTimeout > 0 && neon.CodeOf(asked) == neon.Timeout {
		return splitFailed(ctx, parent.Shard, asked)
	}
	if asked == nil {
		if err := p.fail(ctx, "shard-split-post-remote", neon.Conflict); err != nil {
			return err
		}
		if err := p.Failpoints.Sleep(ctx, "shard-split-post-remote-sleep"); err != nil {
			return splitFailed(ctx, parent.Shard, err)
		}
	}
	if want := sp.Children(parent.Shard); asked == nil && !slices.Equal(children, want) {
		return neon.Errorf(neon.Internal,
			"Splitting shard %s resulted in unexpected IDs: %v (expected %v)", parent.Shard,
			children, want)
	}
	v, err := p.look(ctx, sp, parent, &node)
	switch {
	case err == nil && v == allChildren:
		p.Logger.Info("Split a shard", "shard", parent.Shard.String(), "node", parent.Node.String(),
			"count", sp.Count)
		return p.deleteStrayTimelines(ctx, sp, parent, &node)
	case asked != nil:
		return splitFailed(ctx, parent.Shard, asked)
	case err != nil:
		return splitFailed(ctx, parent.Shard, err)
	}
	return neon.Errorf(neon.Conflict, "Failed to split %s: the pageserver has %s", parent.Shard, v)
}

// answered reports whether a pageserver has said that a split failed. Then it is rolled back
// whatever is there: what a pageserver has called a failure it may undo.
func answered(err error) bool {
	var status interface{ HTTPStatus() int }
	return errors.As(err, &status) && status.HTTPStatus() != 0
}

// splitFailed is the error of a split that failed on a pageserver, or, when it was
// ended from here, the reason for that.
func splitFailed(ctx context.Context, shard neon.ShardID, err error) error {
	if cause := context.Cause(ctx); cause != nil && neon.CodeOf(cause) == neon.Conflict {
		return cause
	}
	return neon.Errorf(neon.Conflict, "Failed to split %s: %w", shard, err)
}

// view is what a pageserver has of a parent and its children.
type view uint8

const (
	inBetween   view = iota // neither of the others
	onlyParent              // the parent, attached in its generation, and no child
	allChildren             // all children, attached in that generation, and no parent
)

func (v view) String() string {
	return [...]string{
		"neither the shard alone nor all its children", "only the shard", "all children",
	}[v]
}

// look finds out how far a pageserver is, and waits as long as it is working. What
// is in between has to be seen twice: a split may end between two questions.
func (p *Splitter) look(
	ctx context.Context, sp fsm.Split, parent fsm.SplitParent, node *fsm.Node,
) (view, error) {
	deadline := time.Now().Add(lateTime)
	failures, odd := 0, 0
	for {
		v, busy, err := p.lookOnce(ctx, sp, parent, node)
		switch {
		case err != nil:
			failures++
			if failures >= lookTries || ctx.Err() != nil {
				return v, err
			}
		case busy:
			failures, odd = 0, 0
			if time.Now().After(deadline) {
				return v, neon.Errorf(neon.Timeout, "pageserver %s does not finish", parent.Node)
			}
		case v != inBetween:
			return v, nil
		default:
			if odd++; odd > 1 {
				return v, nil
			}
		}
		if wait.Sleep(ctx, lookPause) != nil {
			return inBetween, context.Cause(ctx)
		}
	}
}

func (p *Splitter) lookOnce(
	ctx context.Context, sp fsm.Split, parent fsm.SplitParent, node *fsm.Node,
) (v view, busy bool, err error) {
	conf, there, err := p.see(ctx, node, parent.Shard)
	if err != nil || there && conf == nil {
		return inBetween, err == nil, err
	}
	whole := there && conf.Mode == neon.AttachedSingle && holds(conf, parent.Generation)
	children, exact := 0, 0
	want := sp.Children(parent.Shard)
	for _, id := range want {
		child, found, err := p.see(ctx, node, id)
		switch {
		case err != nil || found && child == nil:
			return inBetween, err == nil, err
		case !found:
			continue
		}
		children++
		if child.Mode == neon.AttachedSingle && holds(child, parent.Generation) {
			exact++
		}
	}
	switch {
	case whole && children == 0:
		return onlyParent, false, nil
	case !there && exact == len(want):
		return allChildren, false, nil
	}
	return inBetween, false, nil
}

func holds(conf *neon.LocationConfig, g neon.Generation) bool {
	return conf.Generation != nil && *conf.Generation == g
}
