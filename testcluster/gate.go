package testcluster

import (
	"context"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"quorate/cluster"
	"quorate/internal/wait"
)

// gate is the network of one replica in this process: everything it listens on
// and dials goes through it, so that the replica can be cut off from others,
// frozen, or killed the way the death of a process does it: its connections break
// and its ports refuse, while its goroutines may go on for a moment without
// anybody noticing.
type gate struct {
	inner   cluster.Network
	calling func(what string) // see Builder; nil: nothing

	mu        sync.Mutex
	dead      bool
	frozen    bool
	cut       map[string]bool // dialled addresses of controllers that nothing passes to or from
	cutNodes  map[string]bool // the same of pageservers
	changed   wait.Broadcast  // of what passes
	conns     map[*gatedConn]struct{}
	listeners map[net.Listener]struct{}
}

func newGate(inner cluster.Network) *gate {
	return &gate{
		inner: inner, cut: make(map[string]bool), cutNodes: make(map[string]bool),
		conns: make(map[*gatedConn]struct{}), listeners: make(map[net.Listener]struct{}),
	}
}

func (g *gate) update(f func()) {
	g.mu.Lock()
	f()
	g.mu.Unlock()
	g.changed.Notify()
}

func (g *gate) pause()  { g.update(func() { g.frozen = true }) }
func (g *gate) resume() { g.update(func() { g.frozen = false }) }

// block cuts the replica off from the addresses of controllers; without any, from
// nothing.
func (g *gate) block(addresses ...string) { g.replace(g.cut, addresses) }

// blockNodes is as block for pageservers.
func (g *gate) blockNodes(addresses ...string) { g.replace(g.cutNodes, addresses) }

func (g *gate) replace(cut map[string]bool, addresses []string) {
	g.update(func() {
		clear(cut)
		for _, a := range addresses {
			cut[a] = true
		}
	})
}

// kill breaks everything; nothing opens until revive.
func (g *gate) kill() {
	g.update(func() { g.dead = true })
	g.mu.Lock()
	conns := make([]*gatedConn, 0, len(g.conns))
	for c := range g.conns {
		conns = append(conns, c)
	}
	listeners := make([]net.Listener, 0, len(g.listeners))
	for l := range g.listeners {
		listeners = append(listeners, l)
	}
	g.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close()
	}
	for _, c := range conns {
		_ = c.Close()
	}
}

func (g *gate) revive() { g.update(func() { g.dead, g.frozen = false, false }) }

// held reports whether traffic to a target waits, and whether this replica is dead.
// The channel is closed when either may have changed.
func (g *gate) held(target string) (changed <-chan struct{}, held, dead bool) {
	changed = g.changed.Changed()
	g.mu.Lock()
	defer g.mu.Unlock()
	return changed, g.frozen || g.cut[target] || g.cutNodes[target], g.dead
}

// Listen implements cluster.Network.
func (g *gate) Listen(addr string) (net.Listener, error) {
	if _, _, dead := g.held(""); dead {
		return nil, &net.OpError{Op: "listen", Net: "gate", Err: syscall.ENETDOWN}
	}
	l, err := g.inner.Listen(addr)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.listeners[l] = struct{}{}
	return &gatedListener{Listener: l, gate: g}, nil
}

// Dial implements cluster.Network.
func (g *gate) Dial(ctx context.Context, addr string) (net.Conn, error) {
	for {
		changed, held, dead := g.held(addr)
		if dead {
			return nil, &net.OpError{Op: "dial", Net: "gate", Err: syscall.ENETDOWN}
		}
		if !held {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, &net.OpError{Op: "dial", Net: "gate", Err: ctx.Err()}
		}
	}
	if g.calling != nil {
		g.calling("a connection to " + addr)
	}
	c, err := g.inner.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return g.wrap(c, addr), nil
}

func (g *gate) wrap(c net.Conn, target string) net.Conn {
	w := &gatedConn{
		Conn: c, gate: g, target: target, closed: make(chan struct{}),
	}
	g.mu.Lock()
	dead := g.dead
	if !dead {
		g.conns[w] = struct{}{}
	}
	g.mu.Unlock()
	if dead {
		_ = c.Close()
	}
	return w
}

type gatedListener struct {
	net.Listener
	gate *gate
}

func (l *gatedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.gate.wrap(c, ""), nil
}

func (l *gatedListener) Close() error {
	l.gate.mu.Lock()
	delete(l.gate.listeners, l.Listener)
	l.gate.mu.Unlock()
	return l.Listener.Close()
}

// gatedConn holds back what it reads and writes while its gate says so.
type gatedConn struct {
	net.Conn
	gate   *gate
	target string // the dialled address; empty for an accepted connection
	once   sync.Once
	closed chan struct{}

	mu      sync.Mutex
	pending []byte // read from the network, not yet let through
	failure error  // that came with pending
	readBy  time.Time
	writeBy time.Time
	limits  wait.Broadcast // of readBy and writeBy
}

func (c *gatedConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	have := len(c.pending) > 0 || c.failure != nil
	c.mu.Unlock()
	if !have {
		n, err := c.Conn.Read(b)
		if _, held, _ := c.gate.held(c.target); !held {
			return n, err
		}
		c.mu.Lock()
		c.pending, c.failure = append(c.pending, b[:n]...), err
		c.mu.Unlock()
	}
	if err := c.pass(func() time.Time { return c.readBy }); err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := copy(b, c.pending)
	c.pending = c.pending[n:]
	err := error(nil)
	if len(c.pending) == 0 {
		c.pending, err, c.failure = nil, c.failure, nil
	}
	return n, err
}

func (c *gatedConn) Write(b []byte) (int, error) {
	if _, held, _ := c.gate.held(c.target); held {
		if err := c.pass(func() time.Time { return c.writeBy }); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}

// pass waits until the gate lets the connection's traffic through.
func (c *gatedConn) pass(by func() time.Time) error {
	for {
		changed, held, _ := c.gate.held(c.target)
		if !held {
			return nil
		}
		newLimit := c.limits.Changed()
		c.mu.Lock()
		deadline := by()
		c.mu.Unlock()
		var timer <-chan time.Time
		if !deadline.IsZero() {
			left := time.Until(deadline)
			if left <= 0 {
				return os.ErrDeadlineExceeded
			}
			timer = time.After(left)
		}
		select {
		case <-changed:
		case <-newLimit:
		case <-timer:
		case <-c.closed:
			return net.ErrClosed
		}
	}
}

func (c *gatedConn) setDeadlines(read, write *time.Time) {
	c.mu.Lock()
	if read != nil {
		c.readBy = *read
	}
	if write != nil {
		c.writeBy = *write
	}
	c.mu.Unlock()
	c.limits.Notify()
}

func (c *gatedConn) SetDeadline(t time.Time) error {
	c.setDeadlines(&t, &t)
	return c.Conn.SetDeadline(t)
}

func (c *gatedConn) SetReadDeadline(t time.Time) error {
	c.setDeadlines(&t, nil)
	return c.Conn.SetReadDeadline(t)
}

func (c *gatedConn) SetWriteDeadline(t time.Time) error {
	c.setDeadlines(nil, &t)
	return c.Conn.SetWriteDeadline(t)
}

func (c *gatedConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.gate.mu.Lock()
		delete(c.gate.conns, c)
		c.gate.mu.Unlock()
	})
	return c.Conn.Close()
}
