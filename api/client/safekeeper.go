package client

import (
	"context"
	"net/http"

	"quorate/api/neon"
)

// Safekeepers are the calls about safekeepers. See Timelines for what is on them.
type Safekeepers struct{ c caller }

const safekeepersPath = "/control/v1/safekeeper"

func safekeeperPath(id neon.NodeID) string { return safekeepersPath + "/" + id.String() }

// Register makes a safekeeper known, or changes what is known of it.
func (s Safekeepers) Register(ctx context.Context, req neon.SafekeeperUpsert) error {
	return s.c.Call(ctx, http.MethodPost, safekeeperPath(neon.NodeID(req.ID)), req, nil)
}

// List lists the safekeepers by id.
func (s Safekeepers) List(ctx context.Context) (list []neon.SafekeeperDescribe, err error) {
	return list, s.c.Call(ctx, http.MethodGet, safekeepersPath, nil, &list)
}

// Get describes one safekeeper.
func (s Safekeepers) Get(
	ctx context.Context, id neon.NodeID,
) (d neon.SafekeeperDescribe, err error) {
	return d, s.c.Call(ctx, http.MethodGet, safekeeperPath(id), nil, &d)
}

// SetScheduling sets how a safekeeper is used.
func (s Safekeepers) SetScheduling(
	ctx context.Context, id neon.NodeID, to neon.SafekeeperScheduling,
) error {
	return s.c.Call(ctx, http.MethodPost, safekeeperPath(id)+"/scheduling_policy",
		neon.SafekeeperPolicyRequest{Scheduling: to}, nil)
}

// Settle declares a decommissioned safekeeper gone for good. Only Quorate knows this.
func (s Safekeepers) Settle(ctx context.Context, id neon.NodeID) error {
	return s.c.Call(ctx, http.MethodPut, safekeeperPath(id)+"/gone", nil, nil)
}
