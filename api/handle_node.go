package api

import (
	"net/http"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/controller"
)

func (s *Server) nodeRegister(c *call) (answer, error) {
	var req neon.NodeRegister
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return done(s.Nodes.Register(c.ctx, req))
}

func (s *Server) nodeList(c *call) (answer, error) {
	all, err := s.Nodes.List(c.ctx)
	return reply(all, err)
}

func (s *Server) nodeStatus(c *call) (answer, error) {
	id, err := c.node()
	if err != nil {
		return answer{}, err
	}
	d, err := s.Nodes.Describe(c.ctx, id)
	return reply(d, err)
}

func (s *Server) nodeShards(c *call) (answer, error) {
	id, err := c.node()
	if err != nil {
		return answer{}, err
	}
	d, err := s.Nodes.Shards(c.ctx, id)
	return reply(d, err)
}

func (s *Server) nodeConfigure(c *call) (answer, error) {
	id, err := c.node()
	if err != nil {
		return answer{}, err
	}
	var req neon.NodeConfigure
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	if req.ID != id {
		return answer{}, neon.Errorf(neon.BadRequest, "Path and body node_id differ")
	}
	others, err := c.others()
	if err != nil {
		return answer{}, err
	}
	return done(s.Nodes.Configure(c.ctx, req, others))
}

func (s *Server) reAttach(c *call) (answer, error) {
	var req neon.ReAttachRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	resp, err := s.Upcalls.ReAttach(c.ctx, req)
	return reply(resp, err)
}

func (s *Server) validate(c *call) (answer, error) {
	var req neon.ValidateRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	resp, err := s.Upcalls.Validate(c.ctx, req)
	return reply(resp, err)
}

// accepted answers a request whose work goes on after the answer.
func accepted(err error) (answer, error) {
	return answer{status: http.StatusAccepted, body: null}, err
}

// others reads what the client expects of operations on other nodes. Who does not
// say expects none.
func (c *call) others() (controller.Others, error) {
	together, _, err := c.queryBool("concurrent")
	if together {
		return controller.Concurrently, err
	}
	return controller.Exclusively, err
}

func (c *call) order() (order controller.Order, err error) {
	if order.Node, err = c.node(); err == nil {
		order.Others, err = c.others()
	}
	return order, err
}

func (s *Server) nodeDrain(c *call) (answer, error) {
	order, err := c.order()
	if err != nil {
		return answer{}, err
	}
	return accepted(s.Operations.Drain(c.ctx, order))
}

func (s *Server) nodeFill(c *call) (answer, error) {
	order, err := c.order()
	if err != nil {
		return answer{}, err
	}
	return accepted(s.Operations.Fill(c.ctx, order))
}

// nodeDelete begins a deletion; it is the one of the three that answers 200.
func (s *Server) nodeDelete(c *call) (answer, error) {
	order, err := c.order()
	if err != nil {
		return answer{}, err
	}
	force, _, err := c.queryBool("force")
	if err != nil {
		return answer{}, err
	}
	if force {
		order.Force = controller.ByForce
	}
	return done(s.Operations.Delete(c.ctx, order))
}

func (s *Server) nodeCancelDrain(
	c *call,
) (answer, error) {
	return s.cancel(c, fsm.OperationDrain)
}
func (s *Server) nodeCancelFill(c *call) (answer, error) { return s.cancel(c, fsm.OperationFill) }
func (s *Server) nodeCancelDelete(
	c *call,
) (answer, error) {
	return s.cancel(c, fsm.OperationDelete)
}

func (s *Server) cancel(c *call, kind fsm.OperationKind) (answer, error) {
	id, err := c.node()
	if err != nil {
		return answer{}, err
	}
	return accepted(s.Operations.Cancel(c.ctx, id, kind))
}

// nodeDeleteNow is the older way to delete a node, which does not wait for shards
// to get to their new places.
func (s *Server) nodeDeleteNow(c *call) (answer, error) {
	id, err := c.node()
	if err != nil {
		return answer{}, err
	}
	return done(s.Operations.DeleteNow(c.ctx, id))
}

func (s *Server) nodeDrop(c *call) (answer, error) {
	id, err := c.node()
	if err != nil {
		return answer{}, err
	}
	return done(s.Operations.Drop(c.ctx, id))
}

func (s *Server) tombstones(c *call) (answer, error) {
	all, err := s.Operations.Tombstones(c.ctx)
	return reply(all, err)
}

func (s *Server) tombstoneDelete(c *call) (answer, error) {
	id, err := c.node()
	if err != nil {
		return answer{}, err
	}
	return done(s.Operations.ForgetTombstone(c.ctx, id))
}

// progress is one operation in the answer of GET /debug/v1/operation.
type progress struct {
	Node     neon.NodeID `json:"node_id"`
	Kind     string      `json:"operation"`
	Force    bool        `json:"force"`
	Total    int         `json:"attached_at_start"`
	Attached int         `json:"attached"`
	Shards   int         `json:"shards"`
}

func (s *Server) operations(c *call) (answer, error) {
	all, err := s.Operations.List(c.ctx)
	resp := []progress{}
	for _, p := range all {
		resp = append(resp, progress{
			Node: p.Node, Kind: p.Kind.String(), Force: p.Force, Total: p.Total,
			Attached: p.Attached, Shards: p.Shards,
		})
	}
	return reply(resp, err)
}
