package testcluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"quorate/fsm"
	"quorate/internal/wait"
)

// replica is one controller, whatever runs it.
type replica interface {
	runner
	witness
	program
	faulty
}

// runner starts and ends a controller.
type runner interface {
	start(ctx context.Context) error
	kill() error                    // as kill -9 does; nothing of it runs afterwards
	stop(ctx context.Context) error // as SIGTERM does
	running() bool
}

// witness says what a controller does.
type witness interface {
	leads(ctx context.Context) bool
	logs() []byte // the end of its log
	state(ctx context.Context) (*fsm.State, error)
}

// program is what a controller is made of.
type program interface {
	install(binary string) error
	reflag(edit func(args []string) []string) error
	pid() int // 0: none of its own
	dataDir() string
}

// controllers are the controllers of a cluster, numbered from 0.
type controllers struct {
	replicas []replica
	first    int // so many are members from the beginning
	clients  *clients
	log      *slog.Logger
}

// poll is how often conditions are looked at.
const poll = 5 * time.Millisecond

// until waits for a condition; what names it in the error.
func until(ctx context.Context, what string, condition func() bool) error {
	for !condition() {
		if err := wait.Sleep(ctx, poll); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

// Controllers is how many there are, running or not.
func (c *controllers) Controllers() int { return len(c.replicas) }

// Running reports whether a controller was started and neither killed nor stopped.
func (c *controllers) Running(i int) bool { return c.replicas[i].running() }

// Leader finds the controller that leads now.
func (c *controllers) Leader(ctx context.Context) (i int, ok bool) {
	for i, r := range c.replicas {
		if r.running() && r.leads(ctx) {
			return i, true
		}
	}
	return -1, false
}

// WaitLeader waits for a leader that has finished starting.
func (c *controllers) WaitLeader(ctx context.Context) (i int, err error) {
	err = until(ctx, "wait for a leader", func() bool {
		var ok bool
		if i, ok = c.Leader(ctx); !ok {
			return false
		}
		return c.clients.ClientOf(i).Cluster().Ready(ctx) == nil
	})
	return i, err
}

// Follower is a running controller that does not lead now.
func (c *controllers) Follower(ctx context.Context) (i int, err error) {
	err = until(ctx, "wait for a follower", func() bool {
		leader, ok := c.Leader(ctx)
		for i = range c.replicas {
			if ok && i != leader && c.replicas[i].running() {
				return true
			}
		}
		return false
	})
	return i, err
}

// Kill ends a controller as kill -9 does.
func (c *controllers) Kill(i int) error {
	c.log.Info("killing a controller", "controller", i)
	return c.replicas[i].kill()
}

// KillLeader kills the controller that leads, and returns its number.
func (c *controllers) KillLeader(ctx context.Context) (int, error) {
	i, err := c.WaitLeader(ctx)
	if err != nil {
		return i, err
	}
	return i, c.Kill(i)
}

// StopController ends a controller in order, as SIGTERM does.
func (c *controllers) StopController(ctx context.Context, i int) error {
	c.log.Info("stopping a controller", "controller", i)
	return c.replicas[i].stop(ctx)
}

// Restart starts a controller that was killed or stopped, on its disk.
func (c *controllers) Restart(ctx context.Context, i int) error {
	c.log.Info("starting a controller", "controller", i)
	return c.replicas[i].start(ctx)
}

// StepDown makes the leader hand leadership over, and returns who led.
func (c *controllers) StepDown(ctx context.Context) (int, error) {
	i, err := c.WaitLeader(ctx)
	if err != nil {
		return i, err
	}
	return i, c.clients.ClientOf(i).Cluster().StepDown(ctx)
}

// State is the replicated state of a controller that runs in this process, with all
// that was acknowledged before the call.
func (c *controllers) State(ctx context.Context, i int) (*fsm.State, error) {
	s, err := c.replicas[i].state(ctx)
	if err != nil {
		return nil, fmt.Errorf("state of controller %d: %w", i, err)
	}
	return s, nil
}

// Install makes a controller run another binary from its next start on.
func (c *controllers) Install(i int, binary string) error {
	if err := c.replicas[i].install(binary); err != nil {
		return fmt.Errorf("install %s: %w", binary, err)
	}
	return nil
}

// Reflag gives a controller other arguments from its next start on. edit gets a copy of
// those that it has. Only Processes have any.
func (c *controllers) Reflag(i int, edit func(args []string) []string) error {
	if err := c.replicas[i].reflag(edit); err != nil {
		return fmt.Errorf("arguments of controller %d: %w", i, err)
	}
	return nil
}

// DataDir is where a controller keeps its log; empty in Virtual.
func (c *controllers) DataDir(i int) string { return c.replicas[i].dataDir() }

// PID is the process of a controller that runs. It is 0 when the controller does not
// run, or has no process of its own.
func (c *controllers) PID(i int) int { return c.replicas[i].pid() }

// start starts the first controllers and waits for a leader.
func (c *controllers) start(ctx context.Context) error {
	for i, r := range c.replicas[:c.first] {
		if err := r.start(ctx); err != nil {
			return fmt.Errorf("start controller %d: %w", i, err)
		}
	}
	_, err := c.WaitLeader(ctx)
	return err
}

// stop ends all controllers, whatever holds them.
func (c *controllers) stop() error {
	var errs []error
	for i, r := range c.replicas {
		errs = append(errs, r.block())
		if r.running() {
			if err := r.kill(); err != nil {
				errs = append(errs, fmt.Errorf("stop controller %d: %w", i, err))
			}
		}
	}
	return errors.Join(errs...)
}
