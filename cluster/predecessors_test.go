package cluster

import (
	"testing"
	"testing/synctest"
	"time"
)

// rescuedOne is a cluster made of n1, the survivor of n0, n1 and n2, not started yet.
func rescuedOne(t *testing.T) *founders {
	f := grownFromOne(t)
	f.stop(1, false)
	f.stop(0, true)
	f.stop(2, true)
	f.rescue(1)
	return f
}

// An operator who has removed a server of the old cluster uses its address for another
// cluster. The rescued one must leave it alone.
func TestAnAddressOfAServerThatWasRemovedIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := rescuedOne(t)
		defer f.stopAll()
		rescued := f.start(1)
		eventuallyVirtual(t, rescued.IsLeader)
		rescued.mustPropose(t, "b")
		for _, id := range []string{"n0", "n2"} {
			if err := rescued.RemoveMember(t.Context(), id); err != nil {
				t.Errorf("remove %s: %v", id, err)
			}
		}
		f.stop(1, false)
		other := &node{cfg: Config{
			ID: "other", RaftListen: "h0:1", HTTPAddr: "http://h0", Network: f.net.Host("h0"),
			DataDir: t.TempDir(), Version: "v1",
		}}
		f.nodes = append(f.nodes, other)
		f.start(len(f.nodes) - 1)
		eventuallyVirtual(t, other.IsLeader)
		other.mustPropose(t, "of another cluster")
		rescued.cfg.Join = nil
		f.start(1)
		pass(t, 10*time.Second)
		if why := other.OutOfService(); why != "" {
			t.Errorf("an innocent cluster is out of service: %s", why)
		}
	})
}

// A server of the old cluster becomes a member of the new one, and is removed from it: its
// address is free too.
func TestAPredecessorThatIsRemovedAsAMemberIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := rescuedOne(t)
		defer f.stopAll()
		rescued := f.start(1)
		eventuallyVirtual(t, rescued.IsLeader)
		late := f.newcomer(2, "h1:1")
		if err := rescued.AddMember(t.Context(), late.member()); err != nil {
			t.Fatal(err)
		}
		if rescued.self.predecessors.at(late.cfg.RaftListen) == "" {
			t.Fatal("it is no predecessor")
		}
		pass(t, 2*time.Second)
		if err := rescued.RemoveMember(t.Context(), late.cfg.ID); err != nil {
			t.Fatal(err)
		}
		if id := rescued.self.predecessors.at(late.cfg.RaftListen); id != "" {
			t.Errorf("%s is still called at the address of %s", late.cfg.RaftListen, id)
		}
	})
}

// A server of the old cluster founds after listenFirst. One of the others that hangs must not
// make the calls to it as rare as that.
func TestPredecessorsAreCalledMoreOftenThanTheyListen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := rescuedOne(t)
		defer f.stopAll()
		f.net.Partition([]string{"h2"}) // gone without a word
		defer f.net.Heal()
		l, err := f.net.Host("h0").Listen("h0:1")
		if err != nil {
			t.Fatal(err)
		}
		var last time.Time
		var longest time.Duration
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_ = c.Close()
				if now := time.Now(); !last.IsZero() {
					longest = max(longest, now.Sub(last))
					last = now
				} else {
					last = now
				}
			}
		}()
		f.start(1)
		pass(t, time.Minute)
		_ = l.Close()
		<-ended
		// The calls of a link come at least each 2.5 seconds, see listenFirst.
		if longest >= listenFirst {
			t.Errorf("%s pass between two calls, and a founder listens for %s", longest, listenFirst)
		}
	})
}
