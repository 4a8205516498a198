package testcluster_test

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

// pace says whether a move warms its destination first.
type pace bool

const (
	gracefully  pace = true
	immediately pace = false
)

// move asks for a shard to be moved. A move that is under way and takes its time
// is answered by an error too; the intent is there nevertheless.
func (s *script) move(shard neon.ShardID, to neon.NodeID, p pace) {
	s.Helper()
	req := neon.MigrateRequest{
		Node: to, Config: neon.MigrationConfig{OverrideScheduler: true, Prewarm: bool(p)},
	}
	s.do("migrate", func(ctx context.Context, c *testcluster.Client) error {
		err := c.Shards().Migrate(ctx, shard, req)
		switch client.StatusOf(err) {
		case http.StatusInternalServerError, http.StatusGatewayTimeout, http.StatusRequestTimeout:
			return nil
		}
		return err
	})
}

// pin makes a tenant one that is not moved for its own good, as an operator must
// who wants a shard where it would not be placed.
func (s *script) pin(n int) {
	s.Helper()
	s.do("pin a tenant", func(ctx context.Context, c *testcluster.Client) error {
		return c.Tenants().SetPolicy(ctx, idOf(n),
			neon.PolicyRequest{Scheduling: new(neon.ShardEssential)})
	})
}

// arrives waits until a shard is attached on a node, active and alone.
func (s *script) arrives(shard neon.ShardID, to neon.NodeID) {
	s.Helper()
	s.eventually("wait for a move", func(context.Context) error {
		if at, ok := s.Fleet().Node(to).Location(shard); !ok || at.Mode != neon.AttachedSingle {
			return fmt.Errorf("shard %s is %q on node %s", shard, at.Mode, to)
		}
		return nil
	})
}

func nodeStories() []scenario {
	zones := testcluster.Builder{Pageservers: 4, Zones: 2}
	slow := zones
	slow.Behaviour = simpageserver.Behaviour{
		Activation: 200 * time.Millisecond, SlotBusy: 30 * time.Millisecond, ReplayRate: 1 << 20,
	}
	slow.Maintenance = time.Second
	return []scenario{
		{name: "evacuate", builder: zones, run: evacuateStory},
		{name: "evacuate slowly", builder: slow, run: evacuateStory},
		{name: "live migrate", builder: zones, run: migrateStory},
		{name: "live migrate slowly", builder: slow, run: migrateStory},
		{name: "migrate gracefully", builder: slow, run: gracefulStory},
		{name: "re-attach after a restart", builder: slow, run: reattachStory},
		{name: "back from the dead", builder: zones, run: backStory},
		{name: "empty disk", builder: zones, run: emptyDiskStory},
		{name: "all pageservers gone at once", builder: zones, run: allGoneStory},
		{name: "one of all stays dead", builder: zones, run: staysDeadStory},
	}
}

// populate makes a few tenants of which the first has a timeline.
func (s *script) populate() {
	s.Helper()
	s.create(0, 4, neon.Attached(1))
	s.create(1, 0, neon.Attached(0))
	s.create(2, 2, neon.Attached(1))
	s.timeline(0, 0, -1, shardOf(0, 0, 4), shardOf(0, 1, 4), shardOf(0, 2, 4), shardOf(0, 3, 4))
	s.timeline(1, 1, -1, shardOf(1, 0, 0))
	s.rest()
}

// deserted demands that nothing is meant to be attached on a node.
func (s *script) deserted(id neon.NodeID) {
	s.Helper()
	s.eventually("nothing is left on the dead pageserver", func(ctx context.Context) error {
		want, err := testcluster.Shards(ctx, s.Client())
		if err != nil {
			return err
		}
		for shard, node := range want {
			if node == id {
				return fmt.Errorf("shard %s is still meant for node %s", shard, id)
			}
		}
		return nil
	})
}

func evacuateStory(s *script) {
	s.populate()
	s.step("a pageserver dies")
	s.KillPageserver(1)
	s.step("the verdict")
	s.verdicts()
	s.step("the shards move")
	s.deserted(1)
	s.step("and arrive")
	s.rest()
}

