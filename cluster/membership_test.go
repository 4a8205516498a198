package cluster

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/cluster/clustertest"
	"quorate/internal/logbuffer"
)

// quick timeouts for tests in real time.
var quick = Timeouts{Heartbeat: 250 * time.Millisecond, Store: 5 * time.Second}

// gossiping starts one server that finds the others through gossip.
func gossiping(t *testing.T, change func(*Config)) *node {
	t.Helper()
	nd := &node{machine: &ledger{}, cfg: Config{
		DataDir: t.TempDir(), RaftListen: "127.0.0.1:0", GossipListen: "127.0.0.1:0",
		GossipKey: []byte("0123456789abcdef"), Timeouts: quick,
	}}
	change(&nd.cfg)
	c, err := Open(context.Background(), nd.cfg, nd.machine)
	if err != nil {
		t.Fatal(err)
	}
	nd.Cluster = c
	t.Cleanup(func() {
		if nd.Cluster != nil {
			_ = nd.kill()
		}
	})
	return nd
}

func voters(c *Cluster) int {
	n := 0
	for _, m := range c.Members() {
		if m.Voter {
			n++
		}
	}
	return n
}

func TestExpectBootstrapsOnceAndALateServerJoins(t *testing.T) {
	tr := &trio{t: t}
	var seed []string
	for range 3 {
		nd := gossiping(t, func(c *Config) { c.Expect, c.Join = 3, seed })
		tr.nodes = append(tr.nodes, nd)
		seed = []string{tr.nodes[0].gossip.addr()}
	}
	lead := tr.leader()
	if lead.ClusterID() == "" {
		t.Fatal("founded without an id")
	}
	lead.mustPropose(t, "a")
	// A newcomer with the same settings finds a cluster and joins it. With four voters the
	// cluster would survive no more losses than with three.
	late := gossiping(t, func(c *Config) { c.Expect, c.Join = 3, seed })
	eventually(t, "the newcomer has the state", func() bool {
		return late.machine.count("a") == 1 && lead.listed(late.ID()).Connected
	})
	stays := time.Now().Add(3 * reportInterval)
	eventually(t, "the time is over", func() bool { return time.Now().After(stays) })
	if n := voters(lead.Cluster); n != 3 {
		t.Fatalf("%d voters after a fourth server came", n)
	}
	gossiping(t, func(c *Config) { c.Expect, c.Join = 3, seed })
	eventually(t, "both newcomers vote", func() bool { return voters(lead.Cluster) == 5 })
	if err := late.ReadBarrier(context.Background()); err != nil {
		t.Fatal(err)
	}
	if late.machine.count("a") != 1 {
		t.Fatal("the newcomer lacks what was written before it came")
	}
	// Another cluster's server is turned away.
	var logged logbuffer.Buffer
	alien := gossiping(t, func(c *Config) {
		c.ClusterID, c.Join = "two", seed
		c.Logger = slog.New(slog.NewTextHandler(&logged, nil))
	})
	eventually(t, "the alien says why",
		func() bool { return strings.Contains(logged.String(), "another cluster") })
	if voters(lead.Cluster) != 5 || alien.node.raft().LastIndex() != 0 {
		t.Fatal("a server of another cluster was added")
	}
}

func TestMoreFreshServersThanExpectedBootstrapNothing(t *testing.T) {
	var nodes []*node
	var seed []string
	for range 3 {
		nodes = append(nodes, gossiping(t, func(c *Config) { c.Expect, c.Join = 2, seed }))
		if len(nodes) == 1 {
			seed = []string{nodes[0].gossip.addr()}
		}
		// All three must be in view before the first two have been alone for stableView.
	}
	deadline := time.Now().Add(2 * stableView)
	eventually(t, "the time is over", func() bool {
		for _, nd := range nodes {
			if nd.node.raft().LastIndex() != 0 {
				t.Fatal("bootstrapped with three servers where two were expected")
			}
		}
		return time.Now().After(deadline)
	})
}

