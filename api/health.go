package api

import (
	"quorate/api/neon"
	"quorate/internal/controller"
)

// healthHandler answers the scrubber, which reports what it found in the metadata of
// tenants.
type healthHandler struct{ tenants *controller.Tenants }

func (h healthHandler) update(c *call) (answer, error) {
	var req neon.MetadataHealthUpdate
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return reply(nothing{}, h.tenants.SetHealth(c.ctx, req))
}

func (h healthHandler) unhealthy(c *call) (answer, error) {
	resp, err := h.tenants.Unhealthy(c.ctx)
	return reply(resp, err)
}

func (h healthHandler) outdated(c *call) (answer, error) {
	var req neon.OutdatedRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	resp, err := h.tenants.Outdated(c.ctx, req)
	return reply(resp, err)
}