func migrateStory(s *script) {
	s.populate()
	s.pin(0)
	shard := shardOf(0, 1, 4)
	from := s.home(shard)
	to := from%4 + 1
	s.step("go")
	s.move(shard, to, immediately)
	s.arrives(shard, to)
	s.step("and back")
	s.move(shard, from, immediately)
	s.arrives(shard, from)
	s.step("and go again, with the destination dying")
	s.move(shard, to, gracefully)
	s.rest()
	s.step("at the end")
	s.move(shard, to, immediately)
	s.rest()
	if at := s.home(shard); at != to {
		s.Errorf("shard %s is on node %s, not %s", shard, at, to)
	}
}

func gracefulStory(s *script) {
	s.populate()
	s.pin(2)
	shard := shardOf(2, 1, 2)
	from := s.home(shard)
	to := from%4 + 1
	s.step("go")
	s.move(shard, to, gracefully)
	s.step("on the way")
	s.arrives(shard, to)
	s.step("and back at once")
	s.move(shard, from, gracefully)
	s.step("arriving")
	s.arrives(shard, from)
}

func reattachStory(s *script) {
	s.populate()
	for i := range 2 {
		s.step(fmt.Sprintf("restart %d", i))
		s.Fleet().Node(neon.NodeID(1)).Kill()
		s.pageserver(1)
		s.step(fmt.Sprintf("serving %d", i))
		s.verdicts()
		s.rest()
	}
	s.step("restart a second time at once")
	n := s.Fleet().Node(2)
	n.Kill()
	s.pageserver(2)
	s.pass(20 * time.Millisecond)
	n.Kill()
	s.pageserver(2)
	s.step("ready")
	if err := n.WaitReady(s.within()); err != nil {
		s.Fatal(err)
	}
	s.verdicts()
}

func backStory(s *script) {
	s.populate()
	s.step("dies")
	s.KillPageserver(2)
	s.verdicts()
	s.step("evacuated")
	s.deserted(2)
	s.rest()
	s.step("comes back")
	s.pageserver(2)
	s.step("is seen")
	s.verdicts()
	s.step("is used")
	s.create(3, 4, neon.Attached(1))
}

func emptyDiskStory(s *script) {
	s.populate()
	s.step("loses its disk")
	s.Fleet().Node(3).WipeDisk()
	s.step("starts")
	s.pageserver(3)
	s.step("is filled")
	s.verdicts()
	s.rest()
}

// staysDeadStory lets the verdict on a pageserver come when no other could take its
// shards: they have to move when others can, under any leader.
func staysDeadStory(s *script) {
	s.populate()
	s.step("all die")
	for _, n := range s.pageservers() {
		n.Kill()
	}
	s.step("the verdicts")
	s.verdicts()
	s.step("all but one come back")
	for _, n := range s.pageservers()[1:] {
		s.pageserver(n.ID())
	}
	s.verdicts()
	s.step("the shards move")
	s.deserted(1)
	s.rest()
}

func allGoneStory(s *script) {
	s.populate()
	shard := shardOf(0, 0, 4)
	s.step("all die")
	for _, n := range s.pageservers() {
		n.Kill()
	}
	s.step("the verdicts")
	s.verdicts()
	s.step("a long time")
	s.pass(time.Minute)
	want, err := testcluster.Shards(s.within(), s.Client())
	if err != nil {
		s.Fatal(err)
	}
	for id, node := range want {
		at, there := s.Fleet().Node(node).Location(id)
		if node == 0 || !there || !at.Mode.Attached() {
			s.Errorf("shard %s was given up: it is meant for node %q, which has %+v", id, node, at)
		}
	}
	before, _ := s.Oracle().Shard(shard)
	s.step("all come back")
	for _, n := range s.pageservers() {
		s.pageserver(n.ID())
	}
	s.step("serving")
	s.verdicts()
	s.rest()
	if after, _ := s.Oracle().Shard(shard); after.Committed <= before.Committed {
		s.Errorf("generation %d after the restart of everything, %d before", after.Committed,
			before.Committed)
	}
}
