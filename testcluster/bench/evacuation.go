package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"quorate/api/neon"
	"quorate/internal/results"
	"quorate/testcluster"
)

// The targets of an evacuation.
const (
	committedShards = 10000
	committedLimit  = time.Second // of committedShards
	attachRate      = 9000        // shards a second
	killDelay       = time.Second // what a killed leader may add
	killRest        = 300 * time.Millisecond
)

// dying is the pageserver that all shards are on and that is killed.
const dying neon.NodeID = 1

// evacuated is what one evacuation took, from the verdict.
type evacuated struct {
	committed time.Duration // until all intents and generations were committed
	attached  time.Duration // until the last shard was attached elsewhere
	total     time.Duration // the same from the death of the pageserver
	rest      time.Duration // the same from the death of the leader, where it was killed
	created   float64       // shards a second while the tenants were created
}

// evacuation describes one run.
type evacuation struct {
	shards      int
	pageservers int
	killLeader  bool
	killAfter   int // shards moved
}

// evacuations repeats an evacuation, each in a new cluster.
func (o *BenchOptions) evacuations(
	ctx context.Context, e evacuation, runs int,
) (list []evacuated, err error) {
	for n := range max(1, runs) {
		e.killAfter = e.shards * (1 + n*4%9) / 10 // every tenth once, in no order
		r, err := o.evacuate(ctx, e)
		if err != nil {
			return nil, fmt.Errorf("evacuation of %d shards, run %d: %w", e.shards, n+1, err)
		}
		o.say("  %6d shards, leader killed: %-5v  committed %8s  attached %8s  (%.0f shards/s)  from the death %s",
			e.shards, e.killLeader, short(r.committed), short(r.attached),
			float64(e.shards)/r.attached.Seconds(), short(r.total))
		list = append(list, r)
	}
	return list, nil
}

func (o *BenchOptions) evacuate(ctx context.Context, e evacuation) (r evacuated, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	c, err := o.start(ctx, fleet{pageservers: e.pageservers})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	if r.created, err = crowd(ctx, c, e); err != nil {
		return r, err
	}
	if _, err := caughtUp(ctx, c); err != nil {
		return r, err
	}
	began := time.Now()
	c.KillPageserver(dying)
	killed, err := watchMove(ctx, c, e)
	if err != nil {
		return r, err
	}
	done := time.Now()
	verdict, committed, err := readLogs(c, e.shards)
	if err != nil {
		return r, err
	}
	r.total, r.attached, r.committed = done.Sub(began), done.Sub(verdict), committed.Sub(verdict)
	r.rest = done.Sub(killed)
	if err := c.WaitQuiescent(ctx); err != nil {
		return r, err
	}
	if e.killLeader {
		return r, c.CheckAttachedExactlyOnce(ctx, followerOf(ctx, c))
	}
	return r, c.CheckAttachedExactlyOnce(ctx, 0)
}

// followerOf is a replica that runs.
func followerOf(ctx context.Context, c *testcluster.Cluster) int {
	i, err := c.Follower(ctx)
	if err != nil {
		return 0
	}
	return i
}

// crowd creates all shards on one pageserver.
func crowd(
	ctx context.Context, c *testcluster.Cluster, e evacuation,
) (perSecond float64, err error) {
	others := func(s neon.NodeScheduling) error {
		for _, n := range c.Fleet().Nodes() {
			if n.ID() == dying {
				continue
			}
			if err := c.Client().Nodes().Configure(ctx,
				neon.NodeConfigure{ID: n.ID(), Scheduling: &s}); err != nil {
				return err
			}
		}
		return nil
	}
	if err := others(neon.SchedulingPause); err != nil {
		return 0, err
	}
	const shards = 8
	took, err := create(ctx, c,
		creation{tenants: e.shards / shards, shards: shards, clients: 32, policy: neon.Attached(0)})
	if err != nil {
		return 0, err
	}
	if err := c.WaitQuiescent(ctx); err != nil {
		return 0, err
	}
	if have := c.Fleet().Attached()[dying]; have != e.shards {
		return 0, fmt.Errorf("%d of %d shards are on node %s", have, e.shards, dying)
	}
	// From here on shards begin to move to better places.
	if err := others(neon.SchedulingActive); err != nil {
		return 0, err
	}
	return float64(e.shards) / took.Seconds(), nil
}

