package testcluster_test

import (
	"context"
	"fmt"
	"math"
	"net/http"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/testcluster"
)

// firstGeneration is where a new tenant counts from: now and then where the last one
// that may be chosen is.
func (w *worker) firstGeneration() *neon.Generation {
	if w.rng.IntN(4) > 0 {
		return nil
	}
	return ptr(neon.MaxGeneration - neon.Generation(w.rng.IntN(2)))
}

// chooseTooLarge sends a number that is too near to its end, at one of the entrances. It
// has to be refused, and what it was about must not exist.
func (w *worker) chooseTooLarge(ctx context.Context, c *testcluster.Client) {
	over := neon.MaxGeneration + 1 + neon.Generation(w.rng.IntN(2))*(math.MaxInt32)
	id := idOf(w.number())
	var err error
	what := w.rng.IntN(5)
	switch what {
	case 0:
		_, err = c.Tenants().Create(ctx,
			neon.TenantCreateRequest{Tenant: neon.Unsharded(id), Generation: &over})
	case 1:
		_, err = c.Tenants().Create(ctx, neon.TenantCreateRequest{
			Tenant: neon.Unsharded(id),
			ShardParameters: &neon.ShardParameters{
				Count: 2, StripeSize: neon.StripeSize(w.rng.IntN(2)) * math.MaxUint32,
			},
		})
	case 2:
		_, err = c.Tenants().PutLocation(ctx, id,
			neon.LocationConfig{Mode: neon.AttachedSingle, Generation: &over})
	case 3:
		nodes := w.Fleet().Nodes()
		_, err = c.Shards().AttachHook(ctx, neon.AttachHookRequest{
			Shard: neon.Unsharded(id), Node: ptr(nodes[w.rng.IntN(len(nodes))].ID()),
			GenerationOverride: &over,
		})
	case 4:
		err = c.Nodes().Register(ctx, neon.NodeRegister{
			ID: neon.MaxNodeID + 1 + neon.NodeID(w.rng.IntN(2))*(math.MaxInt64), HTTPAddr: "ps",
			HTTPPort: 1, PgAddr: "ps", PgPort: 1,
		})
	}
	w.count(err)
	if status := client.StatusOf(err); err == nil ||
		status != 0 && status < 500 && status != http.StatusBadRequest {
		w.Errorf("seed %d: number %d near its end was answered with %v", w.seed, what, err)
	}
	if what == 4 {
		return
	}
	err = c.Call(ctx, http.MethodGet, fmt.Sprintf("/control/v1/tenant/%s", id), nil, nil)
	if err == nil {
		w.Errorf("seed %d: tenant %s exists, though its number %d was refused", w.seed, id, what)
	}
}
