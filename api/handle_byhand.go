package api

import "quorate/api/neon"

func (s *Server) attachHook(c *call) (answer, error) {
	var req neon.AttachHookRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	resp, err := s.Tenants.AttachHook(c.ctx, req)
	return reply(resp, err)
}

func (s *Server) tenantDrop(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	return done(s.Tenants.Drop(c.ctx, id))
}

func (s *Server) preferredAZs(c *call) (answer, error) {
	var req neon.PreferredAZsRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	resp, err := s.Tenants.SetPreferredAZs(c.ctx, req)
	return reply(resp, err)
}

func (s *Server) metadataHealthUpdate(c *call) (answer, error) {
	var req neon.MetadataHealthUpdate
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return reply(nothing{}, s.Tenants.SetHealth(c.ctx, req))
}

func (s *Server) metadataUnhealthy(c *call) (answer, error) {
	resp, err := s.Tenants.Unhealthy(c.ctx)
	return reply(resp, err)
}

func (s *Server) metadataOutdated(c *call) (answer, error) {
	var req neon.OutdatedRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	resp, err := s.Tenants.Outdated(c.ctx, req)
	return reply(resp, err)
}
