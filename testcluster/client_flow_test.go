package testcluster_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/reconciler"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

// flow is what existing test suites do with drains, fills and deletions, with their
// places and their timeouts. They talk to one controller.
type flow struct {
	*script
	c *testcluster.Client
}

func playFlow(t *testing.T, b testcluster.Builder, f func(*flow)) {
	synctest.Test(t, func(t *testing.T) {
		b.Mode, b.Hook, b.Seed, b.Failpoints = testcluster.Virtual, true, 1, true
		s := &script{T: t, Cluster: testcluster.Run(t, b)}
		f(&flow{s, s.Client()})
		s.verdicts()
		s.rest()
		if err := checkEverything(s.within(), s.Cluster); err != nil {
			t.Error(err)
		}
	})
}

func (f *flow) must(what string, err error) {
	f.Helper()
	if err != nil {
		f.Fatalf("%s: %v", what, err)
	}
}

// poll asks for a node's policy a few times with pauses between.
func (f *flow) poll(id neon.NodeID, want neon.NodeScheduling, attempts int, pause time.Duration) {
	f.Helper()
	var last neon.NodeDescribe
	for range attempts {
		n, err := f.c.Nodes().Get(f.within(), id)
		if err == nil && n.Scheduling == want && n.Availability == neon.NodeActive {
			return
		}
		last = n
		<-time.After(pause)
	}
	f.Fatalf("node %s is %s and %s, not %s", id, last.Availability, last.Scheduling, want)
}

func (f *flow) refused(what string, err error, status int, text string) {
	f.Helper()
	if client.StatusOf(err) != status || !strings.Contains(err.Error(), text) {
		f.Errorf("%s: %v, not %d with %q", what, err, status, text)
	}
}

func (f *flow) tenants(n, shards int) {
	f.Helper()
	for i := range n {
		f.create(i, shards, neon.Attached(1))
	}
	if left, err := f.c.Debug().ReconcileAll(f.within()); left != 0 || err != nil {
		f.Fatalf("after creation %d shards are left to do: %v", left, err)
	}
}

func TestFlowOfADrainThatIsCancelled(t *testing.T) {
	playFlow(t, testcluster.Builder{Pageservers: 2}, func(f *flow) {
		f.tenants(10, 16)
		f.must("failpoint",
			f.c.Debug().SetFailpoint(f.within(), "sleepy-drain-loop", "return(2000)"))
		f.must("drain", f.c.Nodes().Drain(f.within(), 1))
		f.poll(1, neon.SchedulingDraining, 6, 2*time.Second)
		f.must("cancel", f.c.Nodes().CancelDrain(f.within(), 1))
		f.poll(1, neon.SchedulingActive, 6, 2*time.Second)
	})
}

func TestFlowOfARestartDuringADrain(t *testing.T) {
	playFlow(t, testcluster.Builder{Pageservers: 2}, func(f *flow) {
		f.tenants(1, 1)
		n := f.home(shardOf(0, 0, 1))
		f.must("failpoint",
			f.c.Debug().SetFailpoint(f.within(), "sleepy-drain-loop", "return(10000)"))
		f.must("drain", f.c.Nodes().Drain(f.within(), n))
		f.poll(n, neon.SchedulingDraining, 6, 2*time.Second)
		<-time.After(time.Second)
		f.Fleet().Node(n).Kill()
		f.pageserver(n)
		f.must("re-attach", f.Fleet().Node(n).WaitReady(f.within()))
		f.verdicts()
		const text = "Precondition failed: Ongoing background operation forbids configuring: drain"
		f.refused("pause", f.c.Nodes().Configure(f.within(), neon.NodeConfigure{
			ID: n, Scheduling: ptr(neon.SchedulingPause),
		}), http.StatusPreconditionFailed, text)
		f.refused("offline", f.c.Nodes().Configure(f.within(), neon.NodeConfigure{
			ID: n, Availability: ptr(neon.NodeOffline),
		}), http.StatusPreconditionFailed, text)
		f.must("cancel", f.c.Nodes().CancelDrain(f.within(), n))
		f.must("pause", f.c.Nodes().Configure(f.within(),
			neon.NodeConfigure{ID: n, Scheduling: ptr(neon.SchedulingPause)}))
	})
}

