package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

// stage is how long a pageserver takes for each of the five stages of a split.
const stage = 100 * time.Millisecond

func splitStories() []scenario {
	zones := testcluster.Builder{
		Pageservers: 4, Zones: 2, Behaviour: simpageserver.Behaviour{SplitStage: stage},
	}
	large := zones
	large.Splits = testcluster.Splits{
		Threshold: 1000, MaxShards: 8, InitialThreshold: 500, InitialShards: 2,
		Interval: 500 * time.Millisecond,
	}
	busy := zones
	busy.Maintenance = 200 * time.Millisecond
	return []scenario{
		{name: "split", builder: zones, run: splitStory},
		{name: "split and deleted", builder: busy, run: splitDeletedStory},
		{name: "split aborted", builder: zones, run: splitAbortStory},
		{name: "split with the leader killed in each stage", builder: zones, run: splitLeaderStory},
		{
			name: "split with a pageserver killed in each stage", builder: zones,
			run: splitPageserverStory,
		},
		{name: "split with a pageserver gone", builder: zones, run: splitGoneStory},
		{name: "split with lost and late replies", builder: zones, run: splitReplyStory},
		{name: "autosplit", builder: large, run: autosplitStory},
	}
}

// split asks until the tenant has so many shards.
func (s *script) split(n, count int) {
	s.Helper()
	s.do("split a tenant", func(
		ctx context.Context, c *testcluster.Client,
	) error {
		return trySplit(ctx, c, n, count)
	})
}

func trySplit(ctx context.Context, c *testcluster.Client, n, count int) error {
	resp, err := c.Tenants().Split(ctx, idOf(n), neon.ShardSplitRequest{Count: uint8(count)})
	if err == nil && len(resp.Shards) != count {
		return fmt.Errorf("split into %d shards gave %v", count, resp.Shards)
	}
	return err
}

// splitMeanwhile begins a split and returns what waits for its end.
func (s *script) splitMeanwhile(n, count int) (wait func()) {
	var wg sync.WaitGroup
	ctx := s.within()
	wg.Go(func() { _ = trySplit(ctx, s.Client(), n, count) }) // its outcome is looked at afterwards
	return wg.Wait
}

// noSplits waits until no split of a tenant is under way.
func (s *script) noSplits(n int) {
	s.Helper()
	s.eventually("the tenant is not being split", func(ctx context.Context) error {
		d, err := s.Client().Tenants().Describe(ctx, idOf(n))
		for _, sh := range d.Shards {
			if sh.Splitting {
				return fmt.Errorf("shard %s is being split", sh.Shard)
			}
		}
		return err
	})
}

func shardsOf(n, count int) (ids []neon.ShardID) {
	return neon.ShardIDs(idOf(n), neon.ShardCount(count))
}

func (s *script) stages(b simpageserver.Behaviour) {
	b.SplitStage = stage
	for _, n := range s.pageservers() {
		n.SetBehaviour(b)
	}
}

// neighbours makes tenants whose ids stand before and after another's.
func (s *script) neighbours(before, after int) {
	s.Helper()
	s.create(before, 2, neon.Attached(1))
	s.create(after, 0, neon.Attached(0))
	s.timeline(before, before, -1, shardsOf(before, 2)...)
	s.timeline(after, after, -1, shardsOf(after, 0)...)
}

// untouched demands that a shard is where it was, in the generation it had.
func (s *script) untouched(shards ...neon.ShardID) (check func()) {
	s.Helper()
	s.rest()
	before := make(map[neon.ShardID]neon.Generation)
	for _, id := range shards {
		f, _ := s.Oracle().Shard(id)
		before[id] = f.Committed
	}
	return func() {
		s.Helper()
		for id, g := range before {
			if f, _ := s.Oracle().Shard(id); f.Committed != g || len(f.Holders) != 1 {
				s.Errorf("neighbour %s had generation %d, now %+v", id, g, f)
			}
		}
	}
}

