package testcluster_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"quorate/api/client"
	"quorate/internal/controlsocket"
	"quorate/testcluster"
)

// aboutMembers are the lines of a controller's log about raft and members.
func aboutMembers(c *testcluster.Cluster, i int) (lines []string) {
	for line := range strings.Lines(c.Log(i)) {
		if strings.Contains(line, "raft: ") || strings.Contains(line, "member") {
			lines = append(lines, line)
		}
	}
	return lines
}

// TestADeadProcessAndARemovedOneAreFewLines kills a follower, starts it again, and
// removes it.
func TestADeadProcessAndARemovedOneAreFewLines(t *testing.T) {
	const watched = 15 * time.Second
	ctx := within(t, 3*time.Minute)
	c := testcluster.Run(t, testcluster.Builder{
		Mode: testcluster.Processes, Controllers: 3, Binary: build(t, program),
	})
	s := &spoiled{T: t, Cluster: c, ctx: ctx}
	leader := s.victim(true)
	dead := s.victim(false)
	before := len(aboutMembers(c, leader))
	s.must("kill", c.Kill(dead))
	<-time.After(watched)
	lines := aboutMembers(c, leader)[before:]
	if now, _ := c.Leader(ctx); now != leader {
		t.Skip("another leads; the machine is too busy")
	}
	gone := fmt.Sprintf("WARN a member is gone; start it, or remove it if it does not come back "+
		"server=c%d member=c%d addr=", leader+1, dead+1)
	if n := strings.Count(strings.Join(lines, ""), gone); len(lines) > 5 || n != 1 {
		t.Errorf("%d lines in %s, %d that it is gone:\n%s", len(lines), watched, n,
			strings.Join(lines, ""))
	}
	s.must("restart", c.Restart(ctx, dead))
	back := fmt.Sprintf("INFO a member is back server=c%d member=c%d", leader+1, dead+1)
	s.until(10*time.Second, "back", func() bool { return strings.Contains(c.Log(leader), back) })

	s.must("remove", controlsocket.Dial(c.DataDir(leader)).RemoveMember(ctx,
		fmt.Sprintf("c%d", dead+1)))
	s.until(10*time.Second, "it knows", func() bool {
		err := c.ClientOf(dead).Cluster().Ready(ctx)
		return client.StatusOf(err) == http.StatusServiceUnavailable &&
			strings.Contains(err.Error(), "out of service: it was removed from the cluster")
	})
	counted := [2]int{len(aboutMembers(c, dead)), len(aboutMembers(c, leader))}
	<-time.After(watched)
	if n := strings.Count(c.Log(dead), "WARN this server was removed from the cluster"); n != 1 {
		t.Errorf("it says %d times that it was removed", n)
	}
	for k, i := range []int{dead, leader} {
		if lines := aboutMembers(c, i)[counted[k]:]; len(lines) > 3 {
			t.Errorf("controller %d after the removal:\n%s", i, strings.Join(lines, ""))
		}
	}
}
