package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/testcluster"
)

// faulty are three processes to which something happens.
type faulty struct {
	*testing.T
	*testcluster.Cluster
	ctx context.Context
}

func startFaulty(t *testing.T, b testcluster.Builder) *faulty {
	t.Helper()
	b.Mode, b.Pageservers, b.Zones, b.Hook = testcluster.Processes, 4, 2, true
	b.Binary, b.DiskFaults = build(t, "./testcontroller"), true
	f := &faulty{T: t, ctx: within(t, 4*time.Minute)}
	f.Cluster = testcluster.Run(t, b)
	create(t, f.ctx, f.Cluster, 4, 2, 1)
	return f
}

func (f *faulty) must(what string, err error) {
	f.Helper()
	if err != nil {
		f.Fatalf("%s: %v", what, err)
	}
}

// leader finds who leads, and the others.
func (f *faulty) leader() (leader int, others []int) {
	f.Helper()
	leader, err := f.WaitLeader(f.ctx)
	f.must("leader", err)
	for i := range f.Controllers() {
		if i != leader {
			others = append(others, i)
		}
	}
	return leader, others
}

func (f *faulty) eventually(what string, try func() error) {
	f.Helper()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-f.ctx.Done():
			f.Fatalf("%s: %v", what, errors.Join(err, f.ctx.Err()))
		}
	}
}

// write configures a tenant until that is acknowledged; the ledger remembers it.
func (f *faulty) write(c *testcluster.Client, value int) {
	f.Helper()
	f.eventually("a write", func() error {
		return c.WithTryTimeout(5*time.Second).Tenants().PutConfig(f.ctx, tenantID(value%4),
			conf(fmt.Sprintf(`{"gc_horizon":%d}`, value)))
	})
}

// refuses demands that a controller acknowledges no write.
func (f *faulty) refuses(i, value int) {
	f.Helper()
	err := f.ClientOf(i).WithTryTimeout(2*time.Second).Tenants().PutConfig(f.ctx, tenantID(0),
		conf(fmt.Sprintf(`{"gc_horizon":%d}`, value)))
	if err == nil {
		f.Errorf("controller %d acknowledged a write that it cannot have made", i)
	}
}

// gaveWay demands that a controller does not lead any more.
func (f *faulty) gaveWay(i int) {
	f.Helper()
	begun := time.Now()
	f.eventually("the old leader gives way", func() error {
		m, err := f.ClientOf(i).WithTryTimeout(time.Second).Cluster().Members(f.ctx)
		if err == nil && m.Leader == m.Server {
			err = fmt.Errorf("it leads in term %d", m.Term)
		}
		return err
	})
	took := time.Since(begun)
	f.Logf("gave way within %v", took.Round(time.Millisecond))
	if took > 15*time.Second {
		f.Errorf("it led for %v more", took)
	}
}

// otherLeads waits until some other controller leads, and returns it.
func (f *faulty) otherLeads(than int, among []int) (leader int) {
	f.Helper()
	f.eventually("another leads", func() error {
		for _, i := range among {
			m, err := f.ClientOf(i).WithTryTimeout(time.Second).Cluster().Members(f.ctx)
			if err == nil && i != than && m.Leader == m.Server &&
				f.ClientOf(i).WithTryTimeout(time.Second).Cluster().Ready(f.ctx) == nil {
				leader = i
				return nil
			}
		}
		return errors.New("nobody does")
	})
	return leader
}

// question asks a controller whether the generations of all shards that pageservers
// hold now are the newest, again and again until the test wants it to stop. A yes is
// an error: the controller cannot know.
func (f *faulty) question(i int) (stop func()) {
	f.Helper()
	var req neon.ValidateRequest
	for _, n := range f.Fleet().Nodes() {
		for id, at := range n.Locations() {
			if at.Mode.Attached() {
				req.Tenants = append(req.Tenants,
					neon.ValidateTenant{Shard: id, Gen: at.Generation})
			}
		}
	}
	if len(req.Tenants) == 0 {
		f.Fatal("nothing is attached")
	}
	ctx, cancel := context.WithCancel(f.ctx)
	var wg sync.WaitGroup
	asked := 0
	wg.Go(func() {
		client := f.ClientOf(i).WithTryTimeout(time.Second)
		for ; ctx.Err() == nil; asked++ {
			resp, err := client.Upcalls().Validate(ctx, req)
			for _, t := range resp.Tenants {
				if err == nil && t.Valid {
					f.Errorf(
						"the controller that is cut off says that the generation of shard %s is valid",
						t.Shard)
					return
				}
			}
		}
	})
	return func() {
		f.Helper()
		cancel()
		wg.Wait()
		f.Logf("asked %d times", asked)
		if asked == 0 {
			f.Error("it was never asked")
		}
	}
}

