package api

import "quorate/api/neon"

// importStatus answers a GET that has a body.
func (s *Server) importStatus(c *call) (answer, error) {
	var req neon.ImportStatusRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	resp, err := s.Upcalls.ImportStatus(c.ctx, req)
	return reply(resp, err)
}

func (s *Server) importReport(c *call) (answer, error) {
	var req neon.ImportStatusReport
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return done(s.Upcalls.ReportImport(c.ctx, req))
}
