package reconciler

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/reconciler/plan"
)

// leave puts an attached location on a pageserver behind the leader's back.
func (f *fleet) leave(n neon.NodeID, id neon.ShardID) {
	f.set(func() {
		if f.at[n] == nil {
			f.at[n] = map[neon.ShardID]neon.LocationConfig{}
		}
		f.at[n][id] = neon.LocationConfig{
			Mode: neon.AttachedSingle, Generation: new(neon.Generation(1)),
		}
	})
}

// stays makes a pageserver refuse every change of one location, as of a tenant that
// hangs in Stopping, and counts the tries.
func (f *fleet) stays(n neon.NodeID, id neon.ShardID) (tries *int) {
	tries = new(int)
	f.set(func() {
		f.onPut = func(at neon.NodeID, of neon.ShardID) error {
			if at == n && of == id {
				*tries++
				return errRefused
			}
			return nil
		}
	})
	return tries
}

// countLists counts the listings of all pageservers.
func (f *fleet) countLists() *int {
	n := new(int)
	f.set(func() { f.onList = func() { *n++ } })
	return n
}

func (f *fleet) holds(n neon.NodeID, id neon.ShardID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, there := f.at[n][id]
	return there
}

// restart is what a pageserver does that has started: it takes the numbers it is given.
func (b *bench) restart(n neon.NodeID) {
	b.t.Helper()
	r := b.must(fsm.ReAttach{Node: n})
	b.now.ReAttached(n)
	b.fleet.set(func() {
		for _, l := range r.ReAttached {
			if c, there := b.fleet.at[n][l.Shard]; there && l.Mode == neon.AttachedSingle {
				c.Generation = &l.Generation
				b.fleet.at[n][l.Shard] = c
				if by := b.fleet.owners[l.Shard]; by != nil {
					by[l.Generation] = n
				}
			}
		}
	})
}

// deleteTenant deletes a tenant as far as its locations go.
func (b *bench) deleteTenant(id neon.TenantID, atMost time.Duration) error {
	b.t.Helper()
	r := b.must(fsm.BeginDeleteTenant{ID: id})
	tenant, _ := b.log.State().Tenant(id)
	ctx, cancel := context.WithTimeout(context.Background(), atMost)
	defer cancel()
	return b.now.Await(ctx, r.Index, tenant.Shards()...)
}

var strayOfNobody = neon.Unsharded(neon.TenantID{0xdd})

// TestALocationThatStaysBlocksNoDeletion: it is of a tenant that nobody knows, and its
// pageserver does not give it up. The listing that has found it counts.
func TestALocationThatStaysBlocksNoDeletion(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		ids := b.create(3, 1, neon.Attached(0))
		b.awaitIdle()
		b.depose()
		b.fleet.leave(1, strayOfNobody)
		tries := b.fleet.stays(1, strayOfNobody)
		lists := b.fleet.countLists()
		b.lead()
		b.awaitIdle()
		if err := b.deleteTenant(ids[0], 10*time.Second); err != nil {
			b.t.Errorf("a tenant that has nothing to do with it: %v", err)
		}
		b.fleet.set(func() { *lists, *tries = 0, 0 })
		elapse(10 * time.Minute)
		b.fleet.set(func() {
			if *lists > 3*11 {
				b.t.Errorf("three nodes were listed %d times in ten minutes", *lists)
			}
			if *tries < 5 || *tries > 20 {
				b.t.Errorf("it was tried %d times in ten minutes", *tries)
			}
			b.fleet.onPut = nil
		})
		elapse(2 * time.Minute)
		if b.fleet.holds(1, strayOfNobody) {
			b.t.Error("it stays though it would go now")
		}
	})
}

// TestALocationThatStaysKeepsNoNodeWarmingUp: a node is used again after its restart,
// whatever else is on it; so it is on an operator's order.
func TestALocationThatStaysKeepsNoNodeWarmingUp(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		scenario(t, 3, func(b *bench) {
			b.create(30, 1, neon.Attached(0))
			b.awaitIdle()
			b.fleet.leave(1, strayOfNobody)
			b.fleet.stays(1, strayOfNobody)
			b.restart(1)
			if ordered {
				if err := b.now.ActivateNode(b.t.Context(), 1); err != nil {
					b.t.Error(err)
				}
			}
			elapse(5 * time.Second)
			if n, _ := b.log.State().Node(1); n.Availability != neon.NodeActive {
				b.t.Errorf("the node is %s", n.Availability)
			}
			b.awaitIdle()
		})
	}
}

