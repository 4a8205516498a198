package controller

import (
	"context"
	"fmt"
	"testing"

	"quorate/api/neon"
)

func TestAnImportedTenantCountsAboveAllThatIsFound(t *testing.T) {
	shard := func(number, count int, g, stripe string) string {
		id := neon.ShardID{
			Tenant: tenantOne, Number: neon.ShardNumber(number), Count: neon.ShardCount(count),
		}
		return fmt.Sprintf(`{"tenant_shard_id":"%s","generation":%s,"stripe_size":%s}`, id, g,
			stripe)
	}
	for name, c := range map[string]struct {
		found  string
		count  neon.ShardCount
		first  neon.Generation
		stripe neon.StripeSize
	}{
		"unsharded": {shard(0, 0, "4", "null"), 0, 4, unsplitStripe},
		"before there were generations": {
			shard(0, 0, "null", "16"), 0, 0, 16,
		},
		"parents have the largest number": {
			shard(0, 0, "12", "64") + "," + shard(0, 2, "9", "16") + "," + shard(1, 2, "3", "32"), 2,
			12, unsplitStripe,
		},
		"the newest child has the stripe": {
			shard(0, 0, "2", "64") + "," + shard(0, 2, "9", "16") + "," + shard(1, 2, "3", "32"), 2,
			9, 16,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			w.calls.call = func(neon.NodeID, neon.ShardID, neon.ShardCall) (int, string, error) {
				return 200, `{"shards":[` + c.found + `]}`, nil
			}
			resp, err := NewTenants(w.Deps).Import(t.Context(), tenantOne)
			if err != nil || len(resp.Shards) != c.count.Shards() {
				t.Fatalf("%+v, %v", resp, err)
			}
			tenant, _ := w.log.State().Tenant(tenantOne)
			if tenant.Count != c.count || tenant.Stripe != c.stripe ||
				tenant.Policy != neon.Attached(0) {
				t.Errorf("tenant is %+v", tenant)
			}
			w.log.Attach(t, tenantOne)
			for sh := range w.log.State().TenantShards(tenantOne) {
				if sh.Generation != c.first+1 {
					t.Errorf("shard is %+v", sh)
				}
			}
			equal(t, "calls", w.calls.took(), []string{"shard 0 on 1: GET scan_remote_storage"})
		})
	}
}

func TestImportsOfTenantsAreRefusedWithoutATrace(t *testing.T) {
	for name, c := range map[string]struct {
		nodes int
		body  string
		err   error
		code  neon.Code
		text  string
	}{
		"no nodes":      {0, "", nil, neon.BadRequest, "No nodes available"},
		"nothing found": {1, `{"shards":[]}`, nil, neon.NotFound, "No shards found"},
		"used up numbers": {
			1, fmt.Sprintf(`{"shards":[{"tenant_shard_id":"%s","generation":4294967294,"stripe_size":null}]}`,
				neon.Unsharded(tenantOne)), nil, neon.PreconditionFailed,
			"cannot be imported: Generation 4294967294 is too large",
		},
		"a broken answer": {1, `{"shards":`, nil, neon.Internal, "error decoding body"},
		"no answer": {
			1, "", neon.Errorf(neon.Unavailable, "no answer"), neon.Unavailable, "no answer",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.nodes)
			w.calls.call = func(neon.NodeID, neon.ShardID, neon.ShardCall) (int, string, error) {
				return 200, c.body, c.err
			}
			load := func(ctx context.Context) error {
				_, err := NewTenants(w.Deps).Import(ctx, tenantOne)
				return err
			}
			w.refuses(c.code, c.text, load)
			w.unreadable(map[string]func(context.Context) error{"import": load})
		})
	}
}
