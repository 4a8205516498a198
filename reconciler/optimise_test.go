package reconciler

import (
	"errors"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/reconciler/outbox"
)

// sendAway gives the shards of some tenants a home where they have no location.
func (b *bench) sendAway(ids ...neon.TenantID) {
	b.t.Helper()
	st := b.log.State()
	var items []fsm.PreferredAZ
	for _, id := range ids {
		for sh := range st.TenantShards(id) {
			taken := make(map[neon.AZ]bool)
			for _, n := range append(sh.Secondary, sh.Attached) {
				node, _ := st.Node(n)
				taken[node.AZ] = true
			}
			for n := range st.Nodes() {
				if !taken[n.AZ] {
					items = append(items, fsm.PreferredAZ{Shard: sh.ID, AZ: n.AZ})
					break
				}
			}
		}
	}
	b.must(fsm.SetPreferredAZs{Items: items})
}

// away counts the shards of some tenants that are not attached in their home.
func (b *bench) away(ids ...neon.TenantID) (n int) {
	st := b.log.State()
	for _, id := range ids {
		for sh := range st.TenantShards(id) {
			if node, _ := st.Node(sh.Attached); node.AZ != sh.PreferredAZ {
				n++
			}
		}
	}
	return n
}

// TestOptimisingGoesOnBesideOtherWork: there is always something under way in a large
// cluster, and it may be so for ever. It leaves the optimiser its budget.
func TestOptimisingGoesOnBesideOtherWork(t *testing.T) {
	for name, begin := range map[string]func(b *bench, busy []neon.TenantID){
		"five configurations a second": func(b *bench, busy []neon.TenantID) {
			b.fleet.set(func() { b.fleet.latency = 250 * time.Millisecond })
			for n := range 15 * 60 * 5 {
				tenant, _ := b.log.State().Tenant(busy[n%len(busy)])
				conf, _ := neon.TenantConfig{}.With("gc_horizon", []byte{'1' + byte(n%9)})
				b.must(fsm.UpdateTenant{ID: tenant.ID, Sequence: tenant.Sequence, Config: &conf})
				elapse(200 * time.Millisecond)
			}
		},
		"an operation": func(b *bench, _ []neon.TenantID) {
			b.depose()
			b.points = &places{sleep: map[string]time.Duration{"sleepy-drain-loop": time.Hour}}
			b.lead()
			b.begin(1, fsm.OperationDrain)
			elapse(15 * time.Minute)
		},
	} {
		t.Run(name, func(t *testing.T) {
			scenario(t, 6, func(b *bench) {
				ids := b.create(3, 1, neon.Attached(1))
				busy := b.create(20, 4, neon.Attached(0))
				b.awaitIdle()
				b.sendAway(ids...)
				begin(b, busy)
				if n := b.away(ids...); n > 0 {
					b.t.Errorf("%d shards are not at home", n)
				}
			})
		})
	}
}

// TestOneColdShardDoesNotStopItsTenant: nor does one that is stuck, or one that cannot
// be moved now. The others go home one after another.
func TestOneColdShardDoesNotStopItsTenant(t *testing.T) {
	for name, spoil := range map[string]func(*fleet, neon.ShardID){
		"cold": func(f *fleet, id neon.ShardID) {
			f.lagOf = func(of neon.ShardID) uint64 {
				if of == id {
					return 11 << 30
				}
				return 0
			}
		},
		"stuck": func(f *fleet, id neon.ShardID) {
			f.onPut = func(_ neon.NodeID, of neon.ShardID) error {
				if of == id {
					return errRefused
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			scenario(t, 6, func(b *bench) {
				tenant := b.create(1, 8, neon.Attached(1))[0]
				b.awaitIdle()
				first := neon.ShardID{Tenant: tenant, Count: 8}
				b.fleet.set(func() { spoil(b.fleet, first) })
				b.sendAway(tenant)
				before := b.away(tenant)
				elapse(30 * time.Minute)
				if n := b.away(tenant); before != 8 || n != 1 {
					b.t.Errorf("%d shards of %d are away from home", n, before)
				}
				b.fleet.set(func() { b.fleet.lagOf, b.fleet.onPut = nil, nil })
				elapse(5 * time.Minute)
				b.awaitIdle()
				b.check()
				if n := b.away(tenant); n != 0 {
					b.t.Errorf("%d shards are away from home", n)
				}
			})
		})
	}
}

// TestOptimisingKeepsToItsBudget: no more moves are at work at a time, however long
// each takes and whoever leads.
func TestOptimisingKeepsToItsBudget(t *testing.T) {
	scenario(t, 6, func(b *bench) {
		b.depose()
		b.opts.OptimiseInterval = time.Second
		b.lead()
		ids := b.create(100, 1, neon.Attached(1))
		b.awaitIdle()
		b.sendAway(ids...)
		b.fleet.set(func() { b.fleet.slow = true }) // a download takes five seconds
		most := 0
		for range 5 * 60 {
			elapse(time.Second)
			most = max(most, b.preferring())
		}
		if most > 20 || most < 8 { // one that waited a moment goes on beside the sixteen
			b.t.Errorf("%d shards were being moved at a time", most)
		}
		if n := b.away(ids...); n != 0 {
			b.t.Errorf("%d shards are away from home", n)
		}
	})
}

// TestATenantThatComputeIsNotToldOfMovesNoFurther: the move of each of its shards
// would stop halfway as the first one did.
func TestATenantThatComputeIsNotToldOfMovesNoFurther(t *testing.T) {
	scenario(t, 6, func(b *bench) {
		tenant := b.create(1, 8, neon.Attached(1))[0]
		b.awaitIdle()
		b.sendAway(tenant)
		b.fleet.set(func() {
			b.fleet.hookErr = &outbox.Refusal{Err: errors.New("403 Forbidden"), Never: true}
		})
		elapse(30 * time.Minute)
		if n := b.away(tenant); n != 7 {
			b.t.Errorf("%d shards of 8 stayed where they are", n)
		}
		b.fleet.set(func() { b.fleet.hookErr = nil })
		elapse(10 * time.Minute)
		if n := b.away(tenant); n != 0 {
			b.t.Errorf("%d shards are away from home", n)
		}
	})
}
