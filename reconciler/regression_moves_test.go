package reconciler

import (
	"errors"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/scheduler"
)

// TestAMoveIsNotHeldUpByADeadOrigin: whatever the move waits for when the node that
// it comes from dies, the shard is served from the other one as soon as that is known.
func TestAMoveIsNotHeldUpByADeadOrigin(t *testing.T) {
	for name, hold := range map[string]func(*fleet, neon.NodeID){
		"warming": func(f *fleet, _ neon.NodeID) { f.slow = true },
		"catching up": func(
			f *fleet, to neon.NodeID,
		) {
			f.has = map[neon.NodeID]map[neon.TimelineID]neon.Lsn{to: {{1}: 99}}
		},
		"telling compute": func(f *fleet, _ neon.NodeID) { f.hookErr = errors.New("not now") },
	} {
		t.Run(name, func(t *testing.T) {
			scenario(t, 2, func(b *bench) {
				id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(1))[0], Count: 1}
				b.awaitIdle()
				sh, _ := b.log.State().Shard(id)
				from, to := sh.Attached, sh.Secondary[0]
				b.fleet.set(func() { hold(b.fleet, to) })
				in, err := scheduler.New(b.log.State(), nil).Migrate(sh, to,
					scheduler.OverrideScheduler)
				if err != nil {
					t.Fatal(err)
				}
				b.must(fsm.SetIntents{Intents: []fsm.Intent{in}})
				elapse(b.opts.MaxOffline)
				if now, _ := b.log.State().Shard(id); !now.OwesNotification() && now.GenNode == to {
					t.Fatal("it does not wait")
				}
				b.fleet.set(func() { b.fleet.down[from] = true })
				elapse(b.opts.MaxOffline + 3*time.Second)
				b.fleet.set(func() {
					if c := b.fleet.at[to][id]; c.Mode != neon.AttachedSingle {
						t.Errorf("node %d has it as %q", to, c.Mode)
					}
					b.fleet.slow, b.fleet.has, b.fleet.hookErr = false, nil, nil
				})
				elapse(20 * time.Second)
				b.awaitIdle()
				b.check()
			})
		})
	}
}

// TestAMoveThatANewLeaderFindsIsNotHeldUpByADeadOrigin: the leader that began the move
// died together with the origin, which no other leader has ever listed.
func TestAMoveThatANewLeaderFindsIsNotHeldUpByADeadOrigin(t *testing.T) {
	for name, die := range map[string]func(*fleet, neon.NodeID){
		"down": func(f *fleet, n neon.NodeID) { f.down[n] = true },
		"hung": func(f *fleet, n neon.NodeID) { f.hung = n },
	} {
		t.Run(name, func(t *testing.T) {
			scenario(t, 3, func(b *bench) {
				id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(0))[0], Count: 1}
				b.awaitIdle()
				b.depose()
				sh, _ := b.log.State().Shard(id)
				to := sh.Attached%3 + 1
				b.must(fsm.SetIntents{
					Intents: []fsm.Intent{{Shard: id, Sequence: sh.Sequence, Attached: to}},
				})
				b.fleet.set(func() { die(b.fleet, sh.Attached) })
				b.lead()
				elapse(b.opts.MaxOffline + 5*time.Second)
				b.fleet.set(func() {
					if c := b.fleet.at[to][id]; c.Mode != neon.AttachedSingle {
						t.Errorf("node %d has it as %q", to, c.Mode)
					}
				})
			})
		})
	}
}

// TestDeletedTimelinesAreNotWaitedFor: one that is deleted during a migration is on
// the origin still and never gets to the destination.
func TestDeletedTimelinesAreNotWaitedFor(t *testing.T) {
	scenario(t, 2, func(b *bench) {
		id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(0))[0], Count: 1}
		b.awaitIdle()
		sh, _ := b.log.State().Shard(id)
		b.fleet.set(func() {
			b.fleet.has = map[neon.NodeID]map[neon.TimelineID]neon.Lsn{
				sh.Attached: {{1}: 100, {2}: 50},
			}
		})
		to := migrate(b, sh)
		elapse(5 * time.Second)
		b.fleet.set(func() {
			if c := b.fleet.at[to][id]; c.Mode != neon.AttachedSingle {
				b.t.Errorf("the destination is %q", c.Mode)
			}
		})
	})
}

// TestAStuckShardDoesNotKeepOthersFromBeingOptimised: nothing but a shard that has
// failed for long is under way.
func TestAStuckShardDoesNotKeepOthersFromBeingOptimised(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		ids := b.create(20, 1, neon.Attached(0))
		b.awaitIdle()
		dead := b.busiest()
		b.fleet.set(func() { b.fleet.down[dead] = true })
		elapse(20 * time.Second)
		b.awaitIdle()
		away := func(but neon.TenantID) (n int) {
			for sh := range b.log.State().ShardsFrom(neon.ShardID{}) {
				if node, _ := b.log.State().Node(sh.Attached); node.AZ != sh.PreferredAZ &&
					sh.ID.Tenant != but {
					n++
				}
			}
			return n
		}
		b.fleet.set(func() {
			b.fleet.onPut = func(_ neon.NodeID, id neon.ShardID) error {
				if id.Tenant == ids[0] {
					return errors.New("refused for ever")
				}
				return nil
			}
			b.fleet.down[dead] = false
		})
		b.configure(ids[:1], `{"gc_horizon":7}`)
		if away(ids[0]) == 0 {
			b.t.Fatal("nothing to do")
		}
		elapse(10 * time.Minute)
		if n := away(ids[0]); n != 0 {
			b.t.Errorf("%d shards are away from home", n)
		}
		if _, stuck := b.now.Pending(); stuck != 1 {
			b.t.Errorf("%d shards are stuck", stuck)
		}
	})
}

// TestASecondaryWithoutAHeatmapIsNotWarm: it has everything of nothing. Only a tenant
// without timelines has no more than that.
func TestASecondaryWithoutAHeatmapIsNotWarm(t *testing.T) {
	scenario(t, 2, func(b *bench) {
		id := neon.ShardID{Tenant: b.create(1, 1, neon.Attached(0))[0], Count: 1}
		b.awaitIdle()
		sh, _ := b.log.State().Shard(id)
		to := 3 - sh.Attached
		b.pin(id.Tenant)
		b.fleet.set(func() { b.fleet.mute = true })
		in, err := scheduler.New(b.log.State(), nil).Prewarm(sh, to, scheduler.OverrideScheduler)
		if err != nil {
			t.Fatal(err)
		}
		b.must(fsm.SetIntents{Intents: []fsm.Intent{in}})
		elapse(2 * time.Minute)
		if now, _ := b.log.State().Shard(id); now.Attached != sh.Attached {
			t.Fatal("it was moved to a node of which nobody knows what it should have")
		}
		b.fleet.set(
			func() { b.fleet.has = map[neon.NodeID]map[neon.TimelineID]neon.Lsn{sh.Attached: {}} })
		elapse(2 * time.Minute)
		if now, _ := b.log.State().Shard(id); now.Attached != to {
			t.Error("a tenant without timelines waits for a heatmap")
		}
	})
}
