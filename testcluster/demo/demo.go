// Package demo is the show behind `make run`: three controllers as real
// processes and a few pageservers lose a pageserver, then, in the middle of the
// evacuation, their leader, and finish the work. It measures what a client
// notices, and verifies the end through a follower.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"quorate/api/neon"
	"quorate/internal/wait"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

// Options are the settings of the show. Zero values mean the defaults.
type Options struct {
	Binary string    // of the storage_controller
	Out    io.Writer // gets the lines and the table
	Style  Style

	NeonBin     string // directory with pageserver and storage_broker; empty: simulated ones
	PostgresDir string // Postgres installations with initdb, for NeonBin

	// Dir is where a directory for data and logs is made, which is removed after a show
	// that went well; empty: that of temporary files.
	Dir string

	Tenants int // 200, or 12 with real pageservers
	Shards  int // shards of a tenant: 4, or 2

	// Timelines is how many tenants get a timeline: 20, or 4, since each costs an
	// initdb then; negative is none.
	Timelines int

	// Stay, if not nil, is waited for after the show, with everything running.
	Stay <-chan struct{}
}

// The members of the show.
const (
	controllers = 3
	pageservers = 6
	zones       = 3
	victim      = neon.NodeID(1) // the pageserver that is killed
)

// The controllers' settings about pageservers, in the show.
const (
	heartbeat  = 500 * time.Millisecond
	maxOffline = 3 * time.Second
)

// The simulated pageservers take their time, and the controllers do little at
// once, so that there is something to watch.
var slow = simpageserver.Behaviour{
	SlotBusy: 120 * time.Millisecond, Activation: 30 * time.Millisecond,
	ActivationJitter: 60 * time.Millisecond,
}

// stepTimeout bounds each step; one that takes longer has failed.
const stepTimeout = 3 * time.Minute

// show is the state of one run.
type show struct {
	opt     Options
	cluster *testcluster.Cluster
	servers servers
	screen  *screen
	probe   *probe
	figures figures
	killed  int // the controller that was killed, or -1

	origin                atomic.Pointer[map[neon.ShardID]neon.Generation] // what the victim held
	verdictAt, leaderDied time.Time
}

// figures are the measurements.
type figures struct {
	created               int
	creation              time.Duration
	moved                 int           // shards that had to move
	verdict               time.Duration // from the kill to the offline verdict
	killedAt              int           // shards moved when the leader was killed
	writeGap              time.Duration // longest pause between acknowledged writes around the kill
	newLeader             time.Duration // from the kill to the successor's first duty
	lastMoved             time.Duration // from the verdict to the last shard moved
	writes, writesUnknown int
}

// Run plays the show. Its error says what failed; a context that ended early is
// no failure once the show is over.
func Run(ctx context.Context, opt Options) (err error) {
	s := &show{opt: opt, killed: -1}
	s.fill()
	s.setOrigin(nil)
	if err := s.directory(); err != nil {
		return err
	}
	s.screen = newScreen(s.opt.Out, s.opt.Style)
	defer s.screen.close()
	defer func() { err = errors.Join(err, s.stop(err)) }()
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"start", s.start}, {"create tenants", s.create}, {"kill a pageserver", s.killPageserver},
		{"kill the leader", s.killLeader}, {"finish the evacuation", s.finish},
		{"verify", s.verify},
	}
	for _, step := range steps {
		ctx, cancel := context.WithTimeout(ctx, stepTimeout)
		err := step.run(ctx)
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	s.report()
	if s.opt.Stay == nil {
		return nil
	}
	return s.stay(ctx)
}

func (s *show) fill() {
	real := s.opt.NeonBin != ""
	set := func(v *int, simulated, realOnes int) {
		if *v == 0 {
			*v = simulated
			if real {
				*v = realOnes
			}
		}
	}
	set(&s.opt.Tenants, 200, 12)
	set(&s.opt.Shards, 4, 2)
	set(&s.opt.Timelines, 20, 4)
}

// directory makes the directory of this run. It is always one of its own: whatever else
// is where the user wants it stays.
func (s *show) directory() (err error) {
	if s.opt.Dir != "" {
		if s.opt.Dir, err = filepath.Abs(s.opt.Dir); err != nil {
			return err
		}
		if err := os.MkdirAll(s.opt.Dir, 0o755); err != nil {
			return err
		}
	}
	s.opt.Dir, err = os.MkdirTemp(s.opt.Dir, "quorate-run-")
	return err
}

func (s *show) start(ctx context.Context) error {
	s.screen.say("starting %d controllers (%s)", controllers, s.opt.Binary)
	b := testcluster.Builder{
		Mode: testcluster.Processes, Controllers: controllers, Pageservers: -1, Zones: zones,
		Binary: s.opt.Binary, Dir: s.opt.Dir, HeartbeatInterval: heartbeat, MaxOffline: maxOffline,
		Behaviour: slow, Args: []string{"--reconciler-concurrency", "8"},
	}
	var err error
	if s.cluster, err = b.Start(ctx); err != nil {
		return err
	}
	s.servers = &simulated{cluster: s.cluster}
	if s.opt.NeonBin != "" {
		theirs, err := newReal(s.opt, s.cluster)
		if err != nil {
			return err
		}
		s.servers = theirs
	}
	s.screen.say("starting %d %s in %d zones", pageservers, s.servers.kind(), zones)
	for i := range pageservers {
		if err := s.servers.start(ctx, neon.NodeID(i+1), testcluster.Zone(i%zones)); err != nil {
			return err
		}
	}
	s.screen.watch(s.status)
	return s.await(ctx, "all pageservers to be active", func(st *status) bool {
		active := 0
		for _, n := range st.nodes {
			if n.availability == neon.NodeActive {
				active++
			}
		}
		return active == pageservers
	})
}

// await looks at the status until it is as wanted.
func (s *show) await(ctx context.Context, what string, wanted func(*status) bool) error {
	for {
		st, err := s.status(ctx)
		if err == nil && wanted(st) {
			return nil
		}
		if ended := wait.Sleep(ctx, 20*time.Millisecond); ended != nil {
			return errors.Join(fmt.Errorf("wait for %s: %w", what, ended), err)
		}
	}
}

func (s *show) stop(failure error) error {
	if s.probe != nil {
		s.probe.stop()
	}
	var errs []error
	s.screen.close()
	if s.cluster != nil {
		if failure != nil {
			s.cluster.Dump(s.opt.Out)
		}
		if s.servers != nil {
			errs = append(errs, s.servers.close())
		}
		errs = append(errs, s.cluster.Stop())
	}
	if failure != nil {
		fmt.Fprintf(s.opt.Out, "data and logs are kept in %s\n", s.opt.Dir)
	} else {
		errs = append(errs, os.RemoveAll(s.opt.Dir))
	}
	return errors.Join(errs...)
}
