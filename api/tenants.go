package api

import (
	"encoding/binary"
	"net/http"

	"quorate/api/neon"
	"quorate/internal/controller"
	"quorate/internal/deletion"
	"quorate/internal/timetravel"
)

// tenantHandler answers requests about tenants as a whole.
type tenantHandler struct {
	tenants   *controller.Tenants
	deletions *deletion.Tenants
	travels   *timetravel.Travels
}

func (h tenantHandler) create(c *call) (answer, error) {
	var req neon.TenantCreateRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	resp, err := h.tenants.Create(c.ctx, req)
	return replyWith(http.StatusCreated, resp, err)
}

// longestPage keeps the number within an int.
const longestPage = 1 << 30

func (h tenantHandler) list(c *call) (answer, error) {
	var p controller.Page
	limit, limited, err := c.queryUint("limit")
	if err != nil {
		return answer{}, err
	}
	if limited {
		p.Limit = int(min(max(limit, 1), longestPage))
	}
	after, ok, err := c.query("start_after")
	if err != nil {
		return answer{}, err
	}
	if ok {
		if p.After, err = neon.ParseTenantID(after); err != nil {
			return answer{}, neon.Errorf(neon.BadRequest, "cannot parse query param start_after")
		}
	}
	l, err := h.tenants.List(c.ctx, p)
	if err != nil {
		return answer{}, err
	}
	return inParts(tenantList(l.Part)), nil
}

func (h tenantHandler) describe(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	d, err := h.tenants.Describe(c.ctx, id)
	if err != nil {
		return answer{}, err
	}
	return answer{body: appendTenant(buffer(tenantSize(&d)), &d), pooled: true}, nil
}

// askDescribe begins the question of describe. A tenant id follows.
const askDescribe byte = 1

// ask is the question by which the leader is asked to describe a tenant; empty for a request
// that is refused.
func (h tenantHandler) ask(c *call) []byte {
	id, err := c.tenant()
	if err != nil {
		return nil
	}
	return append([]byte{askDescribe}, id[:]...)
}

// answer appends what describe would answer to b.
func (h tenantHandler) answer(b, id []byte) []byte {
	if len(id) != len(neon.TenantID{}) {
		return b
	}
	d, err := h.tenants.DescribeNow(neon.TenantID(id))
	if err != nil {
		return appendAnswer(b, errorAnswer(err))
	}
	return appendTenant(binary.BigEndian.AppendUint16(b, http.StatusOK), &d)
}

func (h tenantHandler) locate(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	resp, err := h.tenants.Locate(c.ctx, id)
	if err != nil {
		return answer{}, err
	}
	return answer{body: appendLocate(buffer(64+320*len(resp.Shards)), resp), pooled: true}, nil
}

func (h tenantHandler) delete(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	return done(h.deletions.Delete(c.ctx, id))
}

func (h tenantHandler) drop(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	return done(h.tenants.Drop(c.ctx, id))
}

func (h tenantHandler) config(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	resp, err := h.tenants.Config(c.ctx, id)
	return reply(resp, err)
}

func (h tenantHandler) setConfig(c *call) (answer, error) {
	var req neon.ConfigRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return done(h.tenants.SetConfig(c.ctx, req.Tenant, req.Config))
}

func (h tenantHandler) patchConfig(c *call) (answer, error) {
	var req neon.ConfigPatchRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return done(h.tenants.PatchConfig(c.ctx, req.Tenant, req.Patch))
}

func (h tenantHandler) setLocation(c *call) (answer, error) {
	id, err := c.shard("tenant_id")
	if err != nil {
		return answer{}, err
	}
	// Both parameters are for a pageserver. Here they are only checked.
	if _, _, err := c.queryUint("flush_ms"); err != nil {
		return answer{}, err
	}
	if _, _, err := c.queryBool("lazy"); err != nil {
		return answer{}, err
	}
	var req neon.LocationConfigRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	resp, err := h.tenants.SetLocation(c.ctx, id, neon.LocationConfig(req))
	return reply(resp, err)
}

func (h tenantHandler) setPolicy(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	var req neon.PolicyRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return done(h.tenants.SetPolicy(c.ctx, id, req))
}

func (h tenantHandler) setPreferredAZs(c *call) (answer, error) {
	var req neon.PreferredAZsRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	resp, err := h.tenants.SetPreferredAZs(c.ctx, req)
	return reply(resp, err)
}

func (h tenantHandler) timeTravel(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	var req neon.TimeTravelRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	var to neon.TimeTravel
	if to.To, err = c.queryTime("travel_to"); err == nil {
		to.DoneIfAfter, err = c.queryTime("done_if_after")
	}
	if err != nil {
		return answer{}, err
	}
	return done(h.travels.Travel(c.ctx, id, to, req.Counts))
}

func (h tenantHandler) importRemote(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	resp, err := h.tenants.Import(c.ctx, id)
	return reply(resp, err)
}

func (h tenantHandler) attachHook(c *call) (answer, error) {
	var req neon.AttachHookRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	resp, err := h.tenants.AttachHook(c.ctx, req)
	return reply(resp, err)
}