// watchMove waits until all shards are attached elsewhere, and kills the leader
// on the way when that is wanted; killed is when.
func watchMove(
	ctx context.Context, c *testcluster.Cluster, e evacuation,
) (killed time.Time, err error) {
	moved := func() (n int) {
		for _, on := range c.Fleet().Attached() {
			n += on
		}
		return n
	}
	if e.killLeader {
		if err := await(ctx, "some have moved",
			func() bool { return moved() >= e.killAfter }); err != nil {
			return killed, err
		}
		leader, ok := c.Leader(ctx)
		if !ok {
			return killed, errors.New("there is no leader in the middle of the evacuation")
		}
		killed = time.Now()
		if err := c.Kill(leader); err != nil {
			return killed, err
		}
	}
	return killed, await(ctx, "all shards have moved", func() bool { return moved() >= e.shards })
}

// readLogs finds in the controllers' logs when the pageserver was judged offline
// and when the last intents of its shards were committed. Asking for it while it
// happens would change it.
func readLogs(c *testcluster.Cluster, shards int) (verdict, committed time.Time, err error) {
	covered := 0
	for i := range c.Controllers() {
		f, err := os.Open(logFile(c, i))
		if err != nil {
			return verdict, committed, err
		}
		for in := bufio.NewScanner(f); in.Scan(); {
			line := in.Text()
			at, err := time.Parse("2006-01-02T15:04:05.000000Z", strings.SplitN(line, " ", 2)[0])
			if err != nil {
				continue
			}
			if strings.Contains(line, "node "+dying.String()+" going offline") &&
				(verdict.IsZero() || at.Before(verdict)) {
				verdict = at
			}
			if n, ok := batch(line); ok {
				covered += n
				if at.After(committed) {
					committed = at
				}
			}
		}
		_ = f.Close()
	}
	if verdict.IsZero() || covered < shards/2 {
		return verdict, committed, fmt.Errorf("the logs tell of %d of %d shards, verdict at %v",
			covered, shards, verdict)
	}
	return verdict, committed, nil
}

// batch is the number of shards in a line about one entry of an evacuation.
func batch(line string) (n int, ok bool) {
	_, rest, ok := strings.Cut(line, " evacuating ")
	if !ok {
		return 0, false
	}
	_, rest, ok = strings.Cut(rest, "shards=")
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	return n, err == nil
}

// evacuationOf measures evacuations with and without the death of the leader. A cluster of one
// has no other leader.
func evacuationOf(ctx context.Context, o *BenchOptions, shards int) ([]results.Result, error) {
	e := evacuation{shards: shards, pageservers: 6}
	plain, err := o.evacuations(ctx, e, o.Runs)
	if err != nil {
		return nil, err
	}
	var killed []evacuated
	if o.members != 1 {
		e.killLeader = true
		if killed, err = o.evacuations(ctx, e, o.Runs); err != nil {
			return nil, err
		}
	}
	return judge(shards, plain, killed), nil
}

// judge compares evacuations with and without the death of the leader.
func judge(shards int, plain, killed []evacuated) []results.Result {
	pick := func(list []evacuated, f func(evacuated) time.Duration) (d durations) {
		for _, r := range list {
			d = append(d, f(r))
		}
		return d
	}
	attached := func(r evacuated) time.Duration { return r.attached }
	usual := pick(plain, attached)
	var rates []float64
	for _, d := range usual {
		rates = append(rates, float64(shards)/d.Seconds())
	}
	found := []results.Result{
		results.Durations("evacuation.committed", "verdict → all committed",
			pick(plain, func(r evacuated) time.Duration { return r.committed })),
		results.Durations("evacuation.attached", "verdict → all attached elsewhere", usual),
		rate("evacuation.rate", "the same, shards a second", "shards/s", rates...),
	}
	if shards >= committedShards {
		found[0] = found[0].WantWithin(results.Max, committedLimit)
	}
	found[2] = found[2].Want(results.Median, attachRate)
	if len(killed) > 0 {
		late := pick(killed, func(r evacuated) time.Duration { return r.attached - usual.median() })
		found = append(found,
			results.Durations("evacuation.killed.attached",
				"with the leader killed, verdict → all attached", pick(killed, attached)),
			results.Durations("evacuation.killed.late",
				"what the kill added to the median without", late).
				WantWithin(results.Max, killDelay),
			results.Durations("evacuation.killed.rest", "from the kill to the last shard",
				pick(killed, func(r evacuated) time.Duration { return r.rest })).
				WantWithin(results.Median, killRest))
	}
	for i := range found {
		found[i] = found[i].With("shards", strconv.Itoa(shards))
	}
	return found
}