func TestAddAndRemoveMembers(t *testing.T) {
	tr := startMemory(t, 1)
	lead := tr.leader()
	lead.mustPropose(t, "a")
	nd := &node{disk: clustertest.NewMemoryDisk(), cfg: Config{
		ID: "n1", RaftListen: "h1:1", Network: tr.net.Host("h1"), Join: []string{"by hand"},
	}}
	nd.cfg.Disk, nd.machine = nd.disk, &ledger{}
	nd.cfg.GossipListen, nd.cfg.Join, nd.cfg.Expect = "127.0.0.1:0", nil, 9
	c, err := Open(context.Background(), nd.cfg, nd.machine)
	if err != nil {
		t.Fatal(err)
	}
	nd.Cluster = c
	tr.nodes = append(tr.nodes, nd)
	ctx := context.Background()
	if err := nd.AddMember(ctx, Member{ID: "n1", RaftAddr: "h1:1"}); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("a server that does not lead added one: %v", err)
	}
	for range 2 { // repeating it changes nothing
		if err := lead.AddMember(ctx, Member{ID: "n1", RaftAddr: "h1:1"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := nd.ReadBarrier(ctx); err != nil || nd.machine.count("a") != 1 {
		t.Fatalf("the new member does not read: %v", err)
	}
	if err := lead.RemoveMember(ctx, "n7"); !errors.Is(err, ErrUnknownMember) {
		t.Errorf("got %v", err)
	}
	if err := lead.RemoveMember(ctx, lead.ID()); !errors.Is(err, ErrNotLeader) {
		t.Errorf("the leader removed itself: %v", err)
	}
	lead = tr.leader()
	if lead != nd {
		t.Fatal("it did not hand over")
	}
	if err := lead.RemoveMember(ctx, "n0"); err != nil {
		t.Fatal(err)
	}
	lead.mustPropose(t, "alone")
	if got := len(lead.Members()); got != 1 {
		t.Errorf("%d members are left", got)
	}
}

func TestMembersOfTwoClustersRefuseEachOther(t *testing.T) {
	net := clustertest.NewNetwork()
	open := func(i int, cluster string) *Cluster {
		cfg := memoryConfig(net, 2, i)
		cfg.ClusterID, cfg.Disk = cluster, clustertest.NewMemoryDisk()
		c, err := Open(context.Background(), cfg, &ledger{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close(context.Background()) })
		return c
	}
	a, _ := open(0, "one"), open(1, "two")
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, _, err := a.streams.dial(ctx, "h1:1", tagRaft); !errors.Is(err, ErrClusterMismatch) {
		t.Fatalf("got %v", err)
	}
	if a.IsLeader() {
		t.Fatal("they elected a leader together")
	}
}

func TestStatusAndMembersShowTheCluster(t *testing.T) {
	tr := startTCP(t, 3, Timeouts{})
	lead := tr.leader()
	lead.mustPropose(t, "a")
	eventually(t, "every server knows all three and their addresses", func() bool {
		for _, nd := range tr.nodes {
			info, ok := nd.Leader()
			if !ok || info.ID != lead.ID() || info.HTTPAddr != "http://"+lead.ID() {
				return false
			}
			for _, m := range nd.Members() {
				if !m.Connected || m.HTTPAddr == "" || m.State == "" || m.Lag != 0 {
					return false
				}
			}
		}
		return true
	})
	if s := lead.Status(); s.State != "Leader" || s.TermsLed == 0 || s.Sick || s.LastWrite == 0 {
		t.Errorf("status %+v", s)
	}
}

// A member behind a cut link keeps its connection, and is not connected for all that: its
// silence counts.
func TestAMemberThatIsSilentIsNotConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFounders(t)
		defer f.stopAll()
		for i := range 3 {
			f.start(i)
		}
		lead := f.leader()
		var others []string
		for _, nd := range f.nodes {
			if nd != lead {
				others = append(others, nd.cfg.ID)
			}
		}
		connected := func() bool {
			return lead.listed(others[0]).Connected && lead.listed(others[1]).Connected
		}
		eventuallyVirtual(t, connected)
		host := lead.cfg.RaftListen[:2]
		f.net.Partition([]string{host})
		pass(t, silentAfter+2*reportInterval)
		for _, id := range others {
			if m := lead.listed(id); m.Connected || m.LastContact < silentAfter || m.Level != 0 {
				t.Errorf("behind a cut link: %+v", m)
			}
		}
		if why := lead.service.reason(); !strings.Contains(why, others[0]) ||
			!strings.Contains(why, "1 of 3 voters are no majority") {
			t.Errorf("it says %q", why)
		}
		f.net.Heal()
		eventuallyVirtual(t, connected)
	})
}
