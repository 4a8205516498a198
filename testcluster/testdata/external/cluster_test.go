// Package elsewhere is a test in a module outside of quorate's. TestOtherModulesCanUseIt
// copies it into a module of its own.
package elsewhere

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

func create(t *testing.T, ctx context.Context, c *testcluster.Cluster, name string) {
	t.Helper()
	id, err := neon.ParseTenantID(name)
	if err != nil {
		t.Fatal(err)
	}
	tenant, err := c.Client().Tenants().Create(ctx, neon.TenantCreateRequest{
		Tenant:          neon.ShardID{Tenant: id},
		ShardParameters: &neon.ShardParameters{Count: 2, StripeSize: neon.DefaultStripeSize},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(tenant.Shards) != 2 {
		t.Fatalf("created %v", tenant.Shards)
	}
}

// goOnWithoutTheLeader kills the leader between two tenants.
func goOnWithoutTheLeader(t *testing.T, mode testcluster.Mode) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := testcluster.Run(t, testcluster.Builder{
		Mode: mode, Controllers: 3, Pageservers: 2, Hook: true,
		Behaviour: simpageserver.Behaviour{SlotBusy: 10 * time.Millisecond},
		Splits:    testcluster.Splits{MaxShards: 8},
	})
	create(t, ctx, c, "5f1c8c6ae3d6a1a4b8d5a8e2f0c4d9b7")
	killed, err := c.KillLeader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	create(t, ctx, c, "0a1b2c3d4e5f60718293a4b5c6d7e8f9")
	if err := c.WaitQuiescent(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.CheckAll(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Restart(ctx, killed); err != nil {
		t.Fatal(err)
	}
}

func TestInProcess(t *testing.T) { goOnWithoutTheLeader(t, testcluster.InProcess) }

func TestProcesses(t *testing.T) { goOnWithoutTheLeader(t, testcluster.Processes) }

func TestVirtual(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { goOnWithoutTheLeader(t, testcluster.Virtual) })
}
