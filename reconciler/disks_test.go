package reconciler

import (
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/scheduler"
)

// diskOf is how full a disk is, in percent.
func (b *bench) diskOf(n neon.NodeID) float64 {
	b.t.Helper()
	node, _ := b.log.State().Node(n)
	u, err := b.fleet.Utilization(b.t.Context(), &node)
	if err != nil {
		b.t.Fatal(err)
	}
	return 100 * loadOf(u).DiskUtilisation()
}

// TestAFullDiskGivesShardsAway: it is full of something else than shards, fuller and fuller
// of it, and leaders change. Nothing is moved back while it is there.
func TestAFullDiskGivesShardsAway(t *testing.T) {
	scenario(t, 6, func(b *bench) {
		b.depose()
		b.opts.Disks.Enabled = true
		b.fleet.set(func() {
			b.fleet.disks, b.fleet.other = map[neon.NodeID]uint64{}, map[neon.NodeID]uint64{}
			b.fleet.bytes = map[neon.ShardID]uint64{}
			for n := range neon.NodeID(6) {
				b.fleet.disks[n+1] = 1 << 40
			}
		})
		b.lead()
		for n := range neon.NodeID(6) {
			b.createOn(n+1, 20)
		}
		b.fleet.set(func() {
			for sh := range b.log.State().ShardsFrom(neon.ShardID{}) {
				b.fleet.bytes[sh.ID] = 14 << 30
			}
		})
		b.awaitEven(19, 21, time.Minute)
		for _, other := range []uint64{300, 420} {
			b.fleet.set(func() { b.fleet.other[1] = other << 30 })
			for range 4 {
				elapse(3 * time.Minute)
				b.depose()
				b.lead()
			}
			elapse(10 * time.Minute)
			b.awaitIdle()
			b.check()
			before := b.log.State().Hash()
			elapse(30 * time.Minute)
			if b.log.State().Hash() != before {
				b.t.Error("it does not rest")
			}
			for n := range neon.NodeID(6) {
				b.t.Logf("node %d: %.1f %%, %d shards", n+1, b.diskOf(n+1), b.attachedOn(n+1))
				if b.diskOf(n+1) > 70 {
					b.t.Errorf("the disk of node %d is full to %.1f %%", n+1, b.diskOf(n+1))
				}
			}
		}
		b.fleet.set(func() { b.fleet.other[1] = 0 })
		b.awaitEven(19, 21, time.Hour)
	})
}

// TestADiskIsFullUntilItIsRelieved: between the two bounds it depends on what it was.
func TestADiskIsFullUntilItIsRelieved(t *testing.T) {
	d := Disks{Enabled: true, UsageMin: 50}.WithDefaults()
	for _, c := range []struct {
		was          bool
		used, wanted uint64
		want         bool
	}{
		{false, 79, 79, false}, {false, 80, 0, true}, {false, 55, 85, true}, {false, 45, 85, false},
		{true, 71, 0, true}, {true, 45, 71, true}, {true, 70, 70, false},
	} {
		l := scheduler.Load{
			DiskUsed: c.used, DiskTotal: 100, DiskWanted: c.wanted, DiskUsable: 100,
		}
		if d.full(c.was, l) != c.want {
			t.Errorf("%+v is %v", c, !c.want)
		}
	}
	if d.full(true, scheduler.Load{}) || (Disks{}).full(true, scheduler.Load{DiskTotal: 1}) {
		t.Error("what is not known, or not asked for, is full")
	}
	if low := (Disks{SourceMin: 50}).WithDefaults(); low.Target > 50 || low.DestinationMax > 50 {
		t.Errorf("the defaults are %+v", low)
	}
}