func splitStory(s *script) {
	s.neighbours(0, 2)
	s.create(1, 0, neon.Attached(1))
	s.timeline(1, 1, -1, shardOf(1, 0, 0))
	check := s.untouched(append(shardsOf(0, 2), shardsOf(2, 0)...)...)
	s.step("one into four")
	s.split(1, 4)
	s.step("the same again")
	s.split(1, 4)
	s.step("timeline")
	s.timeline(1, 10, 1, shardsOf(1, 4)...)
	s.step("four into eight")
	s.split(1, 8)
	s.step("timeline of eight")
	s.timeline(1, 11, 10, shardsOf(1, 8)...)
	s.step("too few")
	s.eventually("fewer shards are refused", func(ctx context.Context) error {
		if err := trySplit(ctx, s.Client(), 1,
			4); client.StatusOf(err) != http.StatusBadRequest {
			return errors.Join(errors.New("eight shards were split into four"), err)
		}
		return nil
	})
	s.rest()
	check()
}

// splitDeletedStory deletes tenants that were split, or nearly, with all that the
// shards that they once had have written.
func splitDeletedStory(s *script) {
	s.neighbours(0, 2)
	stored := func(n int) {
		s.Helper()
		s.eventually("the shards have written something", func(context.Context) error {
			if keys := s.Fleet().Store().Keys(idOf(n)); !strings.Contains(strings.Join(keys, " "),
				"heatmap") {
				return fmt.Errorf("there are only %v", keys)
			}
			return nil
		})
	}
	gone := func(n int) {
		s.Helper()
		s.deleteTenant(n)
		s.rest()
		s.nothingStored()
	}
	s.step("split twice")
	s.create(3, 0, neon.Attached(1))
	s.timeline(3, 30, -1, shardOf(3, 0, 0))
	s.split(3, 2)
	s.timeline(3, 31, 30, shardsOf(3, 2)...)
	stored(3)
	s.split(3, 8)
	s.timeline(3, 32, 31, shardsOf(3, 8)...)
	s.step("and deleted")
	gone(3)
	s.step("split in vain")
	s.create(4, 2, neon.Attached(1))
	s.timeline(4, 40, -1, shardsOf(4, 2)...)
	stored(4)
	s.stages(simpageserver.Behaviour{SplitFailsAt: simpageserver.SplitHalf})
	s.eventually("the split fails", func(ctx context.Context) error {
		err := trySplit(ctx, s.Client(), 4, 8)
		if client.StatusOf(err) == http.StatusConflict {
			return nil
		}
		return fmt.Errorf("split: %w", err)
	})
	s.noSplits(4)
	s.step("and deleted as well")
	gone(4)
	s.stages(simpageserver.Behaviour{})
}

func splitAbortStory(s *script) {
	s.neighbours(0, 2)
	s.create(1, 2, neon.Attached(1))
	s.timeline(1, 1, -1, shardsOf(1, 2)...)
	check := s.untouched(append(shardsOf(0, 2), shardsOf(2, 0)...)...)
	for at := simpageserver.SplitIndexed; at < simpageserver.SplitFinished; at++ {
		s.step(fmt.Sprintf("fails after stage %d", at))
		for _, n := range s.pageservers() {
			n.SetBehaviour(simpageserver.Behaviour{SplitStage: stage})
		}
		one := s.home(shardOf(1, int(at)%2, 2)) // the other shard may be split well
		s.Fleet().Node(one).SetBehaviour(simpageserver.Behaviour{
			SplitStage: stage, SplitFailsAt: at,
		})
		s.eventually("the split fails", func(ctx context.Context) error {
			err := trySplit(ctx, s.Client(), 1, 4)
			if err == nil {
				s.Fatal("a split succeeded although a pageserver fails")
			}
			if client.StatusOf(err) != http.StatusConflict {
				return err
			}
			return nil
		})
		s.noSplits(1)
		s.rest()
		s.timeline(1, 10+int(at), 1, shardsOf(1, 2)...)
	}
	check()
	s.step("and then works")
	s.stages(simpageserver.Behaviour{})
	s.split(1, 4)
	s.rest()
	check()
}

func splitLeaderStory(s *script) {
	s.neighbours(0, 2)
	check := s.untouched(append(shardsOf(0, 2), shardsOf(2, 0)...)...)
	for i := range 8 {
		n := 10 + i
		s.create(n, 2, neon.Attached(1))
		s.timeline(n, n, -1, shardsOf(n, 2)...)
		s.rest()
		s.step(fmt.Sprintf("split %d", i))
		s.revive()
		wait := s.splitMeanwhile(n, 4)
		s.pass(time.Duration(i) * 90 * time.Millisecond)
		s.killLeader()
		wait()
		s.revive()
		s.split(n, 4)
	}
	s.rest()
	check()
}