func TestFlowOfADeletionThatIsCancelled(t *testing.T) {
	for name, call := range map[string]nodeCall{
		"gracefully": begin(client.Nodes.Delete),
		"by force":   begin(client.Nodes.Delete, client.Force),
	} {
		t.Run(name, func(t *testing.T) {
			playFlow(t, testcluster.Builder{Pageservers: 3, Zones: 3}, func(f *flow) {
				f.tenants(12, 16)
				f.must("failpoint",
					f.c.Debug().SetFailpoint(f.within(), "sleepy-delete-loop", "return(10000)"))
				f.must("failpoint",
					f.c.Debug().SetFailpoint(f.within(), "delete-node-after-reconciles-spawned",
						"pause"))
				f.must("delete", call(f.c.Nodes(), f.within(), 1))
				f.poll(1, neon.SchedulingDeleting, 6, 2*time.Second)
				<-time.After(15 * time.Second)
				f.must("cancel", f.c.Nodes().CancelDelete(f.within(), 1))
				f.must("failpoint",
					f.c.Debug().SetFailpoint(f.within(), "delete-node-after-reconciles-spawned",
						"off"))
				f.poll(1, neon.SchedulingActive, 6, 2*time.Second)
			})
		})
	}
}

// A rolling restart drains, restarts and fills every pageserver; afterwards shards are
// about as many everywhere.
func TestFlowOfARollingRestart(t *testing.T) {
	for zones := 1; zones <= 2; zones++ {
		b := testcluster.Builder{
			Pageservers: 2, Zones: zones, Behaviour: simpageserver.Behaviour{DownloadRate: 1 << 24},
		}
		playFlow(t, b, func(f *flow) {
			const total, perTenant = 40, 8
			f.tenants(total/perTenant, perTenant)
			for id := neon.NodeID(1); id <= 2; id++ {
				f.must("drain", f.c.Nodes().Drain(f.within(), id))
				f.poll(id, neon.SchedulingPauseForRestart, 6, 5*time.Second)
				if n := f.attached(id); n != 0 {
					f.Errorf("%d shards are on the drained node %s", n, id)
				}
				f.must("stop", f.Fleet().Node(id).Stop(f.within()))
				f.pageserver(id)
				f.poll(id, neon.SchedulingActive, 10, time.Second)
				f.must("fill", f.c.Nodes().Fill(f.within(), id))
				f.poll(id, neon.SchedulingActive, 6, 5*time.Second)
				apart := f.attached(1) - f.attached(2)
				if most := []int{0, total * 5 / 100, perTenant}[zones]; max(apart, -apart) > most {
					f.Errorf("%d zones: one node has %d shards more than the other", zones, apart)
				}
			}
		})
	}
}

// A drain leaves alone what is far behind on its secondary, soon, and takes it when it
// has caught up.
func TestFlowOfADrainWithALaggingSecondary(t *testing.T) {
	b := testcluster.Builder{
		Pageservers: 2, Store: simpageserver.StoreOptions{ShardBytes: 16 << 20, ShardLayers: 16},
		Behaviour: simpageserver.Behaviour{DownloadRate: -1},
		Tune:      func(o *reconciler.Options) { o.MaxSecondaryLag = 1 << 20 },
	}
	playFlow(t, b, func(f *flow) {
		f.tenants(1, 1)
		shard := shardOf(0, 0, 1)
		from := f.home(shard)
		f.must("drain", f.c.Nodes().Drain(f.within(), from))
		f.poll(from, neon.SchedulingPauseForRestart, 6, 5*time.Second)
		if at := f.home(shard); at != from {
			f.Errorf("the shard went to %s", at)
		}
		for _, n := range f.Fleet().Nodes() {
			n.SetBehaviour(simpageserver.Behaviour{})
		}
		f.activate(from)
		f.must("drain", f.c.Nodes().Drain(f.within(), from))
		f.poll(from, neon.SchedulingPauseForRestart, 6, 5*time.Second)
		if at := f.home(shard); at == from {
			f.Errorf("the shard stayed on %s", at)
		}
		f.activate(from)
	})
}
