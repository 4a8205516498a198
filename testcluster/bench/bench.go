package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// BenchOptions say what Run measures.
type BenchOptions struct {
	Options

	Only        []string      // the parts to measure; empty means all of Parts
	Runs        int           // evacuations of each kind
	Shards      int           // of the restart, memory and idle measurements
	Pageservers int           // of the same
	Restarts    int           // of all controllers
	Controllers int           // of the small clusters; 0: three, then one
	Idle        time.Duration // how long idling is watched
	Reads       time.Duration // how long each measurement of locates lasts
}

// part is one group of figures.
type part struct {
	name, title string
	run         func(context.Context, *BenchOptions) ([]figure, error)
}

func parts() []part {
	return []part{
		{"throughput", "Requests", func(ctx context.Context, o *BenchOptions) ([]figure, error) {
			return o.throughput(ctx, *o)
		}},
		{"reads", "Reads and the largest answers", readCosts},
		{"heartbeat", "Heartbeats", func(ctx context.Context, o *BenchOptions) ([]figure, error) {
			return o.heartbeats(ctx, *o)
		}},
		{"evacuation-1000", "Evacuation of 1,000 shards", evacuationPart(1000)},
		{"evacuation-10000", "Evacuation of 10,000 shards", evacuationPart(10000)},
		{"operations", "Drain and fill", operationsPart},
		{"hanging", "Beside pageservers that hang", besideHangingPart},
		{"quiet", "Idling and restarts of a small cluster", quietPart},
		{"scale", "Restart, memory and idling",
			func(ctx context.Context, o *BenchOptions) ([]figure, error) {
				return o.scale(ctx, o.Shards, *o)
			}},
	}
}

func evacuationPart(shards int) func(context.Context, *BenchOptions) ([]figure, error) {
	return func(ctx context.Context, o *BenchOptions) ([]figure, error) {
		e := evacuation{shards: shards, pageservers: 6}
		plain, err := o.evacuations(ctx, e, o.Runs)
		if err != nil {
			return nil, err
		}
		e.killLeader = true
		killed, err := o.evacuations(ctx, e, o.Runs)
		if err != nil {
			return nil, err
		}
		return judge(shards, plain, killed), nil
	}
}

// Parts are the names that BenchOptions.Only may hold.
func Parts() (names []string) {
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return names
}

// Run measures and prints. It returns ErrMissed when everything was measured and
// a target was missed.
func Run(ctx context.Context, o BenchOptions) error {
	for _, name := range o.Only {
		if !slices.Contains(Parts(), name) {
			return fmt.Errorf("there is no part %q, only %s", name, strings.Join(Parts(), ", "))
		}
	}
	missed := 0
	for _, p := range parts() {
		if len(o.Only) > 0 && !slices.Contains(o.Only, p.name) {
			continue
		}
		o.say("%s: %s", p.name, machine())
		figures, err := p.run(ctx, &o)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		missed += report(o.Out, p.title, figures)
	}
	if missed > 0 {
		return ErrMissed
	}
	return nil
}
