package testcluster_test

import (
	"context"
	"errors"
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
// Then it changes, and has to come to rest again after each change.
func (e *episode) evenOut(ctx context.Context) (met bool) {
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
	if e.Failed() {
		return false
	}
	e.moves.demandNoReturn(true)
	defer e.moves.demandNoReturn(false)
	met = e.demandEven(ctx, fmt.Sprintf("%d of %d nodes have all", few, len(nodes)), 0)
	for i := 0; i < changesOfFleet && !e.Failed(); i++ {
		what, wait := e.unsettle(ctx)
		met = e.demandEven(ctx, what, wait) || met
	}
	e.reviveAll(ctx)
	e.takeDown(ctx, made)
	return met
}

// demandEven demands that a fleet comes to rest within its bounds, and stays there. For a time
// it may not count on a pageserver. What it has moved for an hour may not go back for that
// long, so that it may take the hour to come within the bounds by size. It reports whether
// the fleet was not even before.
func (e *episode) demandEven(ctx context.Context, what string, wait time.Duration) (met bool) {
	s, err := e.newestState(ctx)
	if err != nil || e.Failed() {
		return false
	}
	was, began := e.uneven(s), time.Now()
	before, _ := e.moves.counts()
	rested := e.awaitRest(ctx, quietTime+wait)
	took := time.Since(began)
	if s, err = e.newestState(ctx); err != nil {
		return false
	}
	if is := e.uneven(s); rested && is != nil && e.unevenNumber(s) == nil {
		<-time.After(homesick)
		rested = e.awaitRest(ctx, quietTime)
		if s, err = e.newestState(ctx); err != nil {
			return false
		}
	}
	after, _ := e.moves.counts()
	e.Logf("seed %d, round %d: %s, %d shards, %v; after %s, %s and %d moves %v", e.seed,
		e.tally.rounds, what, s.ShardCount(), was, took, time.Since(began), after-before,
		e.uneven(s))
	if is := e.uneven(s); !rested || is != nil || after-before > movesEach*s.ShardCount() {
		e.Errorf("seed %d, round %d: %s: a fleet with %d shards is not even after %s and %d moves: %v",
			e.seed, e.tally.rounds, what, s.ShardCount(), time.Since(began), after-before, is)
	}
	if e.Failed() {
		e.describeNodes(s)
	}
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

// awaitRest waits until nothing has moved for a while, and reports whether it stays so. What
// has moved may not go back for an hour. So a node that has too many bytes may give some away
// later.
func (e *episode) awaitRest(ctx context.Context, quiet time.Duration) bool {
	last, moved := uint64(0), time.Now()
	for began := time.Now(); time.Since(moved) < quiet; {
		if time.Since(began) > evenLimit+quiet {
			return false
		}
		<-time.After(5 * time.Second)
		if s, err := e.newestState(ctx); err == nil {
			if sum := movedSum(s); sum != last {
				last, moved = sum, time.Now()
			}
		}
	}
	was, err := e.newestState(ctx)
	<-time.After(stillTime)
	is, then := e.newestState(ctx)
	if err = errors.Join(err, then); err != nil {
		return false
	}
	if movedSum(is) != last && e.tooLarge(was) {
		return e.awaitRest(ctx, quiet) // what may go back by now was in the way
	}
	if movedSum(is) != last {
		e.Errorf("seed %d, round %d: at rest shards move again: %s", e.seed, e.tally.rounds,
			differences(was, is))
	}
	return true
}

// differences are the shards that have changed, in words.
func differences(was, is *fsm.State) (all []string) {
	for sh := range is.ShardsFrom(neon.ShardID{}) {
		if old, _ := was.Shard(sh.ID); old.Sequence != sh.Sequence ||
			old.Generation != sh.Generation {
			all = append(all, fmt.Sprintf("%+v is now %+v", old, sh))
		}
	}
	return all
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
	if err := e.unevenNumber(s); err != nil {
		return err
	}
	return e.unevenSize(s)
}

// unevenNumber is about numbers of shards.
func (e *episode) unevenNumber(s *fsm.State) error {
	nodes, zones := e.holdings(s)
	for n := range s.Nodes() {
		h, ok := nodes[n.ID]
		if !ok {
			continue
		}
		zone := zones[n.AZ]
		fair := zone.number * h.disk / zone.disk
		slack := max(0.05*fair, 1)
		if fair < 20 {
			slack = 2
		}
		if math.Abs(h.number-fair) > slack+1e-6 && math.Abs(h.number-fair) >= 1 {
			return fmt.Errorf("node %s has %.0f shards, its fair share is %.1f", n.ID, h.number,
				fair)
		}
	}
	return nil
}

// unevenSize is about bytes.
func (e *episode) unevenSize(s *fsm.State) error {
	nodes, zones := e.holdings(s)
	for n := range s.Nodes() {
		h, ok := nodes[n.ID]
		if !ok {
			continue
		}
		zone := zones[n.AZ]
		bytes := zone.bytes * h.disk / zone.disk
		if over := h.bytes - bytes; tooMuch(over, bytes) && over > 4./3*h.largest {
			return fmt.Errorf("node %s has %.1f GiB, its fair share is %.1f", n.ID, h.bytes/(1<<30),
				bytes/(1<<30))
		}
	}
	return nil
}

// tooLarge reports whether some node has more bytes than it should, if it can be helped.
func (e *episode) tooLarge(s *fsm.State) bool {
	nodes, zones := e.holdings(s)
	for n := range s.Nodes() {
		zone, h := zones[n.AZ], nodes[n.ID]
		fair := zone.bytes * h.disk / zone.disk
		if tooMuch(h.bytes-fair, fair) {
			return true
		}
	}
	return false
}

// tooMuch reports whether so many bytes over a fair share are moved away.
func tooMuch(over, fair float64) bool { return over > 0.15*fair && over > 1<<30 }

func (e *episode) describeNodes(s *fsm.State) {
	nodes, _ := e.holdings(s)
	for n := range s.Nodes() {
		e.Logf("node %s in %s %s has %+v", n.ID, n.AZ, n.Scheduling, nodes[n.ID])
	}
}
