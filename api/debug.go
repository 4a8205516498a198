package api

import (
	"encoding/json"

	"quorate/api/neon"
	"quorate/internal/controller"
)

// debugHandler answers questions about what the controller knows and plans.
type debugHandler struct{ debug *controller.Debug }

func (h debugHandler) shards(c *call) (answer, error) {
	all, err := h.debug.Shards(c.ctx)
	return reply(all, err)
}

func (h debugHandler) scheduler(c *call) (answer, error) {
	d, err := h.debug.Scheduler(c.ctx)
	return reply(d, err)
}

func (h debugHandler) checkConsistency(c *call) (answer, error) {
	return done(h.debug.Check(c.ctx))
}

func (h debugHandler) reconcileAll(c *call) (answer, error) {
	left, err := h.debug.ReconcileAll(c.ctx)
	return reply(left, err)
}

func (h debugHandler) inspect(c *call) (answer, error) {
	var req neon.InspectRequest
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	a, err := h.debug.Inspect(c.ctx, req.Shard)
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

func (h debugHandler) explain(c *call) (answer, error) {
	id, err := c.shard("tenant_shard_id")
	if err != nil {
		return answer{}, err
	}
	e, err := h.debug.Explain(c.ctx, id)
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
