package api

import (
	"quorate/api/neon"
	"quorate/internal/controller"
)

// upcallHandler answers the calls that pageservers make.
type upcallHandler struct{ upcalls *controller.Upcalls }

func (h upcallHandler) reAttach(c *call) (answer, error) {
	var req neon.ReAttachRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	resp, err := h.upcalls.ReAttach(c.ctx, req)
	return reply(resp, err)
}

func (h upcallHandler) validate(c *call) (answer, error) {
	var req neon.ValidateRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	resp, err := h.upcalls.Validate(c.ctx, req)
	return reply(resp, err)
}

// importStatus answers a GET that has a body.
func (h upcallHandler) importStatus(c *call) (answer, error) {
	var req neon.ImportStatusRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	resp, err := h.upcalls.ImportStatus(c.ctx, req)
	return reply(resp, err)
}

func (h upcallHandler) reportImport(c *call) (answer, error) {
	var req neon.ImportStatusReport
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return done(h.upcalls.ReportImport(c.ctx, req))
}
