package testcluster_test

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/testcluster"
)

// tenantID makes a readable id that differs for each number.
func tenantID(n int) (id neon.TenantID) {
	binary.BigEndian.PutUint32(id[:], 0xc0ffee00)
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	return id
}

func createRequest(n, shards, secondaries int) neon.TenantCreateRequest {
	policy := neon.Attached(secondaries)
	return neon.TenantCreateRequest{
		Tenant:          neon.ShardID{Tenant: tenantID(n)},
		Placement:       &policy,
		ShardParameters: &neon.ShardParameters{Count: neon.ShardCount(shards), StripeSize: 2048},
	}
}

func create(
	t *testing.T, ctx context.Context, c *testcluster.Cluster, tenants, shards, secondaries int,
) {
	t.Helper()
	client := c.Client()
	for n := range tenants {
		if _, err := client.Tenants().Create(ctx,
			createRequest(n, shards, secondaries)); err != nil {
			t.Fatalf("create tenant %d: %v", n, err)
		}
	}
}

func atRest(t *testing.T, ctx context.Context, c *testcluster.Cluster) {
	t.Helper()
	if err := c.WaitQuiescent(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.CheckAll(ctx); err != nil {
		t.Fatal(err)
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestEvacuationGoesOnWhenTheLeaderDies(t *testing.T) {
	ctx := within(t, 4*time.Minute)
	c := testcluster.Run(t,
		testcluster.Builder{Controllers: 3, Pageservers: 4, Zones: 2, Hook: true})
	create(t, ctx, c, 10, 4, 1)
	atRest(t, ctx, c)
	c.KillPageserver(1)
	killed, err := c.KillLeader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WaitNodes(ctx); err != nil {
		t.Fatal(err)
	}
	atRest(t, ctx, c)
	if err := c.Restart(ctx, killed); err != nil {
		t.Fatal(err)
	}
	atRest(t, ctx, c)
}
