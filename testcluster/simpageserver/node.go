package simpageserver

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/http"
	"time"

	"quorate/api/neon"
)

// NodeOptions configures one pageserver.
type NodeOptions struct {
	ID neon.NodeID
	AZ neon.AZ
	// Upcalls are the base URLs of the controllers, each ending in /upcall/v1 or
	// /upcall/v1/. They are tried in turn until one answers. Without any, the
	// node starts with what its disk says, which the oracle reports if that
	// re-uses a generation, and it validates no deletion.
	Upcalls []string
	// Token is sent with upcalls.
	Token string
	// Dial carries the upcalls; nil means a transport of the node's own.
	Dial http.RoundTripper
	// UpcallTimeout bounds one attempt of an upcall; zero means 10 s.
	UpcallTimeout time.Duration
	// Listen opens the node's HTTP listener at every start. Nil means a free
	// port of 127.0.0.1 that stays the same over restarts.
	Listen func() (net.Listener, error)
	// Register sends the node's addresses with its re-attach.
	Register bool
	// PgPort is the Postgres port to register; nothing listens there. Zero means
	// 64000 plus the id.
	PgPort uint16
	// Authorize checks the bearer token of a request, empty if there was none;
	// a false answer is 401 without a token and 403 with one. Nil lets all in.
	Authorize func(token string) bool
	// Calling, when set, is called with each change of a location that arrives, and may
	// hold it up.
	Calling func(what string)
	// Maintenance is how often a running node uploads, compacts, validates
	// deletions and refreshes heatmaps of shards that have timelines. Zero is
	// never: call Tick.
	Maintenance time.Duration
}

// Errors of node actions.
var (
	ErrRunning    = errors.New("the node is running")
	ErrNotRunning = errors.New("the node is not running")
)

// Node is one simulated pageserver: a disk that outlives its processes, and at
// most one running process.
type Node struct {
	fleet  *Fleet
	opt    NodeOptions
	host   *host
	faults faults
	life   chan struct{} // holds one token, taken by Start, Kill and Stop while they work

	// What follows is guarded by the lock of the host.
	proc        *process
	incarnation uint32
	addr        string // of the last listener
}

// ID is the node's id.
func (n *Node) ID() neon.NodeID { return n.opt.ID }

// Addr is the host:port of the node's HTTP listener, empty before the first
// start.
func (n *Node) Addr() string {
	n.host.mu.Lock()
	defer n.host.mu.Unlock()
	return n.addr
}

// Start opens the listener and begins to re-attach. It returns before the
// re-attach is answered: until then connections are accepted and requests wait.
// The context bounds only the start itself.
func (n *Node) Start(ctx context.Context) error {
	defer n.lockLife()()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("start node %s: %w", n.opt.ID, err)
	}
	if n.process() != nil {
		return fmt.Errorf("start node %s: %w", n.opt.ID, ErrRunning)
	}
	ln, err := n.listen()
	if err != nil {
		return fmt.Errorf("start node %s: %w", n.opt.ID, err)
	}
	n.host.mu.Lock()
	n.incarnation++
	n.addr = ln.Addr().String()
	n.host.core.restart()
	p := newProcess(n, ln, n.incarnation)
	n.setProcess(p)
	n.host.paused, n.host.serving = false, false
	n.host.mu.Unlock()
	n.host.markReachable()
	p.run()
	n.host.log.Debug("started", "addr", ln.Addr().String(), "incarnation", p.number)
	return nil
}

// lockLife waits for the node's other life changes to end. It is a channel and not a
// mutex because they wait while they hold it.
func (n *Node) lockLife() (done func()) {
	<-n.life
	return func() { n.life <- struct{}{} }
}

func (n *Node) listen() (net.Listener, error) {
	if n.opt.Listen != nil {
		return n.opt.Listen()
	}
	addr := n.Addr()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	return net.Listen("tcp", addr)
}

// Kill ends the process at once: the listener and all connections are reset and
// nothing that it was doing takes effect any more. The disk stays. Killing a node
// that does not run is harmless.
func (n *Node) Kill() {
	defer n.lockLife()()
	n.host.mu.Lock()
	p := n.proc
	n.setProcess(nil)
	n.host.mu.Unlock()
	if p == nil {
		return
	}
	n.host.oracle.ended(p.index)
	p.kill()
	n.host.log.Debug("killed", "incarnation", p.number)
}

// Stop ends the process in order: new calls get 503, running ones end, every
// shard is uploaded. When ctx expires first it becomes a Kill, and the error says
// so.
func (n *Node) Stop(ctx context.Context) error {
	defer n.lockLife()()
	n.host.mu.Lock()
	p := n.proc
	if p != nil {
		n.host.core.stopping = true
	}
	n.host.mu.Unlock()
	if p == nil {
		return fmt.Errorf("stop node %s: %w", n.opt.ID, ErrNotRunning)
	}
	err := p.shutdown(ctx)
	n.host.mu.Lock()
	if err == nil {
		n.host.core.uploadAttached(n.host.now())
	}
	n.setProcess(nil)
	n.host.mu.Unlock()
	n.host.oracle.ended(p.index)
	p.kill()
	if err != nil {
		return fmt.Errorf("stop node %s: %w", n.opt.ID, err)
	}
	return nil
}

