package cluster

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A server that was invited, and whose addition failed then, has the id of the cluster on
// its disk. It founds nothing under that id when it restarts, and can still be added.
func TestAnInvitedServerFoundsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := lone(t)
		defer f.stopAll()
		f.nodes[0].mustPropose(t, "a")
		c := f.empty(1)
		f.start(1)
		learnt := c.self.learnt
		c.self.learnt = func() { // the answer to the invitation is lost
			f.net.Partition([]string{"h0"}, []string{"h1"})
			learnt()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if err := f.nodes[0].AddMember(ctx, c.member()); err == nil {
			t.Fatal("it was added over a cut network")
		}
		cancel()
		f.stop(1, false)
		f.start(1)
		pass(t, 30*time.Second)
		if c.IsLeader() || !c.node.empty() {
			t.Fatal("it founded a cluster under the id of another one")
		}
		f.net.Heal()
		pass(t, 5*time.Second)
		if err := f.nodes[0].AddMember(t.Context(), c.member()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it has the state", func() bool { return c.machine.count("a") == 1 })
	})
}

// The first of a list that was invited elsewhere meanwhile does not found the list's
// cluster under that id either.
func TestAnInvitedFounderFoundsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFounders(t)
		defer f.stopAll()
		f.start(0)
		pass(t, time.Second)
		x := f.empty(3)
		f.start(3)
		eventually(t, "another cluster", x.IsLeader)
		x.mustPropose(t, "x")
		if err := x.founding.invite(t.Context(), f.nodes[0].member()); err != nil {
			t.Fatal(err)
		}
		f.start(1)
		f.start(2)
		pass(t, 30*time.Second)
		for i := range 3 {
			if f.foundedAnew(i) || i > 0 && f.nodes[i].ClusterID() != "" {
				t.Errorf("n%d founded, or promised, cluster %q", i, f.nodes[i].ClusterID())
			}
		}
		if err := x.AddMember(t.Context(), f.nodes[0].member()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it has the state", func() bool { return f.nodes[0].machine.count("x") == 1 })
	})
}
