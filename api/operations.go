package api

import (
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/controller"
	"quorate/internal/decide"
)

// operationHandler answers requests about long operations on pageservers: drain, fill
// and delete.
type operationHandler struct{ operations *controller.Operations }

func (h operationHandler) drain(c *call) (answer, error) {
	o, err := order(c)
	if err != nil {
		return answer{}, err
	}
	return accepted(h.operations.Drain(c.ctx, o))
}

func (h operationHandler) fill(c *call) (answer, error) {
	o, err := order(c)
	if err != nil {
		return answer{}, err
	}
	return accepted(h.operations.Fill(c.ctx, o))
}

// delete begins a deletion. Unlike drain and fill it answers 200.
func (h operationHandler) delete(c *call) (answer, error) {
	o, err := order(c)
	if err != nil {
		return answer{}, err
	}
	force, _, err := c.queryBool("force")
	if err != nil {
		return answer{}, err
	}
	if force {
		o.Force = controller.ByForce
	}
	return done(h.operations.Delete(c.ctx, o))
}

func (h operationHandler) cancelDrain(c *call) (answer, error) {
	return h.cancel(c, fsm.OperationDrain)
}

func (h operationHandler) cancelFill(c *call) (answer, error) {
	return h.cancel(c, fsm.OperationFill)
}

func (h operationHandler) cancelDelete(c *call) (answer, error) {
	return h.cancel(c, fsm.OperationDelete)
}

func (h operationHandler) cancel(c *call, kind fsm.OperationKind) (answer, error) {
	id, err := c.node()
	if err != nil {
		return answer{}, err
	}
	return accepted(h.operations.Cancel(c.ctx, id, kind))
}

// deleteNow is the older way to delete a node. It does not wait until the shards are at
// their new places.
func (h operationHandler) deleteNow(c *call) (answer, error) {
	id, err := c.node()
	if err != nil {
		return answer{}, err
	}
	return done(h.operations.DeleteNow(c.ctx, id))
}

func (h operationHandler) drop(c *call) (answer, error) {
	id, err := c.node()
	if err != nil {
		return answer{}, err
	}
	return done(h.operations.Drop(c.ctx, id))
}

func (h operationHandler) tombstones(c *call) (answer, error) {
	all, err := h.operations.Tombstones(c.ctx)
	return reply(all, err)
}

func (h operationHandler) forgetTombstone(c *call) (answer, error) {
	id, err := c.node()
	if err != nil {
		return answer{}, err
	}
	return done(h.operations.ForgetTombstone(c.ctx, id))
}

func (h operationHandler) list(c *call) (answer, error) {
	if ended, _, err := c.queryBool("ended"); err != nil || ended {
		if err != nil {
			return answer{}, err
		}
		return h.listEnded(c)
	}
	all, err := h.operations.List(c.ctx)
	resp := []neon.NodeOperation{}
	for _, p := range all {
		resp = append(resp, neon.NodeOperation{
			Node: p.Node, Kind: p.Kind.String(), Force: p.Force, Total: p.Total,
			Attached: p.Attached, Shards: p.Shards, Waits: hindered(p.Waits),
			Stays: hindered(p.Stays),
		})
	}
	return reply(resp, err)
}

func (h operationHandler) listEnded(c *call) (answer, error) {
	all, err := h.operations.Ended(c.ctx)
	resp := []neon.EndedNodeOperation{}
	for _, o := range all {
		e := neon.EndedNodeOperation{
			Node: o.Node, Kind: o.Kind.String(), Force: o.Force, Result: o.Ending.String(),
			BegunAt: timeOrNull(o.BegunAt), EndedAt: timeOrNull(o.EndedAt), Total: o.Total,
			Attached: o.Attached, Shards: o.Shards,
		}
		if o.Left.Count > 0 {
			e.Left = &neon.HinderedShards{Count: o.Left.Count}
			for _, x := range o.Left.Named {
				e.Left.Shards = append(e.Left.Shards,
					neon.HinderedShard{Shard: x.Shard, Why: x.Why})
			}
		}
		resp = append(resp, e)
	}
	return reply(resp, err)
}

// timeOrNull is a Unix time in milliseconds, if it is known.
func timeOrNull(ms int64) *time.Time {
	if ms == 0 {
		return nil
	}
	return new(time.UnixMilli(ms).UTC())
}

func hindered(h decide.Hindered) *neon.HinderedShards {
	if h.Count == 0 {
		return nil
	}
	out := &neon.HinderedShards{Count: h.Count}
	for _, x := range h.Named {
		out.Shards = append(out.Shards, neon.HinderedShard{Shard: x.Shard, Why: x.Why})
	}
	return out
}

// order reads which pageserver an operation is for, and on which terms.
func order(c *call) (o controller.Order, err error) {
	if o.Node, err = c.node(); err == nil {
		o.Others, err = others(c)
	}
	return o, err
}

// others reads what the client expects of operations on other nodes. A client that
// does not say expects that there are none.
func others(c *call) (controller.Others, error) {
	together, _, err := c.queryBool("concurrent")
	if together {
		return controller.Concurrently, err
	}
	return controller.Exclusively, err
}
