package client

import (
	"context"
	"net/http"
	"net/url"

	"quorate/api/neon"
)

// Cluster are the calls about the controller itself and about its replicas.
type Cluster struct{ c caller }

// Ready returns nil when the replica that is asked answers requests, itself or by
// its leader.
func (c Cluster) Ready(ctx context.Context) error {
	return c.c.Call(ctx, http.MethodGet, "/ready", nil, nil)
}

// Status returns nil when the replica that is asked answers at all.
func (c Cluster) Status(ctx context.Context) error {
	return c.c.Call(ctx, http.MethodGet, "/status", nil, nil)
}

// Leader returns the replica that last took up the leader's duties; nil when none
// ever did.
func (c Cluster) Leader(ctx context.Context) (leader *neon.Leader, err error) {
	return leader, c.c.Call(ctx, http.MethodGet, "/control/v1/leader", nil, &leader)
}

// StepDown makes the replica that is asked hand leadership over.
func (c Cluster) StepDown(ctx context.Context) error {
	return c.c.Call(ctx, http.MethodPut, "/control/v1/step_down", nil, nil)
}

// Members returns the members as the replica that is asked sees them. Only Quorate
// knows it.
func (c Cluster) Members(ctx context.Context) (view neon.Cluster, err error) {
	return view, c.c.Call(ctx, http.MethodGet, "/debug/v1/cluster", nil, &view)
}

const membersPath = "/control/v1/cluster/members"

// CurrentMembers is Members with every change that was made before the call, as long as
// there is a leader: Cluster.Current tells. Only Quorate knows this call and the next four.
func (c Cluster) CurrentMembers(ctx context.Context) (view neon.Cluster, err error) {
	return view, c.c.Call(ctx, http.MethodGet, membersPath, nil, &view)
}

// AddMember adds a replica. It returns when that has its vote, or, as a standby, when it
// is a member. It can be repeated.
func (c Cluster) AddMember(
	ctx context.Context, m neon.MemberAdd,
) (added neon.MemberAdded, err error) {
	return added, c.c.Call(ctx, http.MethodPost, membersPath, m, &added)
}

// RemoveMember removes a replica.
func (c Cluster) RemoveMember(ctx context.Context, id string) error {
	return c.c.Call(ctx, http.MethodDelete, membersPath+"/"+url.PathEscape(id), nil, nil)
}

// ReplaceMember adds a replica and then removes another one. It can be repeated.
func (c Cluster) ReplaceMember(
	ctx context.Context, old string, m neon.MemberAdd,
) (added neon.MemberAdded, err error) {
	return added, c.c.Call(ctx, http.MethodPost, membersPath+"/"+url.PathEscape(old)+"/replace",
		m, &added)
}

// Transfer hands leadership to a member, or to the most up to date one if to is empty.
func (c Cluster) Transfer(ctx context.Context, to string) error {
	return c.c.Call(ctx, http.MethodPut, "/control/v1/cluster/transfer",
		neon.LeaderTransfer{To: to}, nil)
}
