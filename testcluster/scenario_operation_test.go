package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

func operationStories() []scenario {
	zones := testcluster.Builder{Pageservers: 5, Zones: 2}
	slow := zones
	slow.Behaviour = simpageserver.Behaviour{DownloadRate: 1 << 20, ReplayRate: 1 << 20}
	cold := zones
	cold.Behaviour = simpageserver.Behaviour{DownloadRate: 1 << 10}
	sluggish := zones // no shard gets away while a leader that has died is missed
	sluggish.Behaviour = simpageserver.Behaviour{Activation: 20 * time.Second}
	return []scenario{
		{name: "drain and fill", builder: zones, run: drainStory},
		{name: "drain and fill slowly", builder: slow, run: drainStory},
		{name: "drain with the pageserver dying", builder: slow, run: drainDyingStory},
		{name: "drain with a destination dying", builder: slow, run: drainDestinationStory},
		{name: "drain with the pageserver restarting", builder: slow, run: drainRestartStory},
		{name: "two drains at once", builder: slow, run: drainTwoStory},
		{name: "an impostor re-attaches", builder: zones, run: impostorStory},
		{name: "drain cancelled", builder: cold, run: cancelDrainStory},
		{name: "delete a node", builder: slow, run: deleteNodeStory},
		{name: "delete a node that dies", builder: slow, run: deleteDyingStory},
		{name: "delete a node by force", builder: zones, run: forceDeleteStory},
		{name: "delete a node the older way", builder: zones, run: deleteNowStory},
		{
			name: "node deletion cancelled", builder: sluggish, run: cancelDeleteStory,
			alone: "the deletion ends while the leader notices what is ill",
		},
	}
}

type nodeCall func(nodes client.Nodes, ctx context.Context, id neon.NodeID) error

// begin is the call that begins an operation with switches.
func begin(
	f func(client.Nodes, context.Context, neon.NodeID, ...client.NodeOption) error,
	with ...client.NodeOption,
) nodeCall {
	return func(nodes client.Nodes, ctx context.Context, id neon.NodeID) error {
		return f(nodes, ctx, id, with...)
	}
}

// order gives an order about a node until it has been taken. An order whose answer
// got lost and that is given again is refused, because it was taken.
func (s *script) order(what string, id neon.NodeID, f nodeCall, taken ...neon.NodeScheduling) {
	s.Helper()
	s.do(what, func(ctx context.Context, c *testcluster.Client) error {
		err := f(c.Nodes(), ctx, id)
		if err == nil {
			return nil
		}
		n, nerr := c.Nodes().Get(ctx, id)
		for _, p := range taken {
			if nerr == nil && n.Scheduling == p {
				return nil
			}
		}
		if client.StatusOf(nerr) == http.StatusNotFound && len(taken) > 0 &&
			taken[0] == neon.SchedulingDeleting {
			return nil
		}
		return errors.Join(err, nerr)
	})
}

// becomes waits until a node has a policy.
func (s *script) becomes(id neon.NodeID, p neon.NodeScheduling) {
	s.Helper()
	s.eventually(fmt.Sprintf("node %s becomes %s", id, p), func(ctx context.Context) error {
		n, err := s.Client().Nodes().Get(ctx, id)
		if err == nil && n.Scheduling != p {
			err = fmt.Errorf("node is %s", n.Scheduling)
		}
		return err
	})
}

// gone waits until a node is a tombstone and no shard names it.
func (s *script) gone(id neon.NodeID) {
	s.Helper()
	s.eventually(fmt.Sprintf("node %s is deleted", id), func(ctx context.Context) error {
		if _, err := s.Client().Nodes().Get(ctx, id); client.StatusOf(err) != http.StatusNotFound {
			return fmt.Errorf("node is still there: %w", err)
		}
		list, err := s.Client().Nodes().Tombstones(ctx)
		if err == nil && (len(list) != 1 || list[0].ID != id) {
			err = fmt.Errorf("tombstones are %+v", list)
		}
		return err
	})
	s.deserted(id)
}

func (s *script) attached(id neon.NodeID) (n int) {
	s.Helper()
	want, err := testcluster.Shards(s.within(), s.Client())
	if err != nil {
		s.Fatal(err)
	}
	for _, node := range want {
		if node == id {
			n++
		}
	}
	return n
}

