package testcluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"quorate/api/neon"
	"quorate/cluster"
	"quorate/testcluster/simpageserver"
	"quorate/testcluster/simsafekeeper"
)

// Cluster is a running cluster. Controllers are numbered from 0.
type Cluster struct {
	builder   Builder
	log       *slog.Logger
	dir       string
	removeDir bool
	memory    *cluster.MemoryNetwork // Virtual only
	keys      *keys                  // nil without Auth
	transport *http.Transport        // of the clients
	replicas  []replica
	urls      []string
	fleet     *simpageserver.Fleet
	watch     *simpageserver.Oracle
	ledger    *Ledger
	keepers   *simsafekeeper.Fleet
	wires     *wires // Processes with Builder.Wires only

	hook       *simpageserver.Hook
	hookServer *http.Server
	hookURL    string
	hookDone   sync.WaitGroup

	mu         sync.Mutex
	transports []*http.Transport // of the pageservers
}

// replica is one controller, whatever runs it.
type replica interface {
	start(ctx context.Context) error
	kill() error                    // as kill -9 does; nothing of it runs afterwards
	stop(ctx context.Context) error // as SIGTERM does
	pause() error
	resume() error
	hangDisk() error
	healDisk() error
	fillDisk() error
	block(addresses ...string) error      // other controllers
	blockNodes(addresses ...string) error // pageservers
	leads(ctx context.Context) bool
	running() bool
	raftAddr() string
	logs() []byte // the end of its log
}

// poll is how often conditions are looked at.
const poll = 5 * time.Millisecond

// until waits for a condition; what names it in the error.
func until(ctx context.Context, what string, condition func() bool) error {
	for !condition() {
		select {
		case <-time.After(poll):
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		}
	}
	return nil
}

// Controllers is how many there are, running or not.
func (c *Cluster) Controllers() int { return len(c.replicas) }

// URL is the base URL of a controller's API.
func (c *Cluster) URL(i int) string { return c.urls[i] }

// Running tells whether a controller was started and neither killed nor stopped.
func (c *Cluster) Running(i int) bool { return c.replicas[i].running() }

// Leader finds the controller that leads now.
func (c *Cluster) Leader(ctx context.Context) (i int, ok bool) {
	for i, r := range c.replicas {
		if r.running() && r.leads(ctx) {
			return i, true
		}
	}
	return -1, false
}

// WaitLeader waits for a leader that has looked around.
func (c *Cluster) WaitLeader(ctx context.Context) (i int, err error) {
	err = until(ctx, "wait for a leader", func() bool {
		var ok bool
		if i, ok = c.Leader(ctx); !ok {
			return false
		}
		return c.ClientOf(i).Ready(ctx) == nil
	})
	return i, err
}

