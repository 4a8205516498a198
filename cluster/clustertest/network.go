package clustertest

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"quorate/internal/wait"
)

// Network connects servers of one process without sockets. All waiting is on channels
// and condition variables that it makes, so a network made inside a testing/synctest
// bubble runs under the bubble's virtual time. Addresses are host:port. Port 0 picks a
// free one.
type Network struct {
	mu        sync.Mutex
	listeners map[string]*memListener
	conns     map[*memConn]struct{} // both ends of every open connection
	group     map[string]int        // host -> side of the partition; absent = side 0
	cut       [][2]string
	nextPort  int

	partitioned wait.Broadcast // group has changed
}

// NewNetwork returns a network without faults.
func NewNetwork() *Network {
	return &Network{
		listeners: make(map[string]*memListener), conns: make(map[*memConn]struct{}),
		group: make(map[string]int), nextPort: 20000,
	}
}

// Host returns the network as one host sees it: its dials come from that host.
func (n *Network) Host(name string) *Host { return &Host{net: n, name: name} }

// Host is one host of a Network. It implements cluster.Network.
type Host struct {
	net  *Network
	name string
}

// Partition puts each group of hosts on a side of its own. Hosts in no group form one
// more side. Bytes between sides wait until Heal, as TCP would retry them. Dials
// between sides wait too.
func (n *Network) Partition(groups ...[]string) {
	n.mu.Lock()
	n.group, n.cut = make(map[string]int), nil
	for i, g := range groups {
		for _, h := range g {
			n.group[h] = i + 1
		}
	}
	n.mu.Unlock()
	n.partitioned.Notify()
	n.wakeAll()
}

// Cut has two hosts not reach each other, until Heal.
func (n *Network) Cut(a, b string) {
	n.mu.Lock()
	n.cut = append(n.cut, [2]string{a, b}, [2]string{b, a})
	n.mu.Unlock()
	n.partitioned.Notify()
	n.wakeAll()
}

// Heal ends the partition, and joins what was cut.
func (n *Network) Heal() { n.Partition() }

// Kill ends everything of a host the way the death of its process does: its
// connections break and its addresses refuse. Later listens work again.
func (n *Network) Kill(host string) {
	n.mu.Lock()
	var conns []*memConn
	var listeners []*memListener
	for c := range n.conns {
		if c.from == host {
			conns = append(conns, c)
		}
	}
	for _, l := range n.listeners {
		if l.host == host {
			listeners = append(listeners, l)
		}
	}
	n.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close()
	}
	for _, c := range conns {
		_ = c.Close()
	}
}

func (n *Network) split(a, b string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.group[a] != n.group[b] || slices.Contains(n.cut, [2]string{a, b})
}

func (n *Network) wakeAll() {
	n.mu.Lock()
	conns := make([]*memConn, 0, len(n.conns))
	for c := range n.conns {
		conns = append(conns, c)
	}
	n.mu.Unlock()
	for _, c := range conns {
		c.in.wake()
	}
}

type memAddr string

func (memAddr) Network() string  { return "memory" }
func (a memAddr) String() string { return string(a) }

type memListener struct {
	net      *Network
	host     string
	addr     memAddr
	incoming chan *memConn
	done     chan struct{}
	once     sync.Once
}

// Listen listens on host:port of this network; the host need not be the caller's own.
func (h *Host) Listen(addr string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if host == "" {
		host = h.name
	}
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if port == "0" {
		n.nextPort++
		port = strconv.Itoa(n.nextPort)
	}
	key := net.JoinHostPort(host, port)
	if n.listeners[key] != nil {
		return nil, &net.OpError{
			Op: "listen", Net: "memory", Addr: memAddr(key), Err: syscall.EADDRINUSE,
		}
	}
	l := &memListener{
		net: n, host: h.name, addr: memAddr(key), incoming: make(chan *memConn),
		done: make(chan struct{}),
	}
	n.listeners[key] = l
	return l, nil
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: "memory", Addr: l.addr, Err: net.ErrClosed}
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		delete(l.net.listeners, string(l.addr))
		l.net.mu.Unlock()
		close(l.done)
	})
	return nil
}

func (l *memListener) Addr() net.Addr { return l.addr }