// TestALocationThatHangsHoldsUpNoOther: the others of its node go at once, and those
// of other nodes.
func TestALocationThatHangsHoldsUpNoOther(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		b.depose()
		hung := map[neon.ShardID]bool{}
		for i := range byte(40) {
			id := neon.Unsharded(neon.TenantID{0xdd, i})
			b.fleet.leave(1, id)
			hung[id] = i < 20
			b.fleet.leave(2, neon.Unsharded(neon.TenantID{0xde, i}))
		}
		b.fleet.set(func() {
			b.fleet.onPut = func(_ neon.NodeID, id neon.ShardID) error {
				if !hung[id] {
					return nil
				}
				b.fleet.mu.Unlock()
				elapse(25 * time.Second)
				b.fleet.mu.Lock()
				return context.DeadlineExceeded
			}
		})
		b.lead()
		elapse(10 * time.Second)
		b.fleet.set(func() {
			if left := len(b.fleet.at[2]); left > 0 {
				b.t.Errorf("%d stay on another node", left)
			}
		})
		elapse(3 * time.Minute)
		b.fleet.set(func() {
			if left := len(b.fleet.at[1]); left > 20 {
				b.t.Errorf("%d of 20 stay beside those that hang", left-20)
			}
		})
		b.fleet.set(func() { b.fleet.onPut = nil })
		elapse(2 * time.Minute)
		for id := range hung {
			if b.fleet.holds(1, id) {
				b.t.Errorf("%s stays", id)
			}
		}
	})
}

// TestADeletionWaitsForWhatIsLeftOfItsTenant: a child of a split that was aborted writes
// into what is to be deleted. Its tenant says what it waits for, and no other one waits.
func TestADeletionWaitsForWhatIsLeftOfItsTenant(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		ids := b.create(2, 1, neon.Attached(0))
		b.awaitIdle()
		child := neon.ShardID{Tenant: ids[0], Number: 1, Count: 2}
		b.fleet.leave(2, child)
		b.fleet.stays(2, child)
		elapse(2 * time.Minute)
		if err := b.deleteTenant(ids[1], 10*time.Second); err != nil {
			b.t.Errorf("a tenant that has nothing to do with it: %v", err)
		}
		if err := b.deleteTenant(ids[0], time.Minute); err == nil {
			b.t.Fatal("it is deleted while a child is attached")
		}
		why := b.now.Status(neon.ShardID{Tenant: ids[0], Count: 1}).LastError
		if !strings.Contains(why, child.String()) || !strings.Contains(why, "node 2") {
			b.t.Errorf("it says that it waits for %q", why)
		}
		b.fleet.set(func() { b.fleet.onPut = nil })
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := b.now.Await(ctx, b.log.State().Index,
			neon.ShardID{Tenant: ids[0], Count: 1}); err != nil {
			b.t.Errorf("it is not deleted after %s: %v", time.Since(began), err)
		}
		if b.fleet.holds(2, child) {
			b.t.Error("the child stays")
		}
	})
}

// TestADeletionWaitsForWhatADroppedTenantHasLeft: the next tenant of the same id has other
// shards, and nothing lists the nodes before it is deleted.
func TestADeletionWaitsForWhatADroppedTenantHasLeft(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		ids := b.create(2, 2, neon.Attached(1))
		b.awaitIdle()
		for _, id := range ids {
			b.must(fsm.DropTenant{ID: id})
			b.createAs(id, 1, neon.Attached(0))
		}
		b.awaitIdle()
		if err := b.deleteTenant(ids[0], 10*time.Second); err != nil {
			b.t.Errorf("while all of it can be detached: %v", err)
		}
		if left := b.fleet.of(ids[0]); len(left) > 0 {
			b.t.Errorf("it is deleted while %v are there", left)
		}
		kept := b.fleet.of(ids[1])
		if len(kept) < 3 {
			b.t.Fatalf("a listing has come before: %v", kept)
		}
		stays := kept[len(kept)-1]
		b.fleet.set(func() {
			b.fleet.onPut = func(_ neon.NodeID, of neon.ShardID) error {
				if of == stays {
					return errRefused
				}
				return nil
			}
		})
		if err := b.deleteTenant(ids[1], 10*time.Second); err == nil {
			b.t.Error("it is deleted while a shard stays")
		}
		b.fleet.set(func() { b.fleet.onPut = nil })
		elapse(3 * time.Minute)
		if left := b.fleet.of(ids[1]); len(left) > 0 {
			b.t.Errorf("%v stay", left)
		}
	})
}

// TestADroppedTenantIsLeftAloneForAWhile: it may be imported again, and is served meanwhile.
func TestADroppedTenantIsLeftAloneForAWhile(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		id := b.create(1, 2, neon.Attached(1))[0]
		b.awaitIdle()
		elapse(relistInterval + time.Second) // all were listed
		before := b.fleet.of(id)
		b.must(fsm.DropTenant{ID: id})
		elapse(10 * time.Second)
		if now := b.fleet.of(id); !slices.Equal(now, before) {
			b.t.Errorf("%v are left of %v", now, before)
		}
		elapse(3 * time.Minute)
		if now := b.fleet.of(id); len(now) > 0 {
			b.t.Errorf("%v stay", now)
		}
	})
}

