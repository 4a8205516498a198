package testcluster

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync/atomic"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/testcluster/simpageserver"
)

// Cluster is a running cluster. Its parts give it most of its methods: the
// controllers, numbered from 0, what can be done to them, the clients that talk to
// them, the simulated servers that they control, and the keys of all.
type Cluster struct {
	*controllers
	*faults
	*clients
	*pageservers
	*safekeepers
	*controlPlane
	*keys // nil without Auth

	builder   Builder
	log       *slog.Logger
	dir       string
	removeDir bool
	network   *network
	wires     *wires // Processes with Builder.Wires only

	newest atomic.Pointer[fsm.State] // that entries of the log lead to; not with Processes
}

// newCluster makes the parts that a builder describes. Nothing runs yet.
func newCluster(b Builder) (_ *Cluster, err error) {
	c := &Cluster{
		builder: b, log: b.Logger, network: newNetwork(b.Mode), controlPlane: &controlPlane{},
	}
	if b.Auth {
		if c.keys, err = newKeys(); err != nil {
			return nil, err
		}
	}
	var options simpageserver.OracleOptions
	if b.Mode != Processes {
		options.Serves = c.serves
	}
	oracle := simpageserver.NewOracle(options)
	c.pageservers = newPageservers(&b, oracle, c.network, c.keys)
	c.safekeepers = newSafekeepers(b.Safekeepers, c.network, c.Token("safekeeperdata"))
	c.clients = &clients{
		transport: c.network.transport("client"), token: c.Token("admin"), ledger: NewLedger(),
	}
	c.controllers = &controllers{clients: c.clients, log: b.Logger}
	c.faults = &faults{addrOf: c.pageservers.addrOf}
	return c, nil
}

// prepare finds the program, the directory and the addresses of everything.
func (c *Cluster) prepare() (err error) {
	b := &c.builder
	if b.Mode == Processes && b.Binary == "" {
		if b.Binary, err = findController(); err != nil {
			return err
		}
	}
	if c.dir = b.Dir; c.dir == "" && b.Mode != Virtual {
		if c.dir, err = os.MkdirTemp("", "quorate-"); err != nil {
			return err
		}
		c.removeDir = true
	}
	if b.Hook {
		opt := simpageserver.HookOptions{Seed: b.Seed, Oracle: c.Oracle()}
		if err := c.controlPlane.serve(c.network, opt); err != nil {
			return err
		}
	}
	if err := c.allocate(); err != nil {
		return err
	}
	return c.pageservers.add(b.Pageservers, b.Zones)
}

// Dir is where data and logs are kept; empty in Virtual.
func (c *Cluster) Dir() string { return c.dir }

// Log is the end of what a controller has logged.
func (c *Cluster) Log(i int) string { return string(c.replicas[i].logs()) }

// Stop ends everything and waits for it. Stopping twice is harmless.
func (c *Cluster) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	err := c.controllers.stop()
	if c.wires != nil {
		c.wires.close()
	}
	c.fleet.Close()
	c.keepers.Close()
	c.controlPlane.close(ctx)
	c.network.close()
	if c.removeDir {
		err = errors.Join(err, os.RemoveAll(c.dir))
	}
	return err
}

// granted tells the oracle of a generation before anybody can act on it.
func (c *Cluster) granted(g fsm.Grant) { c.Oracle().Granted(g.Shard, g.Generation, g.Node) }

// foreseen keeps the newest state that an entry of the log leads to, before anybody can
// act on it.
func (c *Cluster) foreseen(next *fsm.State) {
	for {
		newest := c.newest.Load()
		if newest != nil && newest.Index >= next.Index || c.newest.CompareAndSwap(newest, next) {
			return
		}
	}
}

// serves reports whether a shard is one of its tenant's in the newest state.
func (c *Cluster) serves(shard neon.ShardID) bool {
	newest := c.newest.Load()
	if newest == nil {
		return false
	}
	_, ok := newest.Shard(shard)
	return ok
}
