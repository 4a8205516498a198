package client

import (
	"context"
	"net/http"

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
