package api

import (
	"strconv"

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
	if err != nil {
		return answer{}, err
	}
	return answer{body: appendReAttach(buffer(16+112*len(resp.Tenants)), &resp), pooled: true}, nil
}

func (h upcallHandler) validate(c *call) (answer, error) {
	var req neon.ValidateRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	resp, err := h.upcalls.Validate(c.ctx, req)
	if err != nil {
		return answer{}, err
	}
	return answer{body: appendValidate(buffer(16+72*len(resp.Tenants)), &resp), pooled: true}, nil
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

// appendReAttach prints r as encoding/json would. It lists every shard of a pageserver, which
// waits for it to serve.
func appendReAttach(b []byte, r *neon.ReAttachResponse) []byte {
	b = append(b, `{"tenants":[`...)
	for i := range r.Tenants {
		t := &r.Tenants[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"id":"`...)
		b = appendShardID(b, t.Shard)
		b = append(b, `","gen":`...)
		if t.Gen == nil {
			b = append(b, null...)
		} else {
			b = strconv.AppendUint(b, uint64(*t.Gen), 10)
		}
		b = appendText(b, `,"mode":`, string(t.Mode))
		b = append(b, `,"stripe_size":`...)
		b = strconv.AppendUint(b, uint64(t.StripeSize), 10)
		b = append(b, '}')
	}
	return append(b, `]}`...)
}

// appendValidate prints r as encoding/json would.
func appendValidate(b []byte, r *neon.ValidateResponse) []byte {
	b = append(b, `{"tenants":[`...)
	for i := range r.Tenants {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"id":"`...)
		b = appendShardID(b, r.Tenants[i].Shard)
		b = appendBool(b, `","valid":`, r.Tenants[i].Valid)
		b = append(b, '}')
	}
	return append(b, `]}`...)
}
