package testcluster_test

import (
	"context"
	"testing"
	"testing/synctest"

	"quorate/api/neon"
	"quorate/testcluster"
)

// What was done behind the controllers' backs is seen by a listing only after a while,
// and a deletion does not wait for one: it must not believe what was seen before.
func TestADeletionLooksForWhatWasDoneBehindTheControllersBacks(t *testing.T) {
	shard := shardOf(0, 0, 0)
	for name, f := range map[string]func(*script){
		"unmanaged": func(s *script) {
			g := s.hook(shard, 2)
			s.place(2, shard, neon.LocationConfig{Mode: neon.AttachedSingle, Generation: &g})
		},
		"unmanaged twice": func(s *script) {
			for n := neon.NodeID(1); n <= 2; n++ {
				g := s.hook(shard, n)
				s.place(n, shard, neon.LocationConfig{Mode: neon.AttachedSingle, Generation: &g})
			}
		},
		"dropped and imported": func(s *script) {
			s.create(0, 0, neon.Attached(0))
			s.timeline(0, 0, -1, shard)
			s.rest()
			s.do("drop", func(
				ctx context.Context, c *testcluster.Client,
			) error {
				return c.Tenants().Drop(ctx, shard.Tenant)
			})
			s.do("import", func(ctx context.Context, c *testcluster.Client) error {
				_, err := c.Tenants().Import(ctx, shard.Tenant)
				return err
			})
		},
		"dropped and unmanaged": func(s *script) {
			s.create(0, 0, neon.Attached(0))
			s.rest()
			s.do("drop", func(
				ctx context.Context, c *testcluster.Client,
			) error {
				return c.Tenants().Drop(ctx, shard.Tenant)
			})
			s.hook(shard, 1)
		},
		"split, dropped and created again": func(s *script) {
			s.create(0, 0, neon.Attached(0))
			s.rest()
			s.do("split", func(
				ctx context.Context, c *testcluster.Client,
			) error {
				_, err := c.Tenants().Split(ctx, shard.Tenant, neon.ShardSplitRequest{Count: 2})
				return err
			})
			s.do("drop", func(
				ctx context.Context, c *testcluster.Client,
			) error {
				return c.Tenants().Drop(ctx, shard.Tenant)
			})
			s.create(0, 0, neon.Attached(0))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{T: t, Cluster: testcluster.Run(t, testcluster.Builder{
					Mode: testcluster.Virtual, Pageservers: 3, Hook: true, Seed: 1,
				})}
				s.rest()
				f(s)
				s.Oracle().Deleting(shard.Tenant)
				s.do("delete", func(
					ctx context.Context, c *testcluster.Client,
				) error {
					return c.Tenants().Delete(ctx, shard.Tenant)
				})
				s.rest()
			})
		})
	}
}
