package api

import (
	"net/http"

	"quorate/api/neon"
	"quorate/internal/controller"
)

func (s *Server) tenantCreate(c *call) (answer, error) {
	var req neon.TenantCreateRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	resp, err := s.Tenants.Create(c.ctx, req)
	return replyWith(http.StatusCreated, resp, err)
}

func (s *Server) tenantDelete(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	return done(s.Tenants.Delete(c.ctx, id))
}

func (s *Server) tenantConfig(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	resp, err := s.Tenants.Config(c.ctx, id)
	return reply(resp, err)
}

func (s *Server) tenantConfigSet(c *call) (answer, error) {
	var req neon.ConfigRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return done(s.Tenants.SetConfig(c.ctx, req.Tenant, req.Config))
}

func (s *Server) tenantConfigPatch(c *call) (answer, error) {
	var req neon.ConfigPatchRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return done(s.Tenants.PatchConfig(c.ctx, req.Tenant, req.Patch))
}

func (s *Server) tenantLocationConfig(c *call) (answer, error) {
	id, err := c.shard("tenant_id")
	if err != nil {
		return answer{}, err
	}
	// Both parameters are a pageserver's; here they only have to make sense.
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
	resp, err := s.Tenants.SetLocation(c.ctx, id, neon.LocationConfig(req))
	return reply(resp, err)
}

func (s *Server) tenantPolicy(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	var req neon.PolicyRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return done(s.Tenants.SetPolicy(c.ctx, id, req))
}

func (s *Server) tenantSplit(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	var req neon.ShardSplitRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	shards, err := s.Splits.Split(c.ctx, id, req)
	return reply(neon.ShardSplitResponse{Shards: shards}, err)
}

func (s *Server) tenantDescribe(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	d, err := s.Tenants.Describe(c.ctx, id)
	return reply(d, err)
}

// longestPage is a bound only so that the number fits.
const longestPage = 1 << 30

func (s *Server) tenantList(c *call) (answer, error) {
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
	all, err := s.Tenants.List(c.ctx, p)
	return reply(all, err)
}

func (s *Server) tenantLocate(c *call) (answer, error) {
	id, err := c.tenant()
	if err != nil {
		return answer{}, err
	}
	resp, err := s.Tenants.Locate(c.ctx, id)
	if err != nil {
		return answer{}, err
	}
	return answer{body: appendLocate(make([]byte, 0, 64+320*len(resp.Shards)), resp)}, nil
}

// nothing is the body of those successes whose clients decode an object.
type nothing struct{}

func (s *Server) shardMigrate(c *call) (answer, error) {
	id, req, err := c.migration()
	if err != nil {
		return answer{}, err
	}
	return reply(nothing{}, s.Shards.Migrate(c.ctx, id, req))
}

func (s *Server) shardMigrateSecondary(c *call) (answer, error) {
	id, req, err := c.migration()
	if err != nil {
		return answer{}, err
	}
	return reply(nothing{}, s.Shards.MigrateSecondary(c.ctx, id, req))
}

func (s *Server) shardCancel(c *call) (answer, error) {
	id, err := c.shard("tenant_id")
	if err != nil {
		return answer{}, err
	}
	return done(s.Shards.Cancel(c.ctx, id))
}

func (c *call) migration() (id neon.ShardID, req neon.MigrateRequest, err error) {
	if id, err = c.shard("tenant_id"); err != nil {
		return id, req, err
	}
	return id, req, c.decode(&req)
}
