package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/neon"
	"quorate/cluster"
	"quorate/cluster/clustertest"
	"quorate/fsm"
	"quorate/internal/serve"
)

// trio are three replicas in virtual time, without sockets.
type trio struct {
	t        *testing.T
	client   *http.Client
	replicas [3]*App
	stops    [3]func() error
}

// three runs a test with three replicas that have a leader.
func three(t *testing.T, test func(*testing.T, *trio)) {
	synctest.Test(t, func(t *testing.T) {
		network := clustertest.NewNetwork()
		var members []cluster.Member
		for i := range 3 {
			members = append(members,
				cluster.Member{ID: fmt.Sprintf("s%d", i), RaftAddr: fmt.Sprintf("h%d:1", i)})
		}
		dial := network.Host("client").Dial
		c := &trio{t: t, client: &http.Client{Transport: transportOf(dial)}}
		for i, m := range members {
			c.start(i, Config{
				Cluster: cluster.Config{
					ID: m.ID, RaftListen: m.RaftAddr, Members: members,
					Disk: clustertest.NewMemoryDisk(),
				},
				HTTP:    HTTP{Config: serve.Config{Listen: fmt.Sprintf("h%d:80", i)}},
				Network: network.Host(fmt.Sprintf("h%d", i)), Control: ControlNone,
			})
		}
		defer func() {
			for _, stop := range c.stops {
				if err := stop(); err != nil {
					t.Errorf("stop: %v", err)
				}
			}
			c.client.CloseIdleConnections()
		}()
		c.eventually("three replicas that are ready", func() bool {
			for _, a := range c.replicas {
				if status, _ := c.get(a, "ready"); status != http.StatusOK {
					return false
				}
			}
			return true
		})
		test(t, c)
	})
}

func (c *trio) start(i int, cfg Config) {
	a, err := New(c.t.Context(), cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var ended error
	go func() {
		defer close(done)
		ended = a.Run(ctx)
	}()
	c.replicas[i] = a
	c.stops[i] = func() error {
		cancel()
		<-done
		return ended
	}
}

func (c *trio) eventually(what string, ok func() bool) {
	c.t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("no %s within a minute", what)
		}
	}
}

// get asks a replica. The body is not empty only on success.
func (c *trio) get(a *App, path string) (status int, body string) {
	c.t.Helper()
	return fetch(c.t, c.client, a.Address()+path)
}

func (c *trio) leader() (leader int) {
	c.t.Helper()
	leader = -1
	c.eventually("leader", func() bool {
		for i, a := range c.replicas {
			if a.Cluster().IsLeader() {
				leader = i
			}
		}
		return leader >= 0
	})
	return leader
}

// TestReplicaThatStopsHandsItsLeadOver: no follower has to notice its death, and meanwhile it
// forwards what still comes.
func TestReplicaThatStopsHandsItsLeadOver(t *testing.T) {
	three(t, func(t *testing.T, c *trio) {
		old := c.leader()
		register(t, c.replicas[old], 4)
		stopped := make(chan error)
		go func() { stopped <- c.stops[old]() }()
		c.eventually("successor", func() bool {
			for i, a := range c.replicas {
				if i != old && a.Cluster().IsLeader() {
					return true
				}
			}
			return false
		})
		if status, nodes := c.get(c.replicas[old], "control/v1/node"); status != http.StatusOK ||
			!strings.Contains(nodes, `"id":4,`) {
			t.Errorf("while it stops it answers %d %s", status, nodes)
		}
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		for i, a := range c.replicas {
			if i == old {
				continue
			}
			l, known := a.Cluster().Leader()
			if s := a.Cluster().Status(); !known || l.ID == c.replicas[old].Cluster().ID() ||
				s.CrashElections != 0 {
				t.Errorf("%s knows %+v as the leader, after %d elections because of a death", s.ID,
					l, s.CrashElections)
			}
			state, err := a.Replica().ReadState(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := state.Node(4); !ok {
				t.Errorf("replica %d has not got what was acknowledged", i)
			}
		}
	})
}

// TestReplicaDescribesTheCluster: each of them tells the same, also who leads.
func TestReplicaDescribesTheCluster(t *testing.T) {
	three(t, func(t *testing.T, c *trio) {
		leader := c.leader()
		id := c.replicas[leader].Cluster().ID()
		for i, a := range c.replicas {
			c.eventually("description by everybody", func() bool {
				var told neon.Cluster
				_, body := c.get(a, "debug/v1/cluster")
				if err := json.Unmarshal([]byte(body), &told); err != nil {
					t.Fatalf("%s: %v", body, err)
				}
				roles := map[string]int{}
				for _, m := range told.Members {
					roles[m.Role]++
					if (m.Role == "leader") != (m.ID == id) {
						t.Fatalf("replica %d takes %s for a %s", i, m.ID, m.Role)
					}
				}
				return told.Leader == id && told.Server == a.Cluster().ID() && told.ID != "" &&
					told.Level == fsm.Level && roles["leader"] == 1 && roles["voter"] == 2
			})
		}
	})
}

func TestMetricsAreThoseOfTheReplica(t *testing.T) {
	three(t, func(t *testing.T, c *trio) {
		leader := c.leader()
		register(t, c.replicas[leader], 4)
		for i, a := range c.replicas {
			_, first := c.get(a, "metrics")
			_, second := c.get(a, "metrics")
			leads := "0"
			if i == leader {
				leads = "1"
			}
			for _, line := range []string{
				"storage_controller_raft_leader " + leads, "storage_controller_raft_leader_known 1",
				"storage_controller_raft_terms_led " + leads,
				"storage_controller_raft_disk_sick 0", "storage_controller_raft_proposals_in_flight 0",
				"storage_controller_pending_reconciles 0", "storage_controller_stuck_reconciles 0",
				"storage_controller_log_lines_dropped 0",
				fmt.Sprintf("storage_controller_raft_term %d", a.Cluster().Status().Term),
				`libmetrics_disk_io_bytes_total{io_operation="read"} `,
			} {
				if !strings.Contains(first, "\n"+line) {
					t.Errorf("replica %d has no line %q", i, line)
				}
			}
			if !strings.Contains(first, "\nlibmetrics_serve_count 1\n") ||
				!strings.Contains(second, "\nlibmetrics_serve_count 2\n") {
				t.Errorf("replica %d does not count how often it was asked", i)
			}
		}
	})
}

func TestLevelIsThatOfTheOldestMember(t *testing.T) {
	for want, levels := range map[uint64][]uint64{0: {}, 2: {3, 2, 4}, 3: {3}} {
		var members []cluster.MemberStatus
		for _, l := range levels {
			members = append(members, cluster.MemberStatus{Level: l})
		}
		if got := commonLevel(members); got != want {
			t.Errorf("of %v it is %d", levels, got)
		}
	}
}
