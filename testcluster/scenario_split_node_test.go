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

// What else may happen to a tenant, or to the nodes that it is on, while it is split.
func splitMeetsStories() []scenario {
	zones := testcluster.Builder{
		Pageservers: 5, Zones: 2, Behaviour: simpageserver.Behaviour{SplitStage: stage},
	}
	return []scenario{
		{
			name: "split and drain", builder: zones,
			run: func(s *script) { splitDrainStory(s, nothing) },
		},
		{
			name: "aborted split and drain", builder: zones,
			run: func(s *script) { splitDrainStory(s, failing) },
		},
		{name: "split and node deletion", builder: zones, run: splitDeleteNodeStory},
		{name: "split and forced node deletion", builder: zones, run: splitForceDeleteStory},
		{name: "split and tenant deletion", builder: zones, run: splitDeleteTenantStory},
		{name: "split and policy changes", builder: zones, run: splitPolicyStory},
	}
}

// trouble is what a pageserver does with a split.
type trouble uint8

const (
	nothing trouble = iota
	failing
)

// splitting makes a tenant with two shards and begins its split into four; node is
// where its first shard is.
func (s *script) splitting(n int) (node neon.NodeID, wait func()) {
	s.Helper()
	s.neighbours(0, 2)
	s.create(n, 2, neon.Attached(1))
	s.timeline(n, n, -1, shardsOf(n, 2)...)
	s.rest()
	node = s.home(shardOf(n, 0, 2))
	return node, s.splitMeanwhile(n, 4)
}

func splitDrainStory(s *script, what trouble) {
	s.neighbours(0, 2)
	s.create(1, 2, neon.Attached(1))
	s.timeline(1, 1, -1, shardsOf(1, 2)...)
	s.rest()
	n := s.home(shardOf(1, 0, 2))
	if what == failing {
		s.Fleet().Node(n).SetBehaviour(simpageserver.Behaviour{
			SplitStage: stage, SplitFailsAt: simpageserver.SplitHalf,
		})
	}
	wait := s.splitMeanwhile(1, 4)
	s.pass(2 * stage)
	s.step("drain")
	s.order("drain", n, begin(client.Nodes.Drain), neon.SchedulingDraining,
		neon.SchedulingPauseForRestart)
	wait()
	s.noSplits(1)
	s.step("on the way")
	s.becomes(n, neon.SchedulingPauseForRestart)
	s.deserted(n)
	s.stages(simpageserver.Behaviour{})
	s.step("split")
	s.split(1, 4)
	s.timeline(1, 10, 1, shardsOf(1, 4)...)
	s.step("back to work")
	s.activate(n)
	s.rest()
}

func splitDeleteNodeStory(s *script) {
	n, wait := s.splitting(1)
	s.pass(2 * stage)
	s.step("delete")
	s.order("delete", n, begin(client.Nodes.Delete), neon.SchedulingDeleting)
	wait()
	s.step("on the way")
	s.gone(n)
	s.noSplits(1)
	s.step("split")
	s.split(1, 4)
	s.rest()
	for shard, at := range s.Fleet().Node(n).Locations() {
		s.Errorf("the deleted node still has %s as %+v", shard, at)
	}
	s.zombie(n)
}

func splitForceDeleteStory(s *script) {
	n, wait := s.splitting(1)
	s.pass(2 * stage)
	s.KillPageserver(n)
	s.step("delete")
	s.order("delete", n, begin(client.Nodes.Delete, client.Force), neon.SchedulingDeleting)
	s.step("gone")
	s.gone(n)
	wait()
	s.noSplits(1)
	s.rest()
	s.step("split")
	s.split(1, 4)
	s.timeline(1, 10, 1, shardsOf(1, 4)...)
	s.rest()
}

func splitDeleteTenantStory(s *script) {
	for i := range 4 {
		n := 10 + i
		s.create(n, 2, neon.Attached(1))
		s.timeline(n, n, -1, shardsOf(n, 2)...)
		s.rest()
		wait := s.splitMeanwhile(n, 4)
		s.pass(time.Duration(i) * 150 * time.Millisecond)
		s.step(fmt.Sprintf("delete %d", i))
		s.deleteTenant(n)
		wait()
		s.eventually("the tenant is gone", func(ctx context.Context) error {
			if _, err := s.Client().Tenants().Describe(ctx,
				idOf(n)); client.StatusOf(err) != http.StatusNotFound {
				return fmt.Errorf("it is there: %w", err)
			}
			return nil
		})
		s.rest()
	}
}

func splitPolicyStory(s *script) {
	_, wait := s.splitting(1)
	s.pass(2 * stage)
	s.step("more secondaries")
	s.policy(1, neon.PolicyRequest{Placement: ptr(neon.Attached(2))})
	wait()
	s.noSplits(1)
	s.split(1, 4)
	s.rest()
	wait = s.splitMeanwhile(1, 8)
	s.pass(2 * stage)
	s.step("put away")
	s.policy(1, neon.PolicyRequest{Placement: &neon.Placement{}})
	wait()
	s.rest()
	s.step("and served again")
	s.policy(1, neon.PolicyRequest{Placement: ptr(neon.Attached(1))})
	s.rest()
	s.step("split")
	s.split(1, 8)
	s.timeline(1, 10, 1, shardsOf(1, 8)...)
	s.rest()
}
