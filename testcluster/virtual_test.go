package testcluster_test

import (
	"testing"
	"testing/synctest"
	"time"

	"quorate/testcluster"
)

func TestVirtualHourWithALeaderKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := within(t, 2*time.Hour)
		c := testcluster.Run(t, testcluster.Builder{
			Mode: testcluster.Virtual, Controllers: 3, Pageservers: 4, Zones: 2, Hook: true,
			HeartbeatInterval: 5 * time.Second, MaxOffline: 30 * time.Second,
		})
		create(t, ctx, c, 5, 4, 1)
		atRest(t, ctx, c)
		c.KillPageserver(2)
		killed, err := c.KillLeader(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.WaitNodes(ctx); err != nil {
			t.Fatal(err)
		}
		atRest(t, ctx, c)
		<-time.After(time.Hour)
		if err := c.Restart(ctx, killed); err != nil {
			t.Fatal(err)
		}
		atRest(t, ctx, c)
	})
}
