package api

import (
	"context"

	"quorate/api/auth"
	"quorate/api/neon"
)

// memberRoutes are ours: Neon's controller has no members.
func memberRoutes(h memberHandler) []route {
	const members, label = "/control/v1/cluster/members", "control_v1_cluster_members"
	return []route{
		{
			method: "GET", path: members, scope: auth.Admin, duty: here, label: label,
			handle: h.list,
		},
		{
			method: "POST", path: members, scope: auth.Admin, label: label,
			deadline: catchUpDeadline, handle: h.add,
		},
		{
			method: "DELETE", path: members + "/:member_id", scope: auth.Admin, label: label,
			handle: h.remove,
		},
		{
			method: "POST", path: members + "/:member_id/replace", scope: auth.Admin,
			label: label, deadline: catchUpDeadline, handle: h.replace,
		},
		{
			method: "PUT", path: "/control/v1/cluster/transfer", scope: auth.Admin,
			label: "control_v1_cluster_transfer", handle: h.transfer,
		},
	}
}

// Membership changes who is in the Raft cluster. Each of its methods can be repeated. On a
// replica that does not lead, their errors are of the class NotLeader.
type Membership interface {
	// Add adds a replica and returns when it has its vote.
	Add(ctx context.Context, r neon.MemberAdd) (neon.MemberAdded, error)

	// Remove removes a replica. The leader hands over instead of removing itself.
	Remove(ctx context.Context, id string) error

	// Replace adds a replica, and removes another one once the first has its vote.
	Replace(ctx context.Context, old string, r neon.MemberAdd) (neon.MemberAdded, error)

	// Transfer hands leadership to a member, or to the most up to date one.
	Transfer(ctx context.Context, to string) error
}

// memberHandler answers requests about the members of the Raft cluster.
type memberHandler struct {
	view    func(ctx context.Context) neon.Cluster
	members Membership
}

// list answers on every replica, with or without a leader: whoever asks may want to know
// why there is none.
func (h memberHandler) list(c *call) (answer, error) { return reply(h.view(c.ctx), nil) }

func (h memberHandler) add(c *call) (answer, error) {
	var req neon.MemberAdd
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return reply(h.members.Add(c.ctx, req))
}

func (h memberHandler) remove(c *call) (answer, error) {
	id, err := c.member()
	if err != nil {
		return answer{}, err
	}
	return done(h.members.Remove(c.ctx, id))
}

func (h memberHandler) replace(c *call) (answer, error) {
	id, err := c.member()
	if err != nil {
		return answer{}, err
	}
	var req neon.MemberAdd
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return reply(h.members.Replace(c.ctx, id, req))
}

func (h memberHandler) transfer(c *call) (answer, error) {
	var req neon.LeaderTransfer
	if err := c.decode(&req); err != nil {
		return answer{}, err
	}
	return done(h.members.Transfer(c.ctx, req.To))
}
