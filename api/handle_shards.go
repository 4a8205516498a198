package api

import (
	"math"
	"time"

	"quorate/api/neon"
)

// branch reads the ids of a path about a timeline.
func (c *call) branch() (id neon.TenantID, timeline neon.TimelineID, err error) {
	if id, err = c.tenant(); err != nil {
		return id, timeline, err
	}
	timeline, err = c.timeline()
	return id, timeline, err
}

func (s *Server) timelineArchival(c *call) (answer, error) {
	id, timeline, err := c.branch()
	if err != nil {
		return answer{}, err
	}
	var req neon.ArchivalRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return done(s.Timelines.Archive(c.ctx, id, timeline, req))
}

func (s *Server) timelineDetachAncestor(c *call) (answer, error) {
	id, timeline, err := c.branch()
	if err != nil {
		return answer{}, err
	}
	var behavior neon.DetachBehavior
	text, ok, err := c.query("detach_behavior")
	if ok && err == nil {
		behavior, err = neon.ParseDetachBehavior(text)
	}
	if err != nil {
		return answer{}, err
	}
	resp, err := s.Timelines.DetachAncestor(c.ctx, id, timeline, behavior)
	return reply(resp, err)
}

func (s *Server) timelineBlockGC(c *call) (answer, error) { return s.changeGC(c, neon.BlockGC) }

func (s *Server) timelineUnblockGC(c *call) (answer, error) { return s.changeGC(c, neon.UnblockGC) }

func (s *Server) changeGC(c *call, verb neon.GCVerb) (answer, error) {
	id, timeline, err := c.branch()
	if err != nil {
		return answer{}, err
	}
	return done(s.Timelines.ChangeGC(c.ctx, id, timeline, verb))
}

func (s *Server) timelineLease(c *call) (answer, error) {
	id, timeline, err := c.branch()
	if err != nil {
		return answer{}, err
	}
	var req neon.LeaseRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return done(s.Timelines.LeaseLSN(c.ctx, id, timeline, req))
}

func (s *Server) timelineHeatmapLayers(c *call) (answer, error) {
	id, err := c.shard("tenant_id")
	if err != nil {
		return answer{}, err
	}
	timeline, err := c.timeline()
	if err != nil {
		return answer{}, err
	}
	var d neon.HeatmapDownload
	concurrency, ok, err := c.queryUint("concurrency")
	if err != nil {
		return answer{}, err
	}
	if ok {
		d.Concurrency = &concurrency
	}
	if d.Recurse, _, err = c.queryBool("recurse"); err != nil {
		return answer{}, err
	}
	return done(s.Timelines.DownloadHeatmapLayers(c.ctx, id, timeline, d))
}

func (s *Server) timelineDescribe(c *call) (answer, error) {
	id, timeline, err := c.branch()
	if err != nil {
		return answer{}, err
	}
	resp, err := s.Timelines.Describe(c.ctx, id, timeline)
	return reply(resp, err)
}

func (s *Server) tenantSecondaryDownload(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	ms, ok, err := c.queryUint("wait_ms")
	if err != nil {
		return answer{}, err
	}
	var wait *time.Duration
	if ok {
		wait = new(time.Duration(min(ms, math.MaxInt32)) * time.Millisecond)
	}
	status, resp, err := s.Timelines.DownloadSecondaries(c.ctx, id, wait)
	return replyWith(status, resp, err)
}

func (s *Server) tenantTimeTravel(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	var req neon.TimeTravelRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	var to neon.TimeTravel
	if to.To, err = c.moment("travel_to"); err == nil {
		to.DoneIfAfter, err = c.moment("done_if_after")
	}
	if err != nil {
		return answer{}, err
	}
	return done(s.Tenants.TimeTravel(c.ctx, id, to, req.Counts))
}

// moment reads a query parameter that must be a time in UTC, and leaves it as it
// was spelled.
func (c *call) moment(name string) (string, error) {
	text, ok, err := c.query(name)
	switch {
	case err != nil:
		return "", err
	case !ok:
		return "", neon.Errorf(neon.BadRequest, "no %s specified in query parameters", name)
	}
	if _, err := time.Parse("2006-01-02T15:04:05.999999999Z", text); err != nil {
		return "", neon.Errorf(neon.BadRequest, "Invalid time for %s: %s", name, quoteDebug(text))
	}
	return text, nil
}

func (s *Server) tenantImport(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	resp, err := s.Tenants.Import(c.ctx, id)
	return reply(resp, err)
}
