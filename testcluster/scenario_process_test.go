package testcluster_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"quorate/api/neon"
	"quorate/testcluster"
)

// TestScenariosOnProcesses tells two stories with the real program, which is killed
// with SIGKILL in each step. What is inside of it cannot be looked at here, so that
// the ends are compared as the API shows them.
func TestScenariosOnProcesses(t *testing.T) {
	few := []string{"config", "evacuate"}
	for _, sc := range scenarios() {
		if !slices.Contains(few, sc.name) {
			continue
		}
		t.Run(sc.name, func(t *testing.T) {
			var want string
			for _, v := range []variant{variants[0], variants[2]} {
				t.Run(v.name, func(t *testing.T) {
					b := sc.builder
					b.Mode, b.Seed = testcluster.Processes, 1
					b.Controllers, b.Hook = v.controllers, true
					s := &script{
						T: t, kill: v.kill, rng: rand.New(rand.NewPCG(1, 42)),
						Cluster: testcluster.Run(t, b),
					}
					t.Cleanup(s.killer.Wait)
					sc.run(s)
					s.revive()
					s.verdicts()
					s.rest()
					s.eventually("all is as it should be", s.CheckAll)
					got := s.shown()
					if want == "" {
						want = got
					}
					if got != want {
						t.Errorf("ended differently\n--- first run\n%s\n--- this run\n%s", want,
							got)
					}
				})
			}
		})
	}
}

// shown is the end of a story as the API shows it, without what may differ.
func (s *script) shown() string {
	s.Helper()
	var b strings.Builder
	s.do("list", func(ctx context.Context, c *testcluster.Client) error {
		b.Reset()
		nodes, err := c.Nodes().List(ctx)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			fmt.Fprintf(&b, "node %s %s %s\n", n.ID, n.Availability, n.Scheduling)
		}
		tenants, err := c.Tenants().List(ctx, neon.TenantID{}, 0)
		for _, t := range tenants {
			fmt.Fprintf(&b, "tenant %s %s %s\n", t.Tenant, t.Policy, t.Config.JSON())
			for _, sh := range t.Shards {
				fmt.Fprintf(&b, "  shard %s attached %v secondaries %d %s owes %v\n", sh.Shard,
					sh.Attached != nil, len(sh.Secondary), sh.Scheduling,
					sh.PendingComputeNotification)
			}
		}
		return err
	})
	return b.String()
}