func (s *script) activate(id neon.NodeID) {
	s.Helper()
	s.do("make a node active", func(ctx context.Context, c *testcluster.Client) error {
		return c.Nodes().Configure(ctx,
			neon.NodeConfigure{ID: id, Scheduling: new(neon.SchedulingActive)})
	})
}

func drainStory(s *script) {
	s.populate()
	n := s.home(shardOf(0, 0, 4))
	s.step("drain")
	s.order("drain", n, begin(client.Nodes.Drain), neon.SchedulingDraining,
		neon.SchedulingPauseForRestart)
	s.step("on the way")
	s.becomes(n, neon.SchedulingPauseForRestart)
	s.deserted(n)
	s.step("drained")
	s.rest()
	s.step("restarted")
	s.Fleet().Node(n).Kill()
	s.pageserver(n)
	s.verdicts()
	s.becomes(n, neon.SchedulingActive)
	s.step("fill")
	s.order("fill", n, begin(client.Nodes.Fill), neon.SchedulingFilling)
	s.step("filling")
	s.becomes(n, neon.SchedulingActive)
	s.rest()
	if s.attached(n) == 0 {
		s.Errorf("node %s has nothing after it was filled", n)
	}
}

func drainDyingStory(s *script) {
	s.populate()
	n := s.home(shardOf(0, 0, 4))
	s.step("drain")
	s.order("drain", n, begin(client.Nodes.Drain), neon.SchedulingDraining,
		neon.SchedulingPauseForRestart)
	s.step("the pageserver dies")
	s.KillPageserver(n)
	s.step("the verdict")
	s.verdicts()
	s.step("the end of the drain")
	s.becomes(n, neon.SchedulingPauseForRestart)
	s.deserted(n)
	s.step("back")
	s.pageserver(n)
	s.verdicts()
	s.becomes(n, neon.SchedulingActive)
}

func drainDestinationStory(s *script) {
	s.populate()
	n := s.home(shardOf(0, 0, 4))
	dies := n%5 + 1
	s.step("drain")
	s.order("drain", n, begin(client.Nodes.Drain), neon.SchedulingDraining,
		neon.SchedulingPauseForRestart)
	s.step("a destination dies")
	s.KillPageserver(dies)
	s.verdicts()
	s.step("the end of the drain")
	s.becomes(n, neon.SchedulingPauseForRestart)
	s.deserted(n)
	s.deserted(dies)
	s.step("back to work")
	s.activate(n)
	s.rest()
}

// drainRestartStory restarts the pageserver that is drained: the drain ends, and the
// node is active.
func drainRestartStory(s *script) {
	s.populate()
	n := s.home(shardOf(0, 0, 4))
	s.step("drain")
	s.order("drain", n, begin(client.Nodes.Drain), neon.SchedulingDraining,
		neon.SchedulingPauseForRestart)
	s.step("restarted")
	s.Fleet().Node(n).Kill()
	s.pageserver(n)
	s.step("the end of the drain")
	s.becomes(n, neon.SchedulingActive)
	s.noOperations()
	s.activate(n)
	s.rest()
}

func (s *script) noOperations() {
	s.Helper()
	s.eventually("no operation runs", func(ctx context.Context) error {
		list, err := s.Client().Nodes().Operations(ctx)
		if err == nil && len(list) > 0 {
			err = fmt.Errorf("there are %+v", list)
		}
		return err
	})
}

func drainTwoStory(s *script) {
	s.populate()
	first := s.home(shardOf(0, 0, 4))
	second := first%5 + 1
	s.step("drain")
	s.order("drain the first", first, begin(client.Nodes.Drain, client.Concurrent),
		neon.SchedulingDraining, neon.SchedulingPauseForRestart)
	s.step("and another")
	s.order("drain the second", second, begin(client.Nodes.Drain, client.Concurrent),
		neon.SchedulingDraining, neon.SchedulingPauseForRestart)
	s.step("the end of both")
	s.becomes(first, neon.SchedulingPauseForRestart)
	s.becomes(second, neon.SchedulingPauseForRestart)
	s.deserted(first)
	s.deserted(second)
	s.step("back to work")
	s.activate(first)
	s.activate(second)
	s.rest()
}

