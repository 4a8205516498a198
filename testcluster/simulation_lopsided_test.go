package testcluster_test

import (
	"context"
	"fmt"
	"math"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/testcluster"
)

const (
	// evenLimit bounds the time until a fleet is even, and quietTime is how long nothing has
	// moved when it is taken to be at rest. It has to stay so for stillTime.
	evenLimit = 30 * time.Minute
	quietTime = 3 * time.Minute
	stillTime = 6 * time.Minute

	// movesEach bounds the moves that it takes, for each shard.
	movesEach = 2
)

// evenOut fills few pageservers of unequal sizes with tenants of unequal sizes, and then lets
// the others have some. The fleet has to come to rest within the bounds of docs/balance.md.
func (e *episode) evenOut(ctx context.Context) bool {
	nodes := e.running()
	if len(nodes) < 3 {
		return false
	}
	few := 1 + e.rng.IntN(2)
	for _, n := range nodes[few:] {
		e.schedule(ctx, n.ID(), neon.SchedulingPause)
	}
	made := e.fillUp(ctx)
	for _, n := range nodes[few:] {
		e.schedule(ctx, n.ID(), neon.SchedulingActive)
	}
	s, err := e.newestState(ctx)
	if err != nil || e.Failed() {
		return false
	}
	e.moves.demandNoReturn(true)
	defer e.moves.demandNoReturn(false)
	was := e.uneven(s)
	before, _ := e.moves.counts()
	began := time.Now()
	rested := e.awaitRest(ctx)
	if s, err = e.newestState(ctx); err != nil {
		return false
	}
	after, _ := e.moves.counts()
	e.Logf("seed %d, round %d: %d shards on %d of %d nodes, %v; after %s and %d moves %v", e.seed,
		e.tally.rounds, s.ShardCount(), few, len(nodes), was, time.Since(began), after-before,
		e.uneven(s))
	if is := e.uneven(s); !rested || is != nil || after-before > movesEach*s.ShardCount() {
		e.Errorf("seed %d, round %d: a fleet with %d shards is not even after %s and %d moves: %v",
			e.seed, e.tally.rounds, s.ShardCount(), time.Since(began), after-before, is)
	}
	if e.Failed() {
		e.describeNodes(s)
	}
	e.takeDown(ctx, made)
	return was != nil
}

func (e *episode) schedule(ctx context.Context, id neon.NodeID, to neon.NodeScheduling) {
	e.persist(ctx, "schedule a pageserver", func(ctx context.Context, c *testcluster.Client) error {
		return c.Nodes().Configure(ctx, neon.NodeConfigure{ID: id, Scheduling: &to})
	})
}

// fillUp makes tenants of unequal sizes.
func (e *episode) fillUp(ctx context.Context) (made []neon.TenantID) {
	for range 15 + e.rng.IntN(30) {
		id := idOf(e.workers[0].number())
		p := neon.Attached(e.rng.IntN(2))
		req := neon.TenantCreateRequest{Tenant: neon.Unsharded(id), Placement: &p}
		if e.rng.IntN(4) == 0 {
			req.ShardParameters = &neon.ShardParameters{
				Count: 2, StripeSize: neon.DefaultStripeSize,
			}
		}
		if e.request(ctx, func(ctx context.Context, c *testcluster.Client) error {
			_, err := c.Tenants().Create(ctx, req)
			return err
		}) {
			made = append(made, id)
			e.Fleet().Store().SetResidentSize(id, uint64(math.Exp2(5*e.rng.Float64())*(1<<30)))
		}
	}
	return made
}

// takeDown deletes tenants, with pauses: the pace of controllers is not that of clients.
func (e *episode) takeDown(ctx context.Context, made []neon.TenantID) {
	for _, id := range made {
		e.Oracle().Deleting(id)
		e.demandDeletion(ctx, id, obstacle{what: "after a strain"})
		e.Fleet().Store().SetResidentSize(id, 0)
		<-time.After(100 * time.Millisecond)
	}
}

// awaitRest waits until nothing has moved for a while, and reports whether it stays so.
func (e *episode) awaitRest(ctx context.Context) bool {
	last, moved := uint64(0), time.Now()
	for began := time.Now(); time.Since(moved) < quietTime; {
		if time.Since(began) > evenLimit {
			return false
		}
		<-time.After(5 * time.Second)
		if s, err := e.newestState(ctx); err == nil {
			if sum := movedSum(s); sum != last {
				last, moved = sum, time.Now()
			}
		}
	}
	<-time.After(stillTime)
	s, err := e.newestState(ctx)
	if err == nil && movedSum(s) != last {
		e.Errorf("seed %d, round %d: at rest shards move again", e.seed, e.tally.rounds)
	}
	return err == nil
}

// movedSum changes with every move of a shard or of a secondary.
func movedSum(s *fsm.State) (sum uint64) {
	for sh := range s.ShardsFrom(neon.ShardID{}) {
		sum += uint64(sh.Generation) + sh.Sequence
	}
	return sum
}

// has is what is attached on a pageserver, or in a zone.
type has struct {
	disk, number, bytes, largest float64
}

func (h has) add(o has) has {
	return has{h.disk + o.disk, h.number + o.number, h.bytes + o.bytes, max(h.largest, o.largest)}
}

// holdings are what is attached on each schedulable pageserver, and in each zone.
func (e *episode) holdings(s *fsm.State) (map[neon.NodeID]has, map[neon.AZ]has) {
	nodes, zones := make(map[neon.NodeID]has), make(map[neon.AZ]has)
	for n := range s.Nodes() {
		if !n.Schedulable() {
			continue
		}
		h := has{disk: float64(e.diskOf(n.ID))}
		for sh := range s.AttachedOn(n.ID, neon.ShardID{}) {
			size := float64(e.Fleet().Store().ResidentSize(sh.ID.Tenant))
			h = h.add(has{number: 1, bytes: size, largest: size})
		}
		nodes[n.ID], zones[n.AZ] = h, zones[n.AZ].add(h)
	}
	return nodes, zones
}

func (e *episode) diskOf(id neon.NodeID) uint64 {
	if d := e.disks[id]; d > 0 {
		return d
	}
	return 1 << 40
}

// uneven is how a fleet is out of its bounds, or nil. What a zone has is the home of its
// tenants, so that only the pageservers of one zone are compared.
func (e *episode) uneven(s *fsm.State) error {
	nodes, zones := e.holdings(s)
	for n := range s.Nodes() {
		h, ok := nodes[n.ID]
		if !ok {
			continue
		}
		zone := zones[n.AZ]
		fair, bytes := zone.number*h.disk/zone.disk, zone.bytes*h.disk/zone.disk
		slack := max(0.05*fair, 1)
		if fair < 20 {
			slack = 2
		}
		if math.Abs(h.number-fair) > slack+1e-6 && math.Abs(h.number-fair) >= 1 {
			return fmt.Errorf("node %s has %.0f shards, its fair share is %.1f", n.ID, h.number,
				fair)
		}
		if over := h.bytes - bytes; over > 0.15*bytes && over > 1<<30 && over > 4./3*h.largest {
			return fmt.Errorf("node %s has %.1f GiB, its fair share is %.1f", n.ID, h.bytes/(1<<30),
				bytes/(1<<30))
		}
	}
	return nil
}

func (e *episode) describeNodes(s *fsm.State) {
	nodes, _ := e.holdings(s)
	for n := range s.Nodes() {
		e.Logf("node %s in %s %s has %+v", n.ID, n.AZ, n.Scheduling, nodes[n.ID])
	}
}
