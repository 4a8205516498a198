package api

import (
	"net/http"

	"quorate/internal/neon"
)

var safekeeperRoutes = []route{
	{method: "GET", path: "/control/v1/safekeeper", scope: ScopeInfra, duty: onAny, label: "control_v1_safekeeper_list", handle: (*Server).safekeeperList},
	{method: "GET", path: "/control/v1/safekeeper/:safekeeper_id", scope: ScopeInfra, duty: onAny, label: "v1_safekeeper", handle: (*Server).safekeeperDescribe},
	{method: "POST", path: "/control/v1/safekeeper/:safekeeper_id", scope: ScopeInfra, label: "v1_safekeeper_post", handle: (*Server).safekeeperUpsert},
	{method: "POST", path: "/control/v1/safekeeper/:safekeeper_id/scheduling_policy", scope: ScopeAdmin, label: "v1_safekeeper_scheduling_policy", handle: (*Server).safekeeperPolicy},
}

func (c *call) safekeeper() (neon.NodeID, error) {
	id, err := neon.ParseNodeID(c.params.ByName("safekeeper_id"))
	if err != nil {
		return id, neon.Errorf(neon.BadRequest, "failed to parse id")
	}
	return id, nil
}

func (s *Server) safekeeperList(c *call) (answer, error) {
	all, err := s.Safekeepers.List(c.ctx)
	return reply(all, err)
}

func (s *Server) safekeeperDescribe(c *call) (answer, error) {
	id, err := c.safekeeper()
	if err != nil {
		return answer{}, err
	}
	d, err := s.Safekeepers.Describe(c.ctx, id)
	return reply(d, err)
}

func (s *Server) safekeeperUpsert(c *call) (answer, error) {
	id, err := c.safekeeper()
	if err != nil {
		return answer{}, err
	}
	var req neon.SafekeeperUpsert
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusNoContent}, s.Safekeepers.Upsert(c.ctx, id, req)
}

func (s *Server) safekeeperPolicy(c *call) (answer, error) {
	id, err := c.safekeeper()
	if err != nil {
		return answer{}, err
	}
	var req neon.SafekeeperPolicyRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return done(s.Safekeepers.SetScheduling(c.ctx, id, req.Scheduling))
}