// Follower is a running controller that does not lead now.
func (c *Cluster) Follower(ctx context.Context) (i int, err error) {
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
func (c *Cluster) Kill(i int) error {
	c.log.Info("killing a controller", "controller", i)
	return c.replicas[i].kill()
}

// KillLeader kills the controller that leads, and returns its number.
func (c *Cluster) KillLeader(ctx context.Context) (int, error) {
	i, err := c.WaitLeader(ctx)
	if err != nil {
		return i, err
	}
	return i, c.Kill(i)
}

// StopController ends a controller in order, as SIGTERM does.
func (c *Cluster) StopController(ctx context.Context, i int) error {
	c.log.Info("stopping a controller", "controller", i)
	return c.replicas[i].stop(ctx)
}

// Restart starts a controller that was killed or stopped, on its disk.
func (c *Cluster) Restart(ctx context.Context, i int) error {
	c.log.Info("starting a controller", "controller", i)
	return c.replicas[i].start(ctx)
}

// Pause freezes a controller: as a process by SIGSTOP, otherwise by holding
// back all that it sends and receives.
func (c *Cluster) Pause(i int) error { return c.replicas[i].pause() }

// Resume ends Pause.
func (c *Cluster) Resume(i int) error { return c.replicas[i].resume() }

// HangDisk makes all writes of a controller's log wait.
func (c *Cluster) HangDisk(i int) error { return c.replicas[i].hangDisk() }

// FillDisk makes all writes of a controller's log fail as those to a full disk do.
func (c *Cluster) FillDisk(i int) error { return c.replicas[i].fillDisk() }

// HealDisk ends HangDisk and FillDisk.
func (c *Cluster) HealDisk(i int) error { return c.replicas[i].healDisk() }

// StepDown makes the leader hand leadership over, and returns who led.
func (c *Cluster) StepDown(ctx context.Context) (int, error) {
	i, err := c.WaitLeader(ctx)
	if err != nil {
		return i, err
	}
	return i, c.ClientOf(i).StepDown(ctx)
}

// Partition divides the controllers into groups that do not hear each other; a
// controller in no group hears nobody. Pageservers and clients still reach all.
func (c *Cluster) Partition(groups ...[]int) error {
	side := make(map[int]int)
	for n, g := range groups {
		for _, i := range g {
			side[i] = n + 1
		}
	}
	for i, r := range c.replicas {
		var blocked []string
		for j := range c.replicas {
			if i != j && (side[i] == 0 || side[i] != side[j]) {
				blocked = append(blocked, c.replicas[j].raftAddr(), hostOf(c.urls[j]))
			}
		}
		if err := r.block(blocked...); err != nil {
			return err
		}
	}
	return nil
}

// Heal ends Partition.
func (c *Cluster) Heal() error {
	for _, r := range c.replicas {
		if err := r.block(); err != nil {
			return err
		}
	}
	return nil
}

// Client talks to any controller: what one cannot answer is asked of the next,
// until the context ends.
func (c *Cluster) Client() *Client { return c.client(c.urls...) }

// ClientOf talks to one controller.
func (c *Cluster) ClientOf(i int) *Client { return c.client(c.urls[i]) }

func (c *Cluster) client(urls ...string) *Client {
	client := NewClient(c.transport, c.Token("admin"), urls...)
	client.ledger = c.ledger
	return client
}

// Ledger is what this cluster's clients got acknowledged.
func (c *Cluster) Ledger() *Ledger { return c.ledger }

// Fleet are the simulated pageservers.
func (c *Cluster) Fleet() *simpageserver.Fleet { return c.fleet }

// Oracle watches the pageservers.
func (c *Cluster) Oracle() *simpageserver.Oracle { return c.fleet.Oracle() }

// Hook is the simulated control plane; nil without Builder.Hook.
func (c *Cluster) Hook() *simpageserver.Hook { return c.hook }

// KillPageserver ends a pageserver as kill -9 does.
func (c *Cluster) KillPageserver(id neon.NodeID) { c.fleet.Node(id).Kill() }

// Dir is where data and logs are kept; empty in Virtual.
func (c *Cluster) Dir() string { return c.dir }

// Stop ends everything and waits for it. Stopping twice is harmless.
func (c *Cluster) Stop() error {
	var errs []error
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for i := range c.replicas {
		c.replicas[i].block()
		if c.replicas[i].running() {
			if err := c.replicas[i].kill(); err != nil {
				errs = append(errs, fmt.Errorf("stop controller %d: %w", i, err))
			}
		}
	}
	if c.wires != nil {
		c.wires.close()
	}
	if c.fleet != nil {
		c.fleet.Close()
	}
	if c.keepers != nil {
		c.keepers.Close()
	}
	if c.hook != nil {
		_ = c.hookServer.Shutdown(ctx)
		c.hook.Close()
		c.hookDone.Wait()
	}
	c.mu.Lock()
	for _, t := range c.transports {
		t.CloseIdleConnections()
	}
	c.mu.Unlock()
	if c.removeDir {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}

// newTransport makes an HTTP transport whose connections come from a host.
func (c *Cluster) newTransport(host string) *http.Transport {
	t := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	if c.memory != nil {
		from := c.memory.Host(host)
		t.DialContext = func(
			ctx context.Context, _, addr string,
		) (net.Conn, error) {
			return from.Dial(ctx, addr)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.transports = append(c.transports, t)
	return t
}
