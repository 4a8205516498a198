package api

import "quorate/api/neon"

func (h timelineHandler) locate(c *call) (answer, error) {
	ref, err := c.timelineRef()
	if err != nil {
		return answer{}, err
	}
	l, err := h.timelines.Locate(c.ctx, ref)
	return reply(l, err)
}

func (h timelineHandler) migrateSafekeepers(c *call) (answer, error) {
	ref, err := c.timelineRef()
	if err != nil {
		return answer{}, err
	}
	var req neon.SafekeeperMigrateRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return done(h.migrations.Migrate(c.ctx, ref, req.NewSet))
}

func (h timelineHandler) abortSafekeepers(c *call) (answer, error) {
	ref, err := c.timelineRef()
	if err != nil {
		return answer{}, err
	}
	return done(h.migrations.Abort(c.ctx, ref))
}

func (h timelineHandler) importRecord(c *call) (answer, error) {
	ref, err := c.timelineRef()
	if err != nil {
		return answer{}, err
	}
	var req neon.TimelineImportRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return done(h.timelines.ImportRecord(c.ctx, ref, req))
}