// TestAPartitionedProcessSaysNoYes cuts the leading process off from the others.
func TestAPartitionedProcessSaysNoYes(t *testing.T) {
	f := startFaulty(t, testcluster.Builder{Controllers: 3, Wires: true})
	atRest(t, f.ctx, f.Cluster)
	for round := range 2 {
		leader, others := f.leader()
		f.write(f.Client(), 10*round)
		f.must("partition", f.Partition([]int{leader}, others))
		stop := f.question(leader)
		f.gaveWay(leader)
		next := f.otherLeads(leader, others)
		f.write(f.ClientOf(next), 10*round+1)
		f.KillPageserver(neon.NodeID(round + 1))
		f.eventually("its shards move", func() error {
			want, err := testcluster.Shards(f.ctx, f.ClientOf(next))
			for id, at := range want {
				if at == neon.NodeID(round+1) {
					return fmt.Errorf("shard %s is meant for it", id)
				}
			}
			return err
		})
		f.refuses(leader, 10*round+2)
		stop()
		f.must("heal", f.Heal())
		f.must("start", f.Fleet().Node(neon.NodeID(round+1)).Start(f.ctx))
		f.eventually("the old leader follows",
			func() error { return f.ClientOf(leader).Cluster().Ready(f.ctx) })
		f.must("verdicts", f.WaitNodes(f.ctx))
		f.write(f.ClientOf(leader), 10*round+3)
		atRest(t, f.ctx, f.Cluster)
	}
}

// fill fills the disk of a controller that leads and waits until that says so.
func (f *faulty) fill(i int) {
	f.Helper()
	const says = "the disk is full"
	before := strings.Count(f.Log(i), says)
	f.must("fill", f.FillDisk(i))
	f.eventually("it says so", func() error {
		if strings.Count(f.Log(i), says) <= before {
			return errors.New("its log does not speak of a full disk")
		}
		return nil
	})
}

// TestAFullDiskLosesNothing fills the disks of a leader, of a follower and of all, and
// kills a process whose disk is full.
func TestAFullDiskLosesNothing(t *testing.T) {
	f := startFaulty(t, testcluster.Builder{Controllers: 3})
	leader, others := f.leader()
	f.write(f.Client(), 1)
	f.fill(leader)
	f.gaveWay(leader)
	next := f.otherLeads(leader, others)
	f.write(f.ClientOf(next), 2)
	f.must("kill", f.Kill(leader)) // with what it could not write
	f.write(f.ClientOf(next), 3)
	f.must("restart", f.Restart(f.ctx, leader))
	f.eventually("it follows", func() error { return f.ClientOf(leader).Cluster().Ready(f.ctx) })

	next, others = f.leader()
	f.must("fill", f.FillDisk(others[0]))
	f.write(f.Client(), 4)
	f.must("heal", f.HealDisk(others[0]))
	f.write(f.Client(), 5)

	for i := range f.Controllers() {
		if i != next {
			f.must("fill", f.FillDisk(i)) // it notices when it is to write something
		}
	}
	f.fill(next)
	for i := range f.Controllers() {
		if !f.Running(i) {
			t.Errorf("controller %d has ended", i)
		}
		f.must("heal", f.HealDisk(i))
	}
	f.write(f.Client(), 7)
	f.write(f.Client(), 8)
	atRest(t, f.ctx, f.Cluster)
}

// TestAFullDiskOfAControllerAlone: it acknowledges nothing, and goes on by itself once
// there is space.
func TestAFullDiskOfAControllerAlone(t *testing.T) {
	f := startFaulty(t, testcluster.Builder{Controllers: 1})
	f.write(f.Client(), 1)
	f.fill(0)
	f.refuses(0, 2)
	f.must("heal", f.HealDisk(0))
	f.write(f.Client(), 4)
	f.must("kill", f.Kill(0))
	f.must("restart", f.Restart(f.ctx, 0))
	f.write(f.Client(), 8)
	atRest(t, f.ctx, f.Cluster)
}
