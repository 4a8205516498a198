package reconciler

import (
	"context"
	"errors"
	"fmt"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/reconciler/observed"
	"quorate/reconciler/plan"
	"quorate/reconciler/queue"
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
	answers   *answers
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

// issue commits the next generation.
func (c *calls) issue(sc *plan.Scene, step plan.Step) error {
	it := fsm.Issue{Shard: sc.Shard.ID, Node: step.Node, Generation: sc.Shard.Generation}
	if c.log.State().KnowsBasis() {
		it.Basis = basisOfStep(sc, step)
	}
	r, err := c.log.Propose(c.ctx, fsm.RequestID{}, fsm.IssueGenerations{Items: []fsm.Issue{it}})
	if err != nil {
		return err
	}
	return c.refusal(sc, step, r)
}

// basisOfStep is what a step was decided on. A holder of the newest generation that
// cannot be called hands nothing over, as long as that is so.
func basisOfStep(sc *plan.Scene, step plan.Step) *fsm.Basis {
	b := &fsm.Basis{Generation: sc.Shard.Generation, Tenant: sc.Tenant.Sequence}
	if n := sc.Node(sc.Shard.GenNode); n != nil && n.ID != step.Node && !n.Available() {
		b.Lost, b.LostSequence = n.ID, n.Sequence
	}
	return b
}

// refusal is an error if the log has refused a step although all that it was decided on is
// what it was then: the same would be refused again. Otherwise the next step is named
// anew.
func (c *calls) refusal(sc *plan.Scene, step plan.Step, r fsm.Result) error {
	if len(r.Refused) == 0 || c.changed(sc, step) {
		return nil
	}
	return fmt.Errorf("the log refuses it, for shard %s as of entry %d", sc.Shard.ID, r.Index)
}

// changed reports whether the shard, its tenant or a node of the step is not what it was
// when the step was named.
func (c *calls) changed(sc *plan.Scene, step plan.Step) bool {
	st := c.log.State()
	sh, _ := st.Shard(sc.Shard.ID)
	tenant, _ := st.Tenant(sc.Tenant.ID)
	changed := func(id neon.NodeID) bool {
		was := sc.Node(id)
		now, _ := st.Node(id)
		return was != nil && was.Sequence != now.Sequence
	}
	return sh.Sequence != sc.Shard.Sequence || sh.Generation != sc.Shard.Generation ||
		tenant.Sequence != sc.Tenant.Sequence || st.Splitting(tenant.ID) != sc.Frozen ||
		changed(step.Node) || changed(sc.Shard.GenNode)
}

// move commits that a warm secondary is the intended node from now on.
func (c *calls) move(sc *plan.Scene, step plan.Step) error {
	in, ok := scheduler.New(c.log.State(), c.nodes.loads()).Arrive(sc.Shard)
	if (!ok || in.Attached != step.Node) && c.changed(sc, step) {
		return nil // it was decided otherwise meanwhile
	}
	if !ok || in.Attached != step.Node {
		// The node has fallen silent or has no room. The same step would be named again.
		return fmt.Errorf("node %d takes no shard at present", step.Node)
	}
	r, err := c.log.Propose(c.ctx, fsm.RequestID{}, fsm.SetIntents{Intents: []fsm.Intent{in}})
	if err != nil {
		return err
	}
	return c.refusal(sc, step, r)
}

// look asks one node about one shard. While the node is being listed the answer
// is on its way already.
func (c *calls) look(k *task, sc *plan.Scene, step plan.Step) error {
	if awaited, silent := c.nodes.awaitListing(step.Node, k.ID); silent {
		return &silentError{step.Node}
	} else if awaited {
		return errListing
	}
	if !c.acquire(k, queue.Looks, step.Node) {
		return errParked
	}
	defer c.queue.Release(k, step.Node)
	up, end := c.begin(k, sc, nodeCall{kind: looking}, step.Node)
	if up.Err() != nil {
		end(up.Err())
		return fmt.Errorf("node %d is not available", step.Node)
	}
	ctx, cancel := context.WithTimeout(up, c.opts.LookTimeout)
	defer cancel()
	began := c.seen.Clock()
	conf, found, err := c.locations.Location(ctx, sc.Node(step.Node), k.ID)
	gone := up.Err() != nil
	end(err)
	var seen *plan.Conf
	switch {
	case err != nil && gone:
		return c.ctx.Err() // what to do now is decided anew
	case err != nil:
		return err
	case !found:
		seen = &plan.Conf{}
	case conf != nil:
		seen = plan.ConfOf(conf)
	}
	if settled := c.seen.Looked(k.ID, step.Node, seen, began); !settled || seen == nil {
		return fmt.Errorf("node %d is changing the location", step.Node)
	}
	return nil
}

// acquire takes a slot of a node. Without one the task comes back by itself, and may be
// another worker's already: its pass goes on then.
func (c *calls) acquire(k *task, kind queue.Kind, n neon.NodeID) bool {
	m := &k.Memory
	m.parked = true
	if !c.queue.Acquire(k, kind, m.basis, n) {
		return false
	}
	m.parked = false
	return true
}

// put makes a location be what the step says.
func (c *calls) put(k *task, sc *plan.Scene, step plan.Step) error {
	if !c.acquire(k, queue.Changes, step.Node) {
		return errParked
	}
	defer c.queue.Release(k, step.Node)
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
	up, end := c.begin(k, sc, nodeCall{kind: changing, patience: opts.Flush}, step.Node)
	if up.Err() != nil {
		end(up.Err())
		return fmt.Errorf("node %d is not available", step.Node)
	}
	ctx, cancel := context.WithTimeout(up, c.opts.PutTimeout)
	defer cancel()
	err := c.configure(ctx, node, change{k.ID, step.Conf, body, opts})
	if errors.Is(err, errNoShard) {
		end(context.Canceled) // nothing was learnt about the node
		return err
	}
	gone := up.Err() != nil
	end(err)
	if err != nil && gone {
		return c.ctx.Err() // what to do now is decided anew
	}
	return err
}

// errNoShard is met when a shard has gone since the call was decided.
var errNoShard = errors.New("the shard does not exist any more")

// change is what one call makes of a location.
type change struct {
	shard neon.ShardID
	conf  plan.Conf
	body  *neon.LocationConfig
	opts  neon.LocationOptions
}

// configure makes the call that changes a location. The location is unknown from before the
// call until an answer that nothing else can have overtaken. No other code makes such calls.
//
// A shard that does not exist any more gets no location: whoever drops it looks at what is
// known of its locations once it is gone, and what began before that is among them.
func (c *calls) configure(ctx context.Context, node *fsm.Node, to change) error {
	c.seen.BeginCall(to.shard, node.ID, to.conf.Generation)
	if _, exists := c.log.State().Shard(to.shard); !exists && to.body.Mode != neon.Detached {
		c.seen.EndCall(to.shard, node.ID, to.conf, false)
		return errNoShard
	}
	err := c.locations.PutLocation(ctx, node, to.shard, to.body, to.opts)
	now, _ := c.log.State().Node(node.ID)
	c.seen.EndCall(to.shard, node.ID, to.conf, err == nil && now.Incarnation == node.Incarnation)
	if err != nil {
		c.nodes.doubt(node.ID)
	}
	return err
}

// detach removes a location of a shard that no tenant has, for somebody who has no task. A
// worker may be making a call for the same shard, if a tenant gets it meanwhile.
func (c *calls) detach(ctx context.Context, node *fsm.Node, id neon.ShardID) error {
	err := c.configure(ctx, node,
		change{shard: id, body: &neon.LocationConfig{Mode: neon.Detached}})
	if _, exists := c.log.State().Shard(id); err == nil && !exists {
		c.seen.ForgetShard(id)
	}
	return err
}

// begin is the beginning of calls like one about a shard to some nodes. The context is
// that of the term. It also ends when one of the nodes stops being available, when an
// operator cancels the work on the shard, and when a node does not answer and something
// else was decided about the shard. What the nodes are believed to answer follows from
// the error with which the calls end.
func (c *calls) begin(
	k *task, sc *plan.Scene, like nodeCall, nodes ...neon.NodeID,
) (up context.Context, end func(error)) {
	up, cancel := context.WithCancel(c.ctx)
	c.queue.During(k, cancel)
	var ends []func(outcome)
	for _, n := range nodes {
		stop := c.nodes.onDown(n, cancel)
		call := like
		call.node, call.shard, call.sequence, call.give = n, k.ID, sc.Shard.Sequence, cancel
		note := c.note(k, call)
		ends = append(ends, func(o outcome) { stop(); note(o) })
	}
	return up, func(err error) {
		c.queue.During(k, nil)
		for _, end := range ends {
			end(outcomeOf(err, up.Err()))
		}
		cancel()
	}
}

// note has a call judged by its outcome. A node has as many slots as it deserves.
func (c *calls) note(k *task, call nodeCall) (end func(outcome)) {
	c.answers.begin(&call)
	return func(o outcome) {
		c.answers.end(&call, o)
		switch {
		case call.kind >= judged:
		case o == says:
			c.queue.Answered(k, call.node)
		case o == misses:
			c.queue.Unanswered(k, call.node)
		}
	}
}
