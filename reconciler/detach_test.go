package reconciler

import (
	"context"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
)

// A pageserver takes its time to remove what a split has left, and meanwhile a tenant gets
// that very shard. What is believed of it is what the pageserver has, also where nodes are
// not listed again.
func TestADetachThatCrossesAnAttachmentIsNoticed(t *testing.T) {
	for _, inDoubt := range []bool{false, true} {
		scenario(t, 1, func(b *bench) {
			b.depose()
			b.opts.RelistInDoubt = inDoubt
			b.lead()
			b.awaitIdle()
			id := neon.Unsharded(neon.TenantID{0xab})
			held := false
			b.fleet.set(func() {
				b.fleet.onPut = func(_ neon.NodeID, of neon.ShardID) error {
					if of == id && !held {
						held = true
						b.fleet.mu.Unlock()
						elapse(3 * time.Second)
						b.fleet.mu.Lock()
					}
					return nil
				}
			})
			node, _ := b.log.State().Node(1)
			done := make(chan error)
			go func() { done <- b.now.Detach(b.t.Context(), &node, id) }()
			elapse(100 * time.Millisecond)
			b.must(fsm.CreateTenant{
				ID: id.Tenant, Stripe: 2048, Policy: neon.Attached(0),
				Scheduling: neon.ShardActive, Shards: []fsm.NewShard{{Attached: 1}},
			})
			if err := <-done; err != nil {
				t.Error(err)
			}
			elapse(10 * time.Second)
			if !b.fleet.holds(1, id) {
				t.Errorf("in doubt %v: it is attached nowhere, and believed to be %+v", inDoubt,
					b.sightOf(id, 1))
			}
			b.awaitIdle()
			b.check()
		})
	}
}

// What a split has left is detached by the split and, once a listing has found it, as a stray.
// While the first call is under way, the second one cannot tell what the first will do. It
// is not made again and again for that.
func TestADetachThatCrossesAnotherIsNotRepeatedWithoutAPause(t *testing.T) {
	scenario(t, 1, func(b *bench) {
		id := neon.Unsharded(neon.TenantID{0xab})
		puts := 0
		b.fleet.set(func() {
			b.fleet.onPut = func(_ neon.NodeID, of neon.ShardID) error {
				if of != id {
					return nil
				}
				if puts++; puts == 1 {
					b.fleet.mu.Unlock()
					elapse(20 * time.Second)
					b.fleet.mu.Lock()
				}
				if puts > 1000 {
					return context.Canceled // or the test would not end
				}
				return nil
			}
		})
		b.fleet.leave(1, id)
		node, _ := b.log.State().Node(1)
		done := make(chan error)
		go func() { done <- b.now.Detach(b.t.Context(), &node, id) }()
		elapse(100 * time.Millisecond)
		b.now.Kick(id)
		b.backAfterRestart(1, 0)
		<-done
		elapse(2 * time.Minute)
		if puts > 30 {
			t.Errorf("%d calls", puts)
		}
		if b.fleet.holds(1, id) {
			t.Error("it stays")
		}
	})
}

// Without a term nobody could be told of it.
func TestADetachNeedsATerm(t *testing.T) {
	r := New(Deps{})
	if err := r.Detach(t.Context(), &fsm.Node{ID: 1}, neon.ShardID{}); neon.CodeOf(err) !=
		neon.CodeOf(errNoTerm) {
		t.Errorf("got %v", err)
	}
}
