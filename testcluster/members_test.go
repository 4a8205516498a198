package testcluster_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/testcluster"
)

// growing is a process that others join, and a client that writes all the while.
type growing struct {
	*testing.T
	*testcluster.Cluster
	ctx  context.Context
	load chan int // gets the last write that was acknowledged
	stop context.CancelFunc
}

func startGrowing(t *testing.T, joiners int) *growing {
	g := &growing{T: t, ctx: within(t, 2*time.Minute), load: make(chan int, 1)}
	g.Cluster = testcluster.Run(t, testcluster.Builder{
		Mode: testcluster.Processes, Binary: build(t, program), Joiners: joiners,
		Pageservers: 4, Zones: 2, Hook: true,
	})
	create(t, g.ctx, g.Cluster, 2, 2, 1)
	ctx, stop := context.WithCancel(g.ctx)
	g.stop = stop
	go func() {
		acknowledged, any := 0, g.Client().WithTryTimeout(5*time.Second)
		for n := 1; ctx.Err() == nil; n++ {
			if any.Tenants().PutConfig(ctx, tenantID(0),
				conf(fmt.Sprintf(`{"gc_horizon":%d}`, n))) == nil {
				acknowledged = n
			}
			<-time.After(5 * time.Millisecond)
		}
		g.load <- acknowledged
	}()
	t.Cleanup(stop)
	return g
}

func (g *growing) must(what string, err error) {
	g.Helper()
	if err != nil {
		g.Fatalf("%s: %v", what, err)
	}
}

// join starts a process that waits to be added, and waits until it is known to.
func (g *growing) join(i int) neon.MemberAdd {
	g.Helper()
	g.must("start", g.Restart(g.ctx, i))
	m := neon.MemberAdd{ID: fmt.Sprintf("c%d", i+1)}
	for {
		leader, err := g.WaitLeader(g.ctx)
		g.must("leader", err)
		view, err := g.ClientOf(leader).Cluster().CurrentMembers(g.ctx)
		if err == nil {
			for _, w := range view.Waiting {
				if w.ID == m.ID {
					return m
				}
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-g.ctx.Done():
			g.Fatalf("%s is not seen to wait: %+v", m.ID, view)
		}
	}
}

// voters are the voters as the leader has them.
func (g *growing) voters() (out []string) {
	g.Helper()
	leader, err := g.WaitLeader(g.ctx)
	g.must("leader", err)
	view, err := g.ClientOf(leader).Cluster().CurrentMembers(g.ctx)
	g.must("list", err)
	for _, m := range view.Members {
		if m.Role != neon.RoleLearner {
			out = append(out, m.ID)
		}
	}
	slices.Sort(out)
	return out
}

// TestOneGrowsToThreeAndBack adds members through --join and the API, replaces a dead
// leader, kills the leader in the middle of a replacement, and removes all but one.
func TestOneGrowsToThreeAndBack(t *testing.T) {
	g := startGrowing(t, 4)
	_, err := g.ClientOf(0).Cluster().AddMember(g.ctx,
		neon.MemberAdd{ID: "c2", RaftAddr: "127.0.0.1:1"})
	if client.StatusOf(err) != http.StatusPreconditionFailed ||
		!strings.Contains(err.Error(), "--server-id c2 --raft-listen 127.0.0.1:1 --join ") {
		t.Fatalf("adding one that does not run: %v", err)
	}
	for i := 1; i <= 2; i++ {
		// Any member takes the command.
		_, err := g.ClientOf(i-1).Cluster().AddMember(g.ctx, g.join(i))
		g.must("add", err)
	}
	if got := g.voters(); !slices.Equal(got, []string{"c1", "c2", "c3"}) {
		t.Fatalf("the voters are %v", got)
	}

	dead, err := g.KillLeader(g.ctx)
	g.must("kill", err)
	_, err = g.Client().Cluster().ReplaceMember(g.ctx, fmt.Sprintf("c%d", dead+1), g.join(3))
	g.must("replace the dead leader", err)

	// The leader dies while a follower is replaced.
	leader, err := g.WaitLeader(g.ctx)
	g.must("leader", err)
	old, through := "", 0
	for i := range 4 {
		if i != leader && i != dead {
			through, old = i, fmt.Sprintf("c%d", i+1)
		}
	}
	by, replaced := g.join(4), make(chan error, 1)
	go func() {
		_, err := g.ClientFrom(through).Cluster().ReplaceMember(g.ctx, old, by)
		replaced <- err
	}()
	g.must("kill", g.Kill(leader))
	g.must("restart", g.Restart(g.ctx, leader))
	if err := <-replaced; err != nil {
		// The address of a newcomer that waits is known to the leader that it told.
		t.Logf("again, after %v", err)
		by = g.addressed(by)
		_, err = g.Client().Cluster().ReplaceMember(g.ctx, old, by)
		g.must("replace a follower", err)
	}
	got := g.voters()
	if len(got) != 3 || slices.Contains(got, old) || !slices.Contains(got, "c5") {
		t.Fatalf("the voters are %v", got)
	}
	g.end(old)

	for _, id := range got[:2] {
		g.must("remove "+id, g.Client().Cluster().RemoveMember(g.ctx, id))
		g.end(id)
	}
	if last := g.voters(); !slices.Equal(last, got[2:]) {
		t.Fatalf("the voters are %v", last)
	}
	g.kept()
}

// end ends a process that is no member any more: it would answer nothing.
func (g *growing) end(id string) {
	g.Helper()
	i, err := strconv.Atoi(strings.TrimPrefix(id, "c"))
	g.must(id, err)
	g.must("end "+id, g.Kill(i-1))
}

// addressed gives the address of a newcomer, as the client that knows it says.
func (g *growing) addressed(m neon.MemberAdd) neon.MemberAdd {
	for i := range g.Controllers() {
		if !g.Running(i) {
			continue
		}
		view, err := g.ClientOf(i).WithTryTimeout(time.Second).Cluster().CurrentMembers(g.ctx)
		if err != nil {
			continue
		}
		for _, w := range view.Waiting {
			if w.ID == m.ID {
				m.RaftAddr = w.RaftAddr
			}
		}
	}
	return m
}

// kept demands that the last write that was acknowledged is there.
func (g *growing) kept() {
	g.Helper()
	g.stop()
	last := <-g.load
	described, err := g.Client().Tenants().Describe(g.ctx, tenantID(0))
	g.must("describe", err)
	text, _ := described.Config.Field("gc_horizon")
	if now, err := strconv.Atoi(text); err != nil || now < last {
		g.Errorf("the last acknowledged write was %d, now it is %q", last, text)
	}
	g.Logf("%d writes were acknowledged", last)
}