// impostorStory lets a process re-attach with the id of a pageserver that runs. All
// numbers of that node are used up by it, and it is given new ones.
func impostorStory(s *script) {
	s.populate()
	n := s.home(shardOf(0, 0, 4))
	s.step("the impostor")
	s.do("re-attach", func(ctx context.Context, c *testcluster.Client) error {
		_, err := c.Upcalls().ReAttach(ctx, neon.ReAttachRequest{Node: n})
		return err
	})
	s.step("repaired")
	s.verdicts()
	s.rest()
}

// cancelDrainStory cancels a drain whose destinations are cold. Little is missing on
// them, so that it may have come to its end before.
func cancelDrainStory(s *script) {
	s.populate()
	n := s.home(shardOf(1, 0, 0))
	s.step("drain")
	s.order("drain", n, begin(client.Nodes.Drain), neon.SchedulingDraining,
		neon.SchedulingPauseForRestart)
	s.step("cancel")
	s.order("cancel", n, client.Nodes.CancelDrain, neon.SchedulingActive,
		neon.SchedulingPauseForRestart)
	s.step("as before")
	s.activate(n)
	s.becomes(n, neon.SchedulingActive)
	s.rest()
}

func deleteNodeStory(s *script) {
	s.populate()
	n := s.home(shardOf(0, 0, 4))
	s.step("delete")
	s.order("delete", n, begin(client.Nodes.Delete), neon.SchedulingDeleting)
	s.step("on the way")
	s.gone(n)
	s.step("afterwards")
	for shard, at := range s.Fleet().Node(n).Locations() {
		s.Errorf("the deleted node still has %s as %+v", shard, at)
	}
	s.rest()
	s.zombie(n)
}

// zombie demands that a deleted pageserver is turned away.
func (s *script) zombie(id neon.NodeID) {
	s.Helper()
	s.Fleet().Node(id).Kill()
	s.eventually("the re-attach of a deleted node is refused", func(ctx context.Context) error {
		_, err := s.Client().Upcalls().ReAttach(ctx, neon.ReAttachRequest{Node: id})
		if client.StatusOf(err) != http.StatusInternalServerError {
			return fmt.Errorf("re-attach: %w", err)
		}
		return nil
	})
}

func deleteDyingStory(s *script) {
	s.populate()
	n := s.home(shardOf(0, 0, 4))
	s.step("delete")
	s.order("delete", n, begin(client.Nodes.Delete), neon.SchedulingDeleting)
	s.step("the pageserver dies")
	s.KillPageserver(n)
	s.step("and is deleted")
	s.gone(n)
	s.rest()
}

func forceDeleteStory(s *script) {
	s.populate()
	n := s.home(shardOf(0, 0, 4))
	s.step("the pageserver dies")
	s.KillPageserver(n)
	s.step("delete")
	s.order("delete", n, begin(client.Nodes.Delete, client.Force), neon.SchedulingDeleting)
	s.step("gone")
	s.gone(n)
	s.rest()
}

func deleteNowStory(s *script) {
	s.populate()
	n := s.home(shardOf(0, 0, 4))
	s.step("the pageserver dies")
	s.KillPageserver(n)
	s.step("delete")
	s.do("delete",
		func(
			ctx context.Context, c *testcluster.Client,
		) error {
			return c.Nodes().DeleteNow(ctx, n)
		})
	s.step("gone")
	s.gone(n)
	s.do("delete again",
		func(
			ctx context.Context, c *testcluster.Client,
		) error {
			return c.Nodes().DeleteNow(ctx, n)
		})
	s.rest()
}

func cancelDeleteStory(s *script) {
	s.populate()
	n := s.home(shardOf(1, 0, 0))
	s.step("delete")
	s.order("delete", n, begin(client.Nodes.Delete), neon.SchedulingDeleting)
	s.step("cancel")
	s.order("cancel", n, client.Nodes.CancelDelete, neon.SchedulingActive)
	s.step("as before")
	s.becomes(n, neon.SchedulingActive)
	s.rest()
}
