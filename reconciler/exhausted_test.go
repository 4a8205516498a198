package reconciler

import (
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

// exhausted is a tenant that has no number left once it was attached so many times, as
// the first version let clients make it.
func (b *bench) exhausted(attaches neon.Generation) neon.TenantID {
	b.t.Helper()
	id := neon.TenantID{0xee}
	b.must(fsm.CreateTenant{
		ID: id, Stripe: 2048, Policy: neon.Attached(0), Scheduling: neon.ShardActive,
		Generation: math.MaxUint32 - attaches, Shards: []fsm.NewShard{{Attached: 1}},
	})
	b.log.Upgrade(b.t)
	return id
}

// What has no number left is not proposed for again and again, and holds nobody up.
func TestAShardWithoutNumbersIsLeftInPeace(t *testing.T) {
	oldScenario(t, 3, func(b *bench) {
		b.exhausted(0)
		before := b.log.State().Index
		elapse(time.Hour)
		if grown := b.log.State().Index - before; grown > 0 {
			t.Errorf("the log has grown by %d entries in an hour", grown)
		}
		b.create(4, 1, neon.Attached(1))
		b.awaitIdle()
	})
}

// Nor is it when its pageserver dies, or is deleted.
func TestAShardWithoutNumbersIsNotEvacuatedAgainAndAgain(t *testing.T) {
	oldScenario(t, 3, func(b *bench) {
		b.exhausted(1)
		b.create(10, 1, neon.Attached(1))
		b.awaitIdle()
		b.fleet.set(func() { b.fleet.down[1] = true })
		elapse(20 * time.Minute) // its secondaries are placed anew
		if n := b.attachedOn(1); n != 1 {
			t.Errorf("%d shards are still on the dead node, one has no number left", n)
		}
		before := b.log.State().Index
		elapse(time.Hour)
		if grown := b.log.State().Index - before; grown > 0 {
			t.Errorf("the log has grown by %d entries in an hour", grown)
		}
		n, _ := b.log.State().Node(1)
		b.must(fsm.BeginNodeOperation{
			Node: 1, Kind: fsm.OperationDelete, Force: true, Prior: n.Scheduling,
		})
		elapse(time.Minute)
		if n, _ := b.log.State().Node(1); !n.Tombstone {
			t.Error("the deletion by force does not end")
		}
		before = b.log.State().Index
		elapse(time.Hour)
		if grown := b.log.State().Index - before; grown > 0 {
			t.Errorf("the log has grown by %d entries in an hour after the deletion", grown)
		}
	})
}

// One shard without numbers does not keep its pageserver from starting.
func TestAShardWithoutNumbersIsLeftOutOfAReAttach(t *testing.T) {
	oldScenario(t, 3, func(b *bench) {
		id := b.exhausted(1)
		b.create(10, 1, neon.Attached(0))
		b.awaitIdle()
		on := b.attachedOn(1)
		r := b.must(fsm.ReAttach{Node: 1})
		if len(r.ReAttached) != on-1 {
			t.Errorf("%d shards are re-attached, %d should be", len(r.ReAttached), on-1)
		}
		for _, l := range r.ReAttached {
			if l.Shard.Tenant == id {
				t.Errorf("re-attached in generation %s", l.Generation)
			}
		}
		b.fleet.set(func() { delete(b.fleet.at[1], neon.Unsharded(id)) })
		elapse(time.Minute)
		b.awaitIdle()
	})
}

// What the log goes on refusing, for whatever reason, is proposed less and less often,
// and said to have failed.
func TestARefusalThatPersistsIsAFailure(t *testing.T) {
	id := neon.ShardID{Tenant: neon.TenantID{0xee}, Count: 1}
	generation := func(c fsm.Command) bool {
		_, ok := c.(fsm.IssueGenerations)
		return ok
	}
	arrival := func(c fsm.Command) bool {
		in, ok := c.(fsm.SetIntents)
		return ok && in.Intents[0].PreferredNode == 0
	}
	for name, refused := range map[string]func(fsm.Command) bool{
		"a generation": generation, "the end of a move": arrival,
	} {
		scenario(t, 3, func(b *bench) {
			b.createAs(id.Tenant, 1, neon.Attached(1))
			b.awaitIdle()
			var proposed atomic.Int64
			b.deny(func(c fsm.Command) []neon.ShardID {
				if !refused(c) {
					return nil
				}
				proposed.Add(1)
				return []neon.ShardID{id}
			})
			sh, _ := b.log.State().Shard(id)
			in := fsm.Intent{
				Shard: id, Sequence: sh.Sequence, Attached: sh.Attached, Secondary: sh.Secondary,
			}
			if in.PreferredNode = sh.Secondary[0]; name == "a generation" {
				in.Attached, in.Secondary, in.PreferredNode = sh.Secondary[0], nil, 0
			}
			b.must(fsm.SetIntents{Intents: []fsm.Intent{in}})
			elapse(time.Hour)
			if at := b.now.Status(id); at.Failures == 0 || !strings.Contains(at.LastError, "the log refuses it") {
				t.Errorf("%s: not said to have failed: %+v", name, at)
			}
			if n := proposed.Load(); n < 100 || n > 1000 {
				t.Errorf("%s: proposed %d times in an hour", name, n)
			}
			b.deny(nil)
			elapse(time.Minute)
			b.awaitIdle()
			b.check()
		})
	}
}
