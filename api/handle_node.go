package api

import "quorate/internal/neon"

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
	return done(s.Nodes.Configure(c.ctx, req))
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
