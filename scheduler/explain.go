package scheduler

import (
	"fmt"

	"quorate/api/neon"
	"quorate/fsm"
)

// Filter names a rule by which a node cannot take a location of a shard.
type Filter string

// The filters, in the order in which they are asked.
const (
	FilterOffline   Filter = "node is offline"
	FilterWarmingUp Filter = "node is warming up"
	FilterSilent    Filter = "node does not answer"
	FilterPolicy    Filter = "scheduling policy of the node takes nothing new"
	FilterOccupied  Filter = "node has a location of this shard"
	FilterFull      Filter = "node is overloaded and others are not"
)

// Explanation says for every node why a shard is or is not placed there.
type Explanation struct {
	Shard neon.ShardID
	Nodes []Candidate // by id
}

// Candidate is one node in an Explanation. The scores are those without the
// shard's own locations; they are given for rejected nodes too.
type Candidate struct {
	Node      neon.NodeID
	AZ        neon.AZ
	Held      neon.LocationMode // AttachedSingle or Secondary where intended, else Detached
	Rejected  Filter            // empty for a node that could take a location
	Attached  Score
	Secondary Score
}

// explain scores every node for a shard.
func explain(r *round, sh fsm.Shard) Explanation {
	r.take(&sh)
	defer r.undo(&sh)
	room := r.roomy(&sh)
	e := Explanation{Shard: sh.ID}
	for i := range r.nodes {
		n := &r.nodes[i]
		c := Candidate{
			Node: n.id, AZ: n.az, Held: neon.Detached,
			Attached:  n.score(attached, sh.PreferredAZ),
			Secondary: n.score(secondary, sh.PreferredAZ),
		}
		if sh.Attached == n.id {
			c.Held = neon.AttachedSingle
		} else if sh.HasSecondary(n.id) {
			c.Held = neon.Secondary
		}
		switch node, _ := r.state.Node(n.id); {
		case node.Availability == neon.NodeOffline:
			c.Rejected = FilterOffline
		case node.Availability == neon.NodeWarmingUp:
			c.Rejected = FilterWarmingUp
		case n.class == silent:
			c.Rejected = FilterSilent
		case !node.Schedulable():
			c.Rejected = FilterPolicy
		case c.Held != neon.Detached:
			c.Rejected = FilterOccupied
		case room && n.used >= Overloaded:
			c.Rejected = FilterFull
		}
		e.Nodes = append(e.Nodes, c)
	}
	return e
}

// String prints one line for each node.
func (e Explanation) String() string {
	b := fmt.Appendf(nil, "shard %s\n", e.Shard)
	for _, c := range e.Nodes {
		b = fmt.Appendf(b, "  node %d %s %s", c.Node, c.AZ, c.Held)
		if c.Rejected != "" {
			b = fmt.Appendf(b, " rejected: %s", c.Rejected)
		}
		b = fmt.Appendf(b, "; attached %s; secondary %s\n", c.Attached, c.Secondary)
	}
	return string(b)
}