// Dial connects to addr. Across a partition it waits until Heal or until ctx ends.
// Without a listener it fails with ECONNREFUSED.
func (h *Host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "memory", Addr: memAddr(addr), Err: err}
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	for {
		changed := h.net.partitioned.Changed()
		if !h.net.split(h.name, host) {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fail(ctx.Err())
		}
	}
	h.net.mu.Lock()
	l := h.net.listeners[addr]
	h.net.nextPort++
	local := memAddr(fmt.Sprintf("%s:%d", h.name, h.net.nextPort))
	h.net.mu.Unlock()
	if l == nil {
		return fail(syscall.ECONNREFUSED)
	}
	ours, theirs := h.net.pair(h.name, l.host)
	ours.local, ours.remote = local, l.addr
	theirs.local, theirs.remote = l.addr, local
	select {
	case l.incoming <- theirs:
		return ours, nil
	case <-l.done:
		err = syscall.ECONNREFUSED
	case <-ctx.Done():
		err = ctx.Err()
	}
	_ = ours.Close()
	_ = theirs.Close()
	return fail(err)
}

func (n *Network) pair(from, to string) (a, b *memConn) {
	ab, ba := newMemPipe(), newMemPipe()
	a = &memConn{net: n, from: from, in: ba, out: ab}
	b = &memConn{net: n, from: to, in: ab, out: ba}
	ab.blocked = func() bool { return n.split(from, to) }
	ba.blocked = ab.blocked
	n.mu.Lock()
	n.conns[a], n.conns[b] = struct{}{}, struct{}{}
	n.mu.Unlock()
	return a, b
}

// memConn is one end of a connection.
type memConn struct {
	net           *Network
	from          string // the host of this end
	in, out       *memPipe
	local, remote memAddr
	once          sync.Once
}

func (c *memConn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *memConn) Write(b []byte) (int, error) { return c.out.write(b) }
func (c *memConn) LocalAddr() net.Addr         { return c.local }
func (c *memConn) RemoteAddr() net.Addr        { return c.remote }

// Close ends both directions: the peer reads what was written, then EOF.
func (c *memConn) Close() error {
	c.once.Do(func() {
		c.net.mu.Lock()
		delete(c.net.conns, c)
		c.net.mu.Unlock()
		c.out.end()
		c.in.abort()
	})
	return nil
}

func (c *memConn) SetDeadline(t time.Time) error {
	c.in.readBy.set(c.in, t)
	c.out.writeBy.set(c.out, t)
	return nil
}

func (c *memConn) SetReadDeadline(t time.Time) error {
	c.in.readBy.set(c.in, t)
	return nil
}

func (c *memConn) SetWriteDeadline(t time.Time) error {
	c.out.writeBy.set(c.out, t)
	return nil
}

// memPipe is one direction of a connection: a bounded buffer.
type memPipe struct {
	blocked func() bool // whether a partition holds the bytes back

	mu      sync.Mutex
	changed *sync.Cond
	buf     []byte
	ended   bool // the writer closed
	aborted bool // the reader closed
	readBy  memDeadline
	writeBy memDeadline
}

const memPipeSize = 256 << 10

func newMemPipe() *memPipe {
	p := &memPipe{}
	p.changed = sync.NewCond(&p.mu)
	return p
}

func (p *memPipe) wake() {
	p.mu.Lock()
	p.changed.Broadcast()
	p.mu.Unlock()
}

func (p *memPipe) end() {
	p.mu.Lock()
	p.ended = true
	p.changed.Broadcast()
	p.mu.Unlock()
}

func (p *memPipe) abort() {
	p.mu.Lock()
	p.aborted = true
	p.changed.Broadcast()
	p.mu.Unlock()
}

func (p *memPipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.aborted:
			return 0, net.ErrClosed
		case p.readBy.past():
			return 0, os.ErrDeadlineExceeded
		}
		if !p.blocked() {
			if len(p.buf) > 0 {
				n := copy(b, p.buf)
				p.buf = p.buf[n:]
				if len(p.buf) == 0 {
					p.buf = nil
				}
				p.changed.Broadcast()
				return n, nil
			}
			if p.ended {
				return 0, io.EOF
			}
		}
		p.changed.Wait()
	}
}

func (p *memPipe) write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	written := 0
	for len(b) > 0 {
		switch {
		case p.ended:
			return written, net.ErrClosed
		case p.aborted && !p.blocked():
			return written, syscall.EPIPE
		case p.writeBy.past():
			return written, os.ErrDeadlineExceeded
		}
		if room := memPipeSize - len(p.buf); room > 0 {
			n := min(room, len(b))
			p.buf = append(p.buf, b[:n]...)
			b, written = b[n:], written+n
			p.changed.Broadcast()
			continue
		}
		p.changed.Wait()
	}
	return written, nil
}

// memDeadline wakes the pipe when the time has come.
type memDeadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *memDeadline) past() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *memDeadline) set(p *memPipe, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = at
	// A moment that has passed needs no timer: those who wait are woken here. (And Go
	// 1.26 crashes, with the race detector, on one that is due at once in a bubble.)
	if left := time.Until(at); !at.IsZero() && left > 0 {
		d.timer = time.AfterFunc(left, p.wake)
	}
	p.changed.Broadcast()
}