// Restart kills the process if there is one and starts the next.
func (n *Node) Restart(ctx context.Context) error {
	n.Kill()
	return n.Start(ctx)
}

// WipeDisk loses everything on the node's disk. A running process is killed
// first. The next re-attach says that the disk is empty.
func (n *Node) WipeDisk() {
	n.Kill()
	n.host.mu.Lock()
	defer n.host.mu.Unlock()
	n.host.core.wipe()
	n.host.emptyDisk = true
}

// Pause stops the process as SIGSTOP does: the kernel accepts connections, and nothing
// is processed or answered. Resume and a restart end it.
func (n *Node) Pause() { n.host.setPaused(true) }

// Resume ends Pause.
func (n *Node) Resume() { n.host.setPaused(false) }

// Clone adds a node with the same id and a copy of this one's disk, not yet
// started: a zombie once both run. Listen replaces the option of the original;
// nil means a free port.
func (n *Node) Clone(listen func() (net.Listener, error)) (*Node, error) {
	opt := n.opt
	opt.Listen = listen
	z, err := n.fleet.AddNode(opt)
	if err != nil {
		return nil, fmt.Errorf("clone node %s: %w", n.opt.ID, err)
	}
	n.host.mu.Lock()
	z.incarnation = n.incarnation + 1000
	n.host.mu.Unlock()
	z.host.copyDisk(n.host)
	return z, nil
}

// SetFaults replaces the node's fault rules; without arguments it removes them.
func (n *Node) SetFaults(rules ...Fault) {
	n.faults.set(rules)
	cut := false
	for i := range rules {
		cut = cut || rules[i].cutsOff()
	}
	n.host.mu.Lock()
	n.host.cutOff = cut
	n.host.mu.Unlock()
	n.host.markReachable()
}

// Struck counts the requests that the present fault rules have hit.
func (n *Node) Struck() int { return n.faults.struck() }

// SetBehaviour replaces how the node works.
func (n *Node) SetBehaviour(b Behaviour) {
	n.host.mu.Lock()
	defer n.host.mu.Unlock()
	*n.host.core.behave = b
}

// Behaviour is how the node works now.
func (n *Node) Behaviour() Behaviour {
	n.host.mu.Lock()
	defer n.host.mu.Unlock()
	return *n.host.core.behave
}

// setProcess makes p the process that runs, nil for none. The caller holds the lock.
func (n *Node) setProcess(p *process) {
	n.proc, n.host.current = p, nil
	if p != nil {
		n.host.current = p.incarnation
	}
}

func (n *Node) process() *process {
	n.host.mu.Lock()
	defer n.host.mu.Unlock()
	return n.proc
}

// Running reports whether there is a process, re-attached or not.
func (n *Node) Running() bool { return n.process() != nil }

// WaitReady waits until the running process has re-attached and serves.
func (n *Node) WaitReady(ctx context.Context) error {
	p := n.process()
	if p == nil {
		return fmt.Errorf("wait for node %s: %w", n.opt.ID, ErrNotRunning)
	}
	select {
	case <-p.ready:
		return nil
	case <-p.ctx.Done():
		return fmt.Errorf("wait for node %s: %w", n.opt.ID, ErrNotRunning)
	case <-ctx.Done():
		return fmt.Errorf("wait for node %s: %w", n.opt.ID, ctx.Err())
	}
}

// Location looks at one shard on the node, whether it runs or not.
func (n *Node) Location(shard neon.ShardID) (LocationView, bool) { return n.host.location(shard) }

// Locations walks over a copy of the node's locations, in no order.
func (n *Node) Locations() iter.Seq2[neon.ShardID, LocationView] {
	n.host.mu.Lock()
	now := n.host.now()
	ids := make([]neon.ShardID, 0, len(n.host.core.slots))
	views := make([]LocationView, 0, len(n.host.core.slots))
	for shard, s := range n.host.core.slots {
		ids, views = append(ids, shard), append(views, s.view(now))
	}
	n.host.mu.Unlock()
	return func(yield func(neon.ShardID, LocationView) bool) {
		for i, id := range ids {
			if !yield(id, views[i]) {
				return
			}
		}
	}
}

// Break turns an attached shard Broken, as a failed activation does.
func (n *Node) Break(shard neon.ShardID) {
	n.host.mu.Lock()
	defer n.host.mu.Unlock()
	if s := n.host.core.slots[shard]; s != nil && s.mode.attached() {
		s.broken = true
	}
}
