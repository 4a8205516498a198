package testcluster_test

import (
	"context"
	"fmt"
	"log"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/testcluster"
)

// Three controllers run in this process. A pageserver dies, then the leader. Its
// successor finishes the evacuation. In a test, Run does what Start, Stop and the
// check of the oracle do here.
func Example_threeNodes() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := testcluster.Builder{Controllers: 3, Pageservers: 3, Zones: 3}.Start(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = c.Stop() }()

	tenant, err := c.Client().Tenants().Create(ctx, fourShards())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(tenant.Shards), "shards")

	c.KillPageserver(tenant.Shards[0].Node)
	if _, err := c.KillLeader(ctx); err != nil {
		log.Fatal(err)
	}
	if err := c.WaitNodes(ctx); err != nil { // the verdict that the pageserver is offline
		log.Fatal(err)
	}
	if err := c.WaitQuiescent(ctx); err != nil {
		log.Fatal(err)
	}
	follower, err := c.Follower(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("wrong at a follower:", c.CheckAttachedExactlyOnce(ctx, follower))
	fmt.Println("wrong anywhere:", c.CheckAll(ctx))
	// Output:
	// 4 shards
	// wrong at a follower: <nil>
	// wrong anywhere: <nil>
}

// One controller is a cluster too. It comes back with all that it acknowledged.
func Example_oneNode() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := testcluster.Builder{}.Start(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = c.Stop() }()

	if _, err := c.Client().Tenants().Create(ctx, fourShards()); err != nil {
		log.Fatal(err)
	}
	if err := c.Kill(0); err != nil {
		log.Fatal(err)
	}
	if err := c.Restart(ctx, 0); err != nil {
		log.Fatal(err)
	}
	found, err := c.Client().Tenants().Describe(ctx, fourShards().Tenant.Tenant)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(found.Shards), "shards")
	// Output:
	// 4 shards
}

// A virtual cluster runs inside a bubble of testing/synctest, so that an hour passes
// in a second or two.
func Example_virtualTime() {
	TestDay := func(t *testing.T) {
		synctest.Test(t, anHourPasses)
	}
	_ = TestDay
}

// anHourPasses is the body of the test of Example_virtualTime.
func anHourPasses(t *testing.T) {
	ctx := t.Context()
	c := testcluster.Run(t, testcluster.Builder{
		Mode: testcluster.Virtual, Controllers: 3, Pageservers: 3, Zones: 3,
		HeartbeatInterval: 5 * time.Second, MaxOffline: 30 * time.Second,
	})
	if _, err := c.Client().Tenants().Create(ctx, fourShards()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Hour)
	if _, err := c.KillLeader(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitQuiescent(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.CheckAll(ctx); err != nil {
		t.Fatal(err)
	}
}

// The virtual example needs a *testing.T, which examples do not have.
func TestVirtualExample(t *testing.T) { synctest.Test(t, anHourPasses) }

// fourShards asks for a tenant.
func fourShards() neon.TenantCreateRequest {
	tenant, err := neon.ParseTenantID("5f1c8c6ae3d6a1a4b8d5a8e2f0c4d9b7")
	if err != nil {
		log.Fatal(err)
	}
	return neon.TenantCreateRequest{
		Tenant:          neon.ShardID{Tenant: tenant},
		ShardParameters: &neon.ShardParameters{Count: 4, StripeSize: neon.DefaultStripeSize},
	}
}