// TestADeletionWaitsForWhereTheParentOfASplitWas: a live migration whose end compute was not
// told of leaves its origin attached, and the split knows of the destination only.
func TestADeletionWaitsForWhereTheParentOfASplitWas(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		id := b.create(1, 1, neon.Attached(0))[0]
		b.awaitIdle()
		sh := first(b)
		origin := sh.Attached%3 + 1
		b.fleet.leave(origin, sh.ID)
		b.fleet.stays(origin, sh.ID)
		elapse(relistInterval + 5*time.Second) // it was listed, and is not given up
		b.splitIn2(id)
		b.fleet.set(func() { b.fleet.onPut = nil })
		if !b.fleet.holds(origin, sh.ID) {
			b.t.Fatal("nothing is left")
		}
		if err := b.deleteTenant(id, 20*time.Second); err != nil {
			b.t.Errorf("while all of it can be detached: %v", err)
		}
		if b.fleet.holds(origin, sh.ID) {
			b.t.Error("it is deleted while its parent is attached")
		}
	})
}

// TestNoCallPlacesAShardThatIsGone: it was decided before the tenant was dropped, and would
// put there what nobody knows of.
func TestNoCallPlacesAShardThatIsGone(t *testing.T) {
	scenario(t, 1, func(b *bench) {
		id := b.create(1, 1, neon.Attached(0))[0]
		b.awaitIdle()
		sh := first(b)
		b.must(fsm.DropTenant{ID: id})
		elapse(3 * time.Minute)
		node, _ := b.log.State().Node(1)
		err := b.now.current.Load().calls.configure(t.Context(), &node, change{
			shard: sh.ID, conf: plan.Conf{Mode: neon.AttachedSingle, Generation: sh.Generation},
			body: &neon.LocationConfig{Mode: neon.AttachedSingle, Generation: &sh.Generation},
		})
		if !errors.Is(err, errNoShard) || b.fleet.holds(1, sh.ID) {
			b.t.Errorf("%v; it is attached: %t", err, b.fleet.holds(1, sh.ID))
		}
	})
}

// of lists the shards of a tenant that pageservers have, in order.
func (f *fleet) of(id neon.TenantID) (ids []neon.ShardID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, has := range f.at {
		for sh, conf := range has {
			if sh.Tenant == id && conf.Mode != neon.Detached {
				ids = append(ids, sh)
			}
		}
	}
	slices.SortFunc(ids, neon.ShardID.Compare)
	return ids
}

// TestANodeThatCannotBeListedIsUsed: it answers its heartbeats and is not given up, so
// nothing would ever end its start. What is on it is looked at one by one. Deletions wait
// for it, by name, since it may have their tenants.
func TestANodeThatCannotBeListedIsUsed(t *testing.T) {
	scenario(t, 3, func(b *bench) {
		ids := b.create(30, 1, neon.Attached(0))
		b.awaitIdle()
		b.restart(1)
		b.fleet.set(func() { b.fleet.unlisted = 1 })
		elapse(b.opts.MaxWarmingUp + 5*time.Second)
		if n, _ := b.log.State().Node(1); n.Availability != neon.NodeActive {
			b.t.Errorf("the node is %s", n.Availability)
		}
		b.configure(ids, `{"gc_horizon":7}`)
		b.awaitIdle()
		b.check()
		if err := b.deleteTenant(ids[0], 10*time.Second); err == nil {
			b.t.Error("a tenant is deleted that the node may have")
		}
		why := b.now.Status(neon.ShardID{Tenant: ids[0], Count: 1}).LastError
		if !strings.Contains(why, "node 1") || !strings.Contains(why, errUnlisted.Error()) {
			b.t.Errorf("it says that it waits for %q", why)
		}
		b.fleet.set(func() { b.fleet.unlisted = 0 })
		elapse(30 * time.Second)
		if err := b.deleteTenant(ids[1], 10*time.Second); err != nil {
			b.t.Error(err)
		}
	})
}

// TestWhatIsFoundIsNotDetachedOnceItExists: between the listing and a later try its tenant was
// created again. Whoever serves it is left alone, and attached once.
func TestWhatIsFoundIsNotDetachedOnceItExists(t *testing.T) {
	scenario(t, 1, func(b *bench) {
		b.depose()
		b.fleet.leave(1, strayOfNobody)
		b.fleet.stays(1, strayOfNobody)
		b.lead()
		elapse(20 * time.Second)
		b.fleet.set(func() { b.fleet.onPut = nil })
		b.must(fsm.CreateTenant{
			ID: strayOfNobody.Tenant, Stripe: 2048, Policy: neon.Attached(0),
			Scheduling: neon.ShardActive, Generation: 1, Shards: []fsm.NewShard{{Attached: 1}},
		})
		elapse(5 * time.Minute)
		b.awaitIdle()
		b.check()
		if sh := first(b); sh.Generation > 2 {
			b.t.Errorf("it took %s numbers", sh.Generation)
		}
	})
}

var errUnlisted = errors.New("cannot be listed")
