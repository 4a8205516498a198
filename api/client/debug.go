package client

import (
	"context"
	"net/http"

	"quorate/api/neon"
)

// Debug are the calls that look into the controller, and those of tests.
type Debug struct{ c caller }

// Shards lists every shard with all that the leader knows of it.
func (d Debug) Shards(ctx context.Context) (list []neon.ShardDump, err error) {
	return list, d.c.Call(ctx, http.MethodGet, "/debug/v1/tenant", nil, &list)
}

// ReconcileAll makes the controller look at every shard now. It returns how many are
// not yet where they should be; 0 means that all are at rest.
func (d Debug) ReconcileAll(ctx context.Context) (left int, err error) {
	return left, d.c.Call(ctx, http.MethodPost, "/debug/v1/reconcile_all", nil, &left)
}

// ConsistencyCheck returns nil when the leader's state has no contradiction in it.
func (d Debug) ConsistencyCheck(ctx context.Context) error {
	return d.c.Call(ctx, http.MethodPost, "/debug/v1/consistency_check", nil, nil)
}

// SetFailpoint sets what happens at a place in the replica that is asked, such as
// return(1000) or off. It needs --dev.
func (d Debug) SetFailpoint(ctx context.Context, name, actions string) error {
	body := []neon.FailpointConfig{{Name: name, Actions: actions}}
	return d.c.Call(ctx, http.MethodPut, "/debug/v1/failpoints", body, nil)
}
