package api

import (
	"encoding/json"

	"quorate/api/neon"
)

func (s *Server) tenantDump(c *call) (answer, error) {
	all, err := s.Debug.Shards(c.ctx)
	return reply(all, err)
}

func (s *Server) schedulerDump(c *call) (answer, error) {
	d, err := s.Debug.Scheduler(c.ctx)
	return reply(d, err)
}

func (s *Server) consistencyCheck(c *call) (answer, error) { return done(s.Debug.Check(c.ctx)) }

func (s *Server) reconcileAll(c *call) (answer, error) {
	left, err := s.Debug.ReconcileAll(c.ctx)
	return reply(left, err)
}

func (s *Server) inspect(c *call) (answer, error) {
	var req neon.InspectRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	a, err := s.Debug.Inspect(c.ctx, req.Shard)
	if err != nil {
		return answer{}, err
	}
	var resp struct {
		Attachment json.RawMessage `json:"attachment"`
	}
	resp.Attachment = null
	if a != nil {
		if resp.Attachment, err = json.Marshal([2]uint64{
			uint64(a.Generation), uint64(a.Node),
		}); err != nil {
			return answer{}, err
		}
	}
	return reply(resp, nil)
}

// explained is one node in the answer of GET /debug/v1/explain.
type explained struct {
	Node      neon.NodeID       `json:"node_id"`
	AZ        neon.AZ           `json:"availability_zone_id"`
	Held      neon.LocationMode `json:"held"`
	Rejected  string            `json:"rejected"` // empty: it could take a location
	Attached  string            `json:"score_attached"`
	Secondary string            `json:"score_secondary"`
}

func (s *Server) explain(c *call) (answer, error) {
	id, err := c.shard("tenant_shard_id")
	if err != nil {
		return answer{}, err
	}
	e, err := s.Debug.Explain(c.ctx, id)
	if err != nil {
		return answer{}, err
	}
	resp := struct {
		Shard neon.ShardID `json:"tenant_shard_id"`
		Nodes []explained  `json:"nodes"`
	}{Shard: e.Shard, Nodes: []explained{}}
	for _, n := range e.Nodes {
		resp.Nodes = append(resp.Nodes, explained{
			Node: n.Node, AZ: n.AZ, Held: n.Held, Rejected: string(n.Rejected),
			Attached: n.Attached.String(), Secondary: n.Secondary.String(),
		})
	}
	return reply(resp, nil)
}

// failpoints sets what happens at places of this very replica.
func (s *Server) failpoints(c *call) (answer, error) {
	if s.Failpoints == nil {
		return answer{}, neon.Errorf(neon.BadRequest,
			"Cannot manage failpoints because neon was compiled without failpoints support")
	}
	var req neon.List[neon.FailpointConfig]
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	for _, p := range req {
		if err := s.Failpoints.Configure(p.Name, p.Actions); err != nil {
			return answer{}, neon.Errorf(neon.BadRequest, "Failed to configure failpoints: %w", err)
		}
	}
	return done(nil)
}
