package scheduler

import (
	"testing"

	"pgregory.net/rapid"

	"quorate/api/neon"
	"quorate/fsm"
)

// disks are what the pageservers of a world tell of their disks.
type disks struct {
	*world
	total, other map[neon.NodeID]uint64 // other: what is no shard's
	sizes        map[neon.ShardID]uint64
	full         map[neon.NodeID]bool
}

// relief is a balancing that relieves disks as the tests want it: at 80 %, down to 70 %.
func (d *disks) relief() Balancing {
	o := unlimited(d.sizes)
	o.Disks = &Disks{Target: 0.7, DestinationMax: 0.7, PerDestination: 8}
	return o
}

// tell is a heartbeat of every node.
func (d *disks) tell() {
	for n, total := range d.total {
		l := Load{DiskTotal: total, DiskUsable: total, DiskUsed: d.other[n]}
		for sh := range d.state.NodeShards(n) {
			if sh.Intends(n) {
				l.DiskWanted += d.sizes[sh.ID]
			}
		}
		l.DiskUsed += l.DiskWanted
		if u := l.DiskUtilisation(); u >= 0.8 {
			d.full[n] = true
		} else if u <= 0.7 {
			d.full[n] = false
		}
		l.Full = d.full[n]
		d.loads[n] = l
	}
}

func newDisks(t failer) *disks {
	d := &disks{
		world: newWorld(t), total: map[neon.NodeID]uint64{}, other: map[neon.NodeID]uint64{},
		sizes: map[neon.ShardID]uint64{}, full: map[neon.NodeID]bool{},
	}
	d.world.tell = d.tell
	return d
}

// six are six nodes in three zones, or none, with 20 shards each of a size, of which the
// disk of the first one is too full of something else.
func six(t failer, zones string, policy neon.Placement, size uint64) *disks {
	d := newDisks(t)
	for id := range neon.NodeID(6) {
		d.addNode(id+1, zones[id%3:][:1])
		d.total[id+1] = 1 << 40
	}
	for n := range 120 {
		id := neon.NodeID(n%6 + 1)
		node, _ := d.state.Node(id)
		where := []neon.NodeID{id}
		if policy.WantedSecondaries() > 0 {
			where = append(where, id%6+1)
		}
		d.sizes[d.put(n+1, node.AZ.String(), policy, where...)] = size
	}
	d.other[1] = 200 << 30
	return d
}

// A pageserver whose disk is full of something else gives up secondaries, as many as
// necessary, and attached shards when it has none.
func TestAFullDiskIsRelieved(t *testing.T) {
	for name, c := range map[string]struct {
		zones  string
		policy neon.Placement
		size   uint64
		moves  int
	}{
		"secondaries": {"abc", neon.Attached(1), 16 << 30, 8},
		"attached":    {"   ", neon.Attached(0), 32 << 30, 4},
	} {
		t.Run(name, func(t *testing.T) {
			d := six(t, c.zones, c.policy, c.size)
			if moves := d.even(d.relief(), 40); moves != c.moves {
				t.Errorf("it took %d moves", moves)
			}
			for n := range d.total {
				if u := d.loads[n].DiskUtilisation(); u > 0.7 {
					t.Errorf("the disk of node %d is full to %v", n, u)
				}
				has := d.state.Counts(n).Attached
				if has != 20 && c.policy.WantedSecondaries() > 0 {
					t.Errorf("node %d has %d shards", n, has)
				}
			}
		})
	}
}

// What relieves a disk keeps to its limits.
func TestRelievingDisksIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*disks, *Balancing)
		want   int
	}{
		"not asked for":    {func(_ *disks, o *Balancing) { o.Disks = nil }, 0},
		"large shards":     {func(_ *disks, o *Balancing) { o.Disks.Largest = 1 << 30 }, 0},
		"unknown sizes":    {func(_ *disks, o *Balancing) { o.Size = nil }, 0},
		"one a node":       {func(_ *disks, o *Balancing) { o.Disks.PerDestination = 1 }, 3},
		"moves":            {func(_ *disks, o *Balancing) { o.Moves = 3 }, 3},
		"moves of a node":  {func(_ *disks, o *Balancing) { o.PerNode = 2 }, 2},
		"nobody has room":  {func(_ *disks, o *Balancing) { o.Disks.DestinationMax = 0.6 }, 0},
		"it is not so bad": {func(d *disks, _ *Balancing) { d.other[1] = 150 << 30 }, 0},
		"others are on their way": {func(d *disks, o *Balancing) {
			for sh := range d.state.SecondaryOn(2, neon.ShardID{}) {
				o.Disks.Given = append(o.Disks.Given, Given{sh.ID, 9, 2})
			}
		}, 8},
		"moved lately": {func(d *disks, o *Balancing) {
			o.Left = make(map[neon.ShardID][]neon.NodeID)
			for sh := range d.state.ShardsFrom(neon.ShardID{}) {
				o.Left[sh.ID] = []neon.NodeID{3}
			}
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			d := six(t, "abc", neon.Attached(1), 16<<30)
			o := d.relief()
			c.change(d, &o)
			intents := d.scheduler().Balance(o)
			if len(intents) != c.want {
				t.Errorf("%d moves: %+v", len(intents), intents)
			}
			for _, in := range intents {
				if name == "others are on their way" && in.Secondary[0] == 2 {
					t.Errorf("%+v goes where there is no room", in)
				}
			}
		})
	}
}

// Whatever is on the disks: it comes to rest, with all else that is moved, and no move that
// makes loads even fills a disk.
func TestRelievingDisksComesToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDisks(t)
		zones := rapid.IntRange(1, 3).Draw(t, "zones")
		nodes := rapid.IntRange(2, 7).Draw(t, "nodes")
		for id := range neon.NodeID(nodes) {
			d.addNode(id+1, string(rune('a'+int(id)%zones)))
			d.total[id+1] = rapid.Uint64Range(1, 4).Draw(t, "disk") << 30
			d.other[id+1] = rapid.Uint64Range(0, d.total[id+1]).Draw(t, "other")
		}
		for n := range rapid.IntRange(1, 60).Draw(t, "tenants") {
			policy := rapid.SampledFrom([]neon.Placement{
				neon.Attached(0), neon.Attached(1),
			}).Draw(t, "policy")
			count := rapid.SampledFrom([]neon.ShardCount{0, 0, 0, 4}).Draw(t, "count")
			_ = d.create(tenantID(n+1), count, policy)
			for _, sh := range d.shards(tenantID(n + 1)) {
				d.sizes[sh.ID] = rapid.Uint64Range(0, 1<<27).Draw(t, "size")
			}
		}
		if rapid.Bool().Draw(t, "paused") {
			d.apply(fsm.SetNodeScheduling{Node: 1, Scheduling: neon.SchedulingPause})
		}
		limit := 10 * d.locations()
		for steps := 0; ; {
			d.tell()
			before := make(map[neon.NodeID]bool)
			for n, l := range d.loads {
				before[n] = l.Full
			}
			moves := d.even(d.relief(), limit)
			d.tell()
			for n, l := range d.loads {
				if l.Full && !before[n] {
					t.Fatalf("the disk of node %d was filled: %+v", n, l)
				}
			}
			moves += d.optimise(limit)
			if moves == 0 {
				return
			}
			if steps += moves; steps > limit {
				t.Fatalf("no rest after %d moves", steps)
			}
		}
	})
}