func splitPageserverStory(s *script) {
	s.neighbours(0, 2)
	for i := range 8 {
		n := 10 + i
		s.create(n, 2, neon.Attached(1))
		s.timeline(n, n, -1, shardsOf(n, 2)...)
		s.rest()
		node := s.home(shardOf(n, 1, 2))
		s.step(fmt.Sprintf("split %d", i))
		wait := s.splitMeanwhile(n, 4)
		s.pass(time.Duration(i) * 90 * time.Millisecond)
		s.KillPageserver(node)
		s.pass(10 * time.Millisecond)
		s.pageserver(node)
		wait()
		s.noSplits(n)
		s.verdicts()
		s.rest()
		s.split(n, 4)
		s.timeline(n, 30+i, n, shardsOf(n, 4)...)
	}
	s.rest()
}

// splitGoneStory loses a pageserver for good in the middle of a split.
func splitGoneStory(s *script) {
	s.neighbours(0, 2)
	s.create(1, 2, neon.Attached(1))
	s.timeline(1, 1, -1, shardsOf(1, 2)...)
	s.rest()
	node := s.home(shardOf(1, 0, 2))
	s.step("gone")
	wait := s.splitMeanwhile(1, 8)
	s.pass(3 * stage)
	s.KillPageserver(node)
	s.step("the verdict")
	s.verdicts()
	wait()
	s.step("without it")
	s.noSplits(1)
	s.split(1, 8)
	s.timeline(1, 10, 1, shardsOf(1, 8)...)
	s.step("back")
	s.pageserver(node)
	s.verdicts()
	s.rest()
}

func splitReplyStory(s *script) {
	s.neighbours(0, 2)
	rules := map[string]simpageserver.Fault{
		"lost":     {Kind: simpageserver.FaultLoseReply},
		"late":     {Kind: simpageserver.FaultDelay, Delay: 2 * time.Second},
		"twice":    {Kind: simpageserver.FaultDuplicate, Delay: 2 * stage},
		"garbled":  {Kind: simpageserver.FaultMalformed},
		"unwanted": {Kind: simpageserver.FaultRefuse, Count: 1},
	}
	for i, name := range []string{"lost", "late", "twice", "garbled", "unwanted"} {
		n := 10 + i
		s.create(n, 2, neon.Attached(1))
		s.timeline(n, n, -1, shardsOf(n, 2)...)
		s.rest()
		s.step(name)
		rule := rules[name]
		rule.Route = simpageserver.RouteShardSplit
		for _, node := range s.pageservers() {
			node.SetFaults(rule)
		}
		s.split(n, 4)
		s.pass(3 * time.Second)
		for _, node := range s.pageservers() {
			node.SetFaults()
		}
	}
	s.rest()
}

func autosplitStory(s *script) {
	for n := range 8 {
		s.create(n, 0, neon.Attached(1))
		s.timeline(n, n, -1, shardOf(n, 0, 0))
	}
	s.rest()
	size := func(n int, bytes uint64) { s.Fleet().Store().SetLogicalSize(idOf(n), bytes) }
	reach := func(n, count int) {
		s.eventually(fmt.Sprintf("tenant %d has %d shards", n, count),
			func(ctx context.Context) error {
				d, err := s.Client().Tenants().Describe(ctx, idOf(n))
				if err == nil && len(d.Shards) != count {
					return fmt.Errorf("it has %d", len(d.Shards))
				}
				return err
			})
		if d := s.Ledger(); d != nil {
			s.split(n, count) // so that the ledger knows
		}
	}
	s.step("one that fails, and others")
	bad := s.home(shardOf(0, 0, 0))
	s.Fleet().Node(bad).SetFaults(simpageserver.Fault{
		Kind: simpageserver.FaultRefuse, Route: simpageserver.RouteShardSplit, Tenant: idOf(0),
		Status: http.StatusInternalServerError,
	})
	size(0, 1<<40)
	size(1, 501)
	size(2, 3999)
	size(3, 1<<30)
	size(4, 400)
	size(5, 600)
	size(6, 700)
	s.policy(7, neon.PolicyRequest{Scheduling: ptr(neon.ShardPause)})
	size(7, 1<<30)
	reach(1, 2)
	reach(2, 4)
	reach(3, 8)
	reach(5, 2)
	reach(6, 2)
	s.step("it grows")
	size(1, 5000)
	reach(1, 8)
	s.step("and the first one, at last")
	s.Fleet().Node(bad).SetFaults()
	reach(0, 8)
	s.rest()
}
