package api

import (
	"net/http"

	"quorate/api/neon"
	"quorate/internal/controller"
)

// safekeeperHandler answers requests about safekeepers.
type safekeeperHandler struct{ safekeepers *controller.Safekeepers }

func (h safekeeperHandler) list(c *call) (answer, error) {
	all, err := h.safekeepers.List(c.ctx)
	return reply(all, err)
}

func (h safekeeperHandler) describe(c *call) (answer, error) {
	id, err := c.safekeeper()
	if err != nil {
		return answer{}, err
	}
	d, err := h.safekeepers.Describe(c.ctx, id)
	return reply(d, err)
}

func (h safekeeperHandler) upsert(c *call) (answer, error) {
	id, err := c.safekeeper()
	if err != nil {
		return answer{}, err
	}
	var req neon.SafekeeperUpsert
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusNoContent}, h.safekeepers.Upsert(c.ctx, id, req)
}

func (h safekeeperHandler) setScheduling(c *call) (answer, error) {
	id, err := c.safekeeper()
	if err != nil {
		return answer{}, err
	}
	var req neon.SafekeeperPolicyRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return done(h.safekeepers.SetScheduling(c.ctx, id, req.Scheduling))
}

func (h safekeeperHandler) settle(c *call) (answer, error) {
	id, err := c.safekeeper()
	if err != nil {
		return answer{}, err
	}
	return done(h.safekeepers.Settle(c.ctx, id))
}
