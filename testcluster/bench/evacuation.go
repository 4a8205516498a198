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
	"quorate/testcluster"
)

// The targets of an evacuation.
const (
	committedShards = 10000
	committedLimit  = time.Second // of committedShards
	attachRate      = 2000        // shards a second
	killDelay       = time.Second // what a killed leader may add
)

// dying is the pageserver that all shards are on and that is killed.
const dying neon.NodeID = 1

// evacuated is what one evacuation took, from the verdict.
type evacuated struct {
	committed time.Duration // until all intents and generations were committed
	attached  time.Duration // until the last shard was attached elsewhere
	total     time.Duration // the same from the death of the pageserver
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
func (o *Options) evacuations(
	ctx context.Context, e evacuation, runs int,
) (list []evacuated, err error) {
	for n := range runs {
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

func (o *Options) evacuate(ctx context.Context, e evacuation) (r evacuated, err error) {
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
	if err := watchMove(ctx, c, e); err != nil {
		return r, err
	}
	done := time.Now()
	verdict, committed, err := readLogs(c, e.shards)
	if err != nil {
		return r, err
	}
	r.total, r.attached, r.committed = done.Sub(began), done.Sub(verdict), committed.Sub(verdict)
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
// on the way when that is wanted.
func watchMove(ctx context.Context, c *testcluster.Cluster, e evacuation) error {
	moved := func() (n int) {
		for _, on := range c.Fleet().Attached() {
			n += on
		}
		return n
	}
	if e.killLeader {
		if err := await(ctx, "some have moved",
			func() bool { return moved() >= e.killAfter }); err != nil {
			return err
		}
		leader, ok := c.Leader(ctx)
		if !ok {
			return errors.New("there is no leader in the middle of the evacuation")
		}
		if err := c.Kill(leader); err != nil {
			return err
		}
	}
	return await(ctx, "all shards have moved", func() bool { return moved() >= e.shards })
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

// judge compares evacuations with and without the death of the leader.
func judge(shards int, plain, killed []evacuated) []figure {
	pick := func(list []evacuated, f func(evacuated) time.Duration) (d durations) {
		for _, r := range list {
			d = append(d, f(r))
		}
		return d
	}
	label := fmt.Sprintf("evacuation of %d shards: ", shards)
	attached := func(r evacuated) time.Duration { return r.attached }
	committed := pick(plain, func(r evacuated) time.Duration { return r.committed })
	usual := pick(plain, attached)
	rate := float64(shards) / usual.median().Seconds()
	first, second := spread(label+"verdict → all committed",
		committed), spread(label+"verdict → all attached elsewhere", usual)
	second = second.noting("median %.0f shards/s", rate)
	if shards >= committedShards {
		first = first.want("≤ "+committedLimit.String(), committed.quantile(1) <= committedLimit)
		second = second.want(fmt.Sprintf("≥ %d shards/s", attachRate), rate >= attachRate)
	}
	figures := []figure{first, second}
	if len(killed) > 0 {
		late := pick(killed, func(r evacuated) time.Duration { return r.attached - usual.median() })
		figures = append(figures,
			spread(label+"with the leader killed, verdict → all attached", pick(killed, attached)),
			spread(label+"what the kill added to the median without", late).
				want("≤ "+killDelay.String(), late.quantile(1) <= killDelay))
	}
	return figures
}
