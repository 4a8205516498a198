package testcluster_test

import (
	"context"
	"time"

	"quorate/api/neon"
	"quorate/testcluster"
)

func leaderStories() []scenario {
	zones := testcluster.Builder{Pageservers: 4, Zones: 2}
	return []scenario{
		{name: "step down", builder: zones, run: stepDownStory, atLeast: 3},
		{name: "leader and pageserver killed together", builder: zones, run: bothDieStory},
		{
			name: "controller restarted while a pageserver is dead", builder: zones,
			run: restartedStory,
		},
		{
			name: "leader's disk hangs", builder: zones, run: hungDiskStory,
			alone: "there is no majority for a time after the death of a second leader",
		},
		{name: "leader frozen", builder: zones, run: frozenStory, atLeast: 3},
		{name: "leader cut off", builder: zones, run: cutOffStory, atLeast: 3},
	}
}

func stepDownStory(s *script) {
	s.populate()
	for n := range 3 {
		s.step("hand over")
		s.revive() // handing over needs a healthy replica
		// A successor that has just started may not be able to take over yet; then
		// nothing happened.
		s.eventually("step down", func(ctx context.Context) error {
			_, err := s.StepDown(ctx)
			return err
		})
		s.create(10+n, 2, neon.Attached(0))
		s.step("under a successor")
		s.do("put", func(ctx context.Context, c *testcluster.Client) error {
			return c.Tenants().PutConfig(ctx, idOf(10+n), conf(`{"gc_horizon":5}`))
		})
	}
}

func bothDieStory(s *script) {
	s.populate()
	s.step("both die")
	s.KillPageserver(1)
	s.revive()
	s.killLeader()
	s.step("the verdict")
	s.verdicts()
	s.step("the shards move")
	s.deserted(1)
	s.step("the next two")
	s.KillPageserver(2)
	s.revive()
	s.killLeader()
	s.verdicts()
	s.step("again")
	s.deserted(2)
	s.rest()
}

func restartedStory(s *script) {
	s.populate()
	s.revive()
	for i := range s.Controllers() {
		if err := s.Kill(i); err != nil {
			s.Fatal(err)
		}
	}
	s.KillPageserver(3)
	s.pass(5 * time.Second)
	for i := range s.Controllers() {
		if err := s.Restart(s.within(), i); err != nil {
			s.Fatal(err)
		}
	}
	s.step("the verdict")
	s.verdicts()
	s.step("the shards move")
	s.deserted(3)
	s.step("and arrive")
	s.rest()
}

// hungDiskStory hangs the leader's disk: with three the others take over, and a
// single one serves again once its disk does.
func hungDiskStory(s *script) {
	s.populate()
	s.step("hangs")
	s.revive()
	leader, err := s.WaitLeader(s.within())
	if err != nil {
		s.Fatal(err)
	}
	if err := s.HangDisk(leader); err != nil {
		s.Fatal(err)
	}
	heal := func() {
		if err := s.HealDisk(leader); err != nil {
			s.Fatal(err)
		}
	}
	if s.Controllers() == 1 {
		s.pass(3 * time.Second)
		heal()
	} else {
		s.eventually("somebody else leads", func(ctx context.Context) error {
			i, err := s.WaitLeader(ctx)
			if err == nil && i == leader {
				return context.DeadlineExceeded
			}
			return err
		})
	}
	s.create(3, 4, neon.Attached(1))
	s.step("a pageserver dies meanwhile")
	if s.Controllers() > 1 {
		heal() // the next kill must find a majority
	}
	s.KillPageserver(4)
	s.verdicts()
	s.step("heals")
	s.deserted(4)
	s.rest()
}

func frozenStory(s *script) {
	s.populate()
	s.step("freezes")
	s.revive()
	leader, err := s.WaitLeader(s.within())
	if err != nil {
		s.Fatal(err)
	}
	if err := s.Pause(leader); err != nil {
		s.Fatal(err)
	}
	other := s.ClientOf((leader + 1) % s.Controllers())
	s.eventually("a follower takes a write", func(ctx context.Context) error {
		return other.Tenants().PutConfig(ctx, idOf(0), conf(`{"gc_horizon":9}`))
	})
	s.KillPageserver(1)
	s.pass(4 * time.Second)
	if err := s.Resume(leader); err != nil {
		s.Fatal(err)
	}
	s.step("continues")
	s.verdicts()
	s.step("and all is well")
	s.deserted(1)
	s.rest()
}

func cutOffStory(s *script) {
	s.populate()
	s.step("cut off")
	s.revive()
	leader, err := s.WaitLeader(s.within())
	if err != nil {
		s.Fatal(err)
	}
	var rest []int
	for i := range s.Controllers() {
		if i != leader {
			rest = append(rest, i)
		}
	}
	if err := s.Partition([]int{leader}, rest); err != nil {
		s.Fatal(err)
	}
	s.eventually("the majority takes a write", func(ctx context.Context) error {
		return s.ClientOf(rest[0]).Tenants().PutConfig(ctx, idOf(0), conf(`{"gc_horizon":9}`))
	})
	s.KillPageserver(1)
	s.pass(4 * time.Second)
	if err := s.Heal(); err != nil {
		s.Fatal(err)
	}
	s.step("healed")
	s.verdicts()
	s.step("and all is well")
	s.deserted(1)
	s.rest()
}
