package bench

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"quorate/internal/results"
)

// BenchOptions say what Run measures.
type BenchOptions struct {
	Options
	Report

	Only        []string      // the parts to measure; empty means all
	Members     []int         // how many controllers a cluster has; each measured by itself
	Tenants     int           // of the crowd
	Runs        int           // how often most parts are repeated
	Shards      int           // of the restart, memory and idle measurements
	Sizes       []int         // shards of the clusters in which the cost of a change is measured
	Pageservers int           // of both
	Restarts    int           // of controllers
	Kills       int           // of leaders under load
	Idle        time.Duration // how long idling is watched
	Reads       time.Duration // how long each measurement of reads lasts

	round int // of the part, from 0
}

// Report is about what is made of what was measured.
type Report struct {
	Platform string // where it was measured
	Revision string // the commit of the controller, when its binary does not say
	Command  string
	Settings map[string]string

	Against string // another controller, measured in turn with the one asked about; empty: none
	Rounds  int    // of both

	// Suite, when set, is called with each part that has been measured.
	Suite func(results.Suite)
}

// part is one group of results.
type part struct {
	name, title string
	alone       bool // makes sense with one controller too
	drawn       bool // has pictures and no results
	repeated    bool // Runs times, each in a cluster of its own; others repeat by themselves
	run         func(context.Context, *BenchOptions) ([]results.Result, error)
}

func parts() []part {
	return []part{
		{name: "requests", title: "Requests, tenants of 4 shards on 10 pageservers",
			alone: true, repeated: true, run: requests},
		{name: "heartbeat", title: "Heartbeats", run: heartbeats},
		{name: "evacuation-1000", title: "Evacuation of 1,000 shards", alone: true,
			run: evacuationPart(1000)},
		{name: "evacuation-10000", title: "Evacuation of 10,000 shards",
			run: evacuationPart(10000)},
		{name: "operations", title: "Drain and fill", alone: true, run: operations},
		{name: "hanging", title: "Beside pageservers that hang", run: besideHanging},
		{name: "restart", title: "Restarts, tenants of 4 shards", alone: true,
			run: leaderRestarts},
		{name: "gap", title: "Writes around kill -9", alone: true, run: killGaps},
		{name: "idle", title: "Idling, tenants of 4 shards", alone: true,
			run: idling},
		{name: "scale", title: "Restart, memory and idling of many shards",
			run: scale},
		{name: "size", title: "The cost of a change over the number of shards",
			run: costs},
		{name: "profile", title: "Where the time goes", drawn: true,
			run: profiles},
	}
}

func evacuationPart(shards int) func(context.Context, *BenchOptions) ([]results.Result, error) {
	return func(ctx context.Context, o *BenchOptions) ([]results.Result, error) {
		return evacuationOf(ctx, o, shards)
	}
}

// Parts are the names that BenchOptions.Only may hold.
func Parts() (names []string) {
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return names
}

// Run measures. It returns what was measured also with an error, up to there.
func Run(ctx context.Context, o BenchOptions) (*results.Run, error) {
	run := o.begin(&o.Options)
	for _, name := range o.Only {
		if !slices.Contains(Parts(), name) {
			return run, fmt.Errorf("there is no part %q, only %s", name,
				strings.Join(Parts(), ", "))
		}
	}
	for _, p := range parts() {
		if len(o.Only) > 0 && !slices.Contains(o.Only, p.name) || p.drawn && o.Against != "" {
			continue
		}
		err := o.suite(ctx, &o.Options, run, p.name, p.title,
			func(ctx context.Context, binary string) ([]results.Result, error) {
				return o.measure(ctx, p, binary)
			})
		if err != nil {
			return run, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return run, nil
}

// ownGoals are the results for which one controller alone has a goal. The other goals are those
// of three.
var ownGoals = []string{"gap.kill", "idle.all", "lost"}

// measure measures one part with one binary, with each number of members that makes sense.
func (o *BenchOptions) measure(
	ctx context.Context, p part, binary string,
) (found []results.Result, err error) {
	for _, members := range o.Members {
		if members == 1 && !p.alone {
			continue
		}
		one, rounds := *o, 1
		one.Controller, one.members = binary, members
		if p.repeated && o.Against == "" {
			rounds = max(1, o.Runs)
		}
		if o.Against != "" {
			one.Runs = 1 // the two are repeated in turn
		}
		var all [][]results.Result
		for one.round = range rounds {
			o.say("%s, %d members, %d of %d", p.name, members, one.round+1, rounds)
			round, err := p.run(ctx, &one)
			if err != nil {
				return found, err
			}
			all = append(all, round)
		}
		for _, r := range results.Pool(all...) {
			if members == 1 && !slices.Contains(ownGoals, r.Name) {
				r.Goals = nil
			}
			found = append(found, r.With("members", strconv.Itoa(members)))
		}
	}
	return found, nil
}

// begin makes the run that everything measured becomes a part of.
func (r *Report) begin(o *Options) *results.Run {
	run := results.Begin(o.Controller, r.Platform, r.Command)
	if run.Settings = r.Settings; run.Revision == results.Unknown && r.Revision != "" {
		run.Revision = r.Revision
	}
	if r.Against != "" {
		run.Against, _ = results.Commit(r.Against)
	}
	o.recorded = run
	return run
}

// suite measures one part, of two binaries in turn if that is asked for, while the machine is
// watched, and adds it to the run.
func (r *Report) suite(
	ctx context.Context, o *Options, run *results.Run, name, title string,
	measure func(ctx context.Context, binary string) ([]results.Result, error),
) error {
	began, watch := time.Now(), results.WatchMachine(ctx, o.Dir)
	var found []results.Result
	var err error
	if r.Against == "" {
		found, err = measure(ctx, o.Controller)
	} else {
		found, err = r.inTurn(ctx, o, run, measure)
	}
	s := results.Suite{
		Name: name, Title: title, Took: time.Since(began).Seconds(), Noise: watch.End(),
		Data: found,
	}
	if len(found) > 0 {
		run.Suites = append(run.Suites, s)
		if r.Suite != nil {
			r.Suite(s)
		}
	}
	return err
}

// inTurn measures two binaries in turn. What it returns is of the first, and the ratios.
func (r *Report) inTurn(
	ctx context.Context, o *Options, run *results.Run,
	measure func(ctx context.Context, binary string) ([]results.Result, error),
) ([]results.Result, error) {
	binaries := map[results.Measured]string{results.This: o.Controller, results.Other: r.Against}
	this, other, err := results.InTurn(ctx, max(1, r.Rounds),
		func(ctx context.Context, who results.Measured) ([]results.Result, error) {
			o.say("measuring %s", binaries[who])
			return measure(ctx, binaries[who])
		})
	against := run.Against[:min(10, len(run.Against))]
	return append(results.Pool(this...), results.Ratios(this, other, against)...), err
}
