package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"quorate/api/client"
	"quorate/api/neon"
	"quorate/internal/results"
	"quorate/internal/wait"
	"quorate/testcluster"
)

// Drains, fills and the deletion of one of ten pageservers, of tenants with one secondary.
const (
	operatedTenants     = 2500 // of 4 shards
	operatedPageservers = 10
	operated            = neon.NodeID(5)
	operatedRate        = 2500 // moves a second
)

// operations measures how fast drains, the fills after them and a deletion move shards.
func operations(ctx context.Context, o *BenchOptions) (found []results.Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	c, err := o.start(ctx, fleet{pageservers: operatedPageservers})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	if _, err := create(ctx, c, creation{
		tenants: operatedTenants, shards: 4, clients: 32, policy: neon.Attached(1),
	}); err != nil {
		return nil, err
	}
	nodes := c.Client().Nodes()
	drains := &paced{name: "drain", under: neon.SchedulingDraining, begin: nodes.Drain}
	fills := &paced{name: "fill", under: neon.SchedulingFilling, begin: fillAgain(nodes)}
	deletions := &paced{name: "deletion", under: neon.SchedulingDeleting, begin: nodes.Delete}
	for range max(1, o.Runs) {
		for _, p := range []*paced{drains, fills} {
			if err := p.run(ctx, c); err != nil {
				return nil, err
			}
		}
	}
	if err := deletions.run(ctx, c); err != nil {
		return nil, err
	}
	drained, filled := drains.found(), fills.found()
	drained[0] = drained[0].Want(results.Median, operatedRate)
	filled[0] = filled[0].Want(results.Median, operatedRate)
	found = append(append(drained, filled...), deletions.found()...)
	return found, c.CheckAttachedExactlyOnce(ctx, 0)
}

// fillAgain begins a fill of what was drained before anything else brings shards back.
func fillAgain(n client.Nodes) func(context.Context, neon.NodeID, ...client.NodeOption) error {
	return func(ctx context.Context, id neon.NodeID, with ...client.NodeOption) error {
		active := neon.SchedulingActive
		if err := n.Configure(ctx, neon.NodeConfigure{ID: id, Scheduling: &active}); err != nil {
			return err
		}
		return n.Fill(ctx, id, with...)
	}
}

// paced is one kind of operation on a pageserver, and how fast it was in each run.
type paced struct {
	name  string
	under neon.NodeScheduling // while it runs
	begin func(context.Context, neon.NodeID, ...client.NodeOption) error

	rates []float64 // moves a second
	moves int
	ours  durations // of the processors a move, all controllers
	all   durations // and the pageservers, which this process is
}

// run has the pageserver operated once, beginning with nothing to do.
func (p *paced) run(ctx context.Context, c *testcluster.Cluster) error {
	if err := c.WaitQuiescent(ctx); err != nil {
		return err
	}
	before, began := c.Fleet().Attached()[operated], time.Now()
	ours, all, err := used(c)
	if err != nil {
		return err
	}
	if err := p.begin(ctx, operated); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	took, err := operationEnds(ctx, c, operated, p.under, began)
	if err != nil {
		return err
	}
	oursThen, allThen, err := used(c)
	if err != nil {
		return err
	}
	moves := c.Fleet().Attached()[operated] - before
	moves = max(moves, -moves)
	p.rates = append(p.rates, float64(moves)/took.Seconds())
	each := time.Duration(max(1, moves))
	p.moves += moves
	p.ours, p.all = append(p.ours, (oursThen-ours)/each), append(p.all, (allThen-all)/each)
	return nil
}

// used is what all controllers have used of the processors, and they and this process.
func used(c *testcluster.Cluster) (ours, all time.Duration, err error) {
	for i := range c.Controllers() {
		t, err := cpuTime(c.PID(i))
		if err != nil {
			return 0, 0, err
		}
		ours += t
	}
	t, err := cpuTime(os.Getpid())
	return ours, ours + t, err
}

// found is how fast it was and what a move cost.
func (p *paced) found() []results.Result {
	return []results.Result{
		rate(p.name+".rate", p.name+" of a pageserver", "moves/s", p.rates...).
			Noting("%d moves", p.moves),
		results.Durations(p.name+".cpu", "processor time a move, all controllers", p.ours),
		results.Durations(p.name+".cpu.all", "… with the pageservers", p.all),
	}
}

// operationEnds waits until a node has another scheduling policy than under, or is gone, and
// says how long that took.
func operationEnds(
	ctx context.Context, c *testcluster.Cluster, id neon.NodeID, under neon.NodeScheduling,
	began time.Time,
) (time.Duration, error) {
	for {
		n, err := c.Client().Nodes().Get(ctx, id)
		if err == nil && n.Scheduling != under || client.StatusOf(err) == http.StatusNotFound {
			return time.Since(began), nil
		}
		if err := wait.Sleep(ctx, pollPause); err != nil {
			return 0, fmt.Errorf("node %d stays %s: %w", id, under, err)
		}
	}
}
