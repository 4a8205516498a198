package api

import (
	"net/http"

	"quorate/api/neon"
)

var safekeeperRoutes = []route{
	{
		method: "GET", path: "/control/v1/safekeeper", scope: ScopeInfra, duty: onAny,
		label: "control_v1_safekeeper_list", handle: (*Server).safekeeperList,
	},
	{
		method: "GET", path: "/control/v1/safekeeper/:safekeeper_id", scope: ScopeInfra,
		duty: onAny, label: "v1_safekeeper", handle: (*Server).safekeeperDescribe,
	},
	{
		method: "POST", path: "/control/v1/safekeeper/:safekeeper_id", scope: ScopeInfra,
		label: "v1_safekeeper_post", handle: (*Server).safekeeperUpsert,
	},
	{
		method: "POST", path: "/control/v1/safekeeper/:safekeeper_id/scheduling_policy",
		scope: ScopeAdmin, label: "v1_safekeeper_scheduling_policy",
		handle: (*Server).safekeeperPolicy,
	},

	{
		method: "POST", path: "/v1/tenant/:tenant_id/timeline/:timeline_id/safekeeper_migrate",
		scope: ScopePageserverAPI, ready: true, limited: true,
		label: "v1_tenant_timeline_safekeeper_migrate", deadline: remoteDeadline,
		handle: (*Server).safekeeperMigrate,
	},
	{
		method: "POST",
		path:   "/v1/tenant/:tenant_id/timeline/:timeline_id/safekeeper_migrate_abort",
		scope:  ScopePageserverAPI, ready: true, limited: true,
		label: "v1_tenant_timeline_safekeeper_migrate_abort", deadline: remoteDeadline,
		handle: (*Server).safekeeperMigrateAbort,
	},
	{
		method: "GET", path: "/debug/v1/tenant/:tenant_id/timeline/:timeline_id/locate",
		scope: ScopeAdmin, ready: true, limited: true, label: "v1_tenant_timeline_locate",
		handle: (*Server).timelineLocate,
	},
	{
		method: "POST", path: "/debug/v1/tenant/:tenant_id/timeline/:timeline_id/import",
		scope: ScopePageserverAPI, limited: true, label: "debug_v1_timeline_import",
		handle: (*Server).timelineImport,
	},
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

// timelineRef reads the tenant and the timeline of the path.
func (c *call) timelineRef() (ref neon.TimelineRef, err error) {
	if ref.Tenant, err = c.tenant(); err == nil {
		ref.Timeline, err = c.timeline()
	}
	return ref, err
}

func (s *Server) safekeeperMigrate(c *call) (answer, error) {
	ref, err := c.timelineRef()
	if err != nil {
		return answer{}, err
	}
	var req neon.SafekeeperMigrateRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return done(s.Timelines.MigrateSafekeepers(c.ctx, ref, req.NewSet))
}

func (s *Server) safekeeperMigrateAbort(c *call) (answer, error) {
	ref, err := c.timelineRef()
	if err != nil {
		return answer{}, err
	}
	return done(s.Timelines.AbortSafekeepers(c.ctx, ref))
}

func (s *Server) timelineLocate(c *call) (answer, error) {
	ref, err := c.timelineRef()
	if err != nil {
		return answer{}, err
	}
	l, err := s.Timelines.Locate(c.ctx, ref)
	return reply(l, err)
}

func (s *Server) timelineImport(c *call) (answer, error) {
	ref, err := c.timelineRef()
	if err != nil {
		return answer{}, err
	}
	var req neon.TimelineImportRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return done(s.Timelines.ImportRecord(c.ctx, ref, req))
}
