package reconciler

import (
	"context"
	"fmt"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/reconciler/observed"
	"quorate/reconciler/plan"
	"quorate/scheduler"
)

// calls carries out the short steps: looks and calls about locations, and proposals.
type calls struct {
	ctx       context.Context
	opts      Options
	log       decide.Log
	locations Locations
	seen      *observed.Locations
	queue     *shardQueue
	nodes     callees
}

// callees are the nodes as those who call them see them.
type callees interface {
	// awaitListing reports whether the listing of a node is still to come in this
	// term; it will wake the shard. It is silent as long as the node does not answer
	// its heartbeats.
	awaitListing(n neon.NodeID, id neon.ShardID) (awaited, silent bool)

	// onDown registers a cancel for the moment a node stops being available.
	onDown(n neon.NodeID, cancel context.CancelFunc) (stop func())

	// doubt notes that a call to a node failed and may be carried out later.
	doubt(n neon.NodeID)

	loads() map[neon.NodeID]scheduler.Load
}

// execute carries out Look, Issue, Put and Move. errParked means that the task comes
// back by itself, errListing and silentError that the listing of the node will wake it.
func (c *calls) execute(k *task, sc *plan.Scene, step plan.Step) error {
	switch step.Kind {
	case plan.Look:
		return c.look(k, sc, step)
	case plan.Issue:
		return c.issue(sc, step)
	case plan.Put:
		return c.put(k, sc, step)
	case plan.Move:
		return c.move(sc, step)
	}
	return fmt.Errorf("step %s is not for a worker", step.Kind)
}

// issue commits the next generation. A refusal means that the shard moved since
// it was read, and the next turn will see how.
func (c *calls) issue(sc *plan.Scene, step plan.Step) error {
	_, err := c.log.Propose(c.ctx, fsm.RequestID{}, fsm.IssueGenerations{Items: []fsm.Issue{{
		Shard: sc.Shard.ID, Node: step.Node, Generation: sc.Shard.Generation,
	}}})
	return err
}

// move commits that a warm secondary is the intended node from now on. A refusal
// means that the shard moved since it was read.
func (c *calls) move(sc *plan.Scene, step plan.Step) error {
	in, ok := scheduler.New(c.log.State(), c.nodes.loads()).Arrive(sc.Shard)
	if !ok || in.Attached != step.Node {
		return nil // it was decided otherwise meanwhile
	}
	_, err := c.log.Propose(c.ctx, fsm.RequestID{}, fsm.SetIntents{Intents: []fsm.Intent{in}})
	return err
}

// look asks one node about one shard. While the node is being listed the answer
// is on its way already.
func (c *calls) look(k *task, sc *plan.Scene, step plan.Step) error {
	if awaited, silent := c.nodes.awaitListing(step.Node, k.ID); silent {
		return &silentError{step.Node}
	} else if awaited {
		return errListing
	}
	if !c.queue.Acquire(step.Node, k) {
		return errParked
	}
	defer c.queue.Release(step.Node)
	up, stop := c.whileUp(k, step.Node)
	defer stop()
	ctx, cancel := context.WithTimeout(up, c.opts.LookTimeout)
	defer cancel()
	began := c.seen.Clock()
	conf, found, err := c.locations.Location(ctx, sc.Node(step.Node), k.ID)
	switch {
	case err != nil:
		return err
	case !found:
		c.seen.Looked(k.ID, step.Node, &plan.Conf{}, began)
		return nil
	case conf == nil:
		c.seen.Looked(k.ID, step.Node, nil, began)
		return fmt.Errorf("node %d is changing the location", step.Node)
	}
	c.seen.Looked(k.ID, step.Node, plan.ConfOf(conf), began)
	return nil
}

// put makes a location be what the step says. The location is unknown from before
// the call until an answer comes.
func (c *calls) put(k *task, sc *plan.Scene, step plan.Step) error {
	if !c.queue.Acquire(step.Node, k) {
		return errParked
	}
	defer c.queue.Release(step.Node)
	node := sc.Node(step.Node)
	conf := step.Conf
	if conf.Mode == "" {
		conf.Mode = neon.Detached
	}
	body := conf.LocationConfig(k.ID)
	body.StripeSize = sc.Tenant.Stripe // an unsharded tenant needs it once it splits
	opts := neon.LocationOptions{Lazy: true}
	if step.Flush {
		opts.Flush = c.opts.FlushBeforeMove
	}
	up, stop := c.whileUp(k, step.Node)
	defer stop()
	if up.Err() != nil {
		return fmt.Errorf("node %d is not available", step.Node)
	}
	ctx, cancel := context.WithTimeout(up, c.opts.PutTimeout)
	defer cancel()
	c.seen.BeginCall(k.ID, step.Node, conf.Generation)
	err := c.locations.PutLocation(ctx, node, k.ID, body, opts)
	now, _ := c.log.State().Node(step.Node)
	c.seen.EndCall(k.ID, step.Node, step.Conf, err == nil && now.Incarnation == node.Incarnation)
	if err != nil {
		c.nodes.doubt(step.Node)
	}
	if err != nil && up.Err() != nil {
		return c.ctx.Err() // the node went down: what to do now is decided anew
	}
	return err
}

// whileUp is the term's context. It also ends when one of some nodes, zero for none,
// stops being available, or an operator cancels the work on the shard.
func (c *calls) whileUp(k *task, nodes ...neon.NodeID) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(c.ctx)
	c.queue.During(k, cancel)
	var stops []func()
	for _, n := range nodes {
		if n != 0 {
			stops = append(stops, c.nodes.onDown(n, cancel))
		}
	}
	return ctx, func() {
		c.queue.During(k, nil)
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}
