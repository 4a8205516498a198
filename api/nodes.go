package api

import (
	"quorate/api/neon"
	"quorate/internal/controller"
)

// nodeHandler answers requests about pageservers.
type nodeHandler struct{ nodes *controller.Nodes }

func (h nodeHandler) register(c *call) (answer, error) {
	var req neon.NodeRegister
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return done(h.nodes.Register(c.ctx, req))
}

func (h nodeHandler) list(c *call) (answer, error) {
	all, err := h.nodes.List(c.ctx)
	return reply(all, err)
}

func (h nodeHandler) describe(c *call) (answer, error) {
	id, err := c.node()
	if err != nil {
		return answer{}, err
	}
	d, err := h.nodes.Describe(c.ctx, id)
	return reply(d, err)
}

func (h nodeHandler) shards(c *call) (answer, error) {
	id, err := c.node()
	if err != nil {
		return answer{}, err
	}
	d, err := h.nodes.Shards(c.ctx, id)
	return reply(d, err)
}

func (h nodeHandler) configure(c *call) (answer, error) {
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
	expected, err := others(c)
	if err != nil {
		return answer{}, err
	}
	return done(h.nodes.Configure(c.ctx, req, expected))
}
