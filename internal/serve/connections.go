package serve

import (
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// descriptorShare is the part of the process's file descriptors that one server's
	// connections may use. The rest is for the log, for pageservers and for members.
	descriptorShare = 2

	// mostConnections bounds the connections however many descriptors there are: a
	// connection with a request costs some 20 KB.
	mostConnections = 10_000
)

// connectionLimit is how many connections the process can afford.
func connectionLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return mostConnections / descriptorShare
	}
	return int(min(limit.Cur/descriptorShare, mostConnections))
}

// connections bounds the connections of a server. When there are too many, the one
// that has been without a request for the longest time makes room for a new one. If all
// are busy, the new one is closed.
type connections struct {
	limit int
	full  *throttle
	log   *slog.Logger

	mu   sync.Mutex
	open map[*countedConn]struct{}
}

func newConnections(limit int, log *slog.Logger) *connections {
	if limit == 0 {
		limit = connectionLimit()
	}
	return &connections{
		limit: limit, full: newThrottle(), log: log, open: make(map[*countedConn]struct{}),
	}
}

// changed is the http.Server's ConnState. It is called twice for each request, so it takes
// no lock.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	if wrapped, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		conn = wrapped.NetConn()
	}
	counted, ok := conn.(*countedConn)
	if !ok {
		return
	}
	switch state {
	case http.StateNew, http.StateIdle:
		counted.waits.Store(time.Now().UnixNano())
	default:
		counted.used.Store(true)
		counted.waits.Store(0)
	}
}

// closeUnused closes the connections on which nothing has come yet.
func (c *connections) closeUnused() {
	c.mu.Lock()
	var unused []*countedConn
	for conn := range c.open {
		if !conn.used.Load() && conn.waits.Load() != 0 {
			unused = append(unused, conn)
		}
	}
	c.mu.Unlock()
	for _, conn := range unused {
		_ = conn.Close() // which takes the lock
	}
}

// admit returns a new connection as one that may stay, and makes room for it; nil if there
// is none.
func (c *connections) admit(conn net.Conn) *countedConn {
	var oldest, admitted *countedConn
	c.mu.Lock()
	if len(c.open) >= c.limit {
		oldest = c.oldest()
	}
	if len(c.open) < c.limit || oldest != nil {
		admitted = &countedConn{Conn: conn, owner: c}
		c.open[admitted] = struct{}{}
	}
	c.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close()
	}
	if admitted == nil || oldest != nil {
		if ok, missed := c.full.pass(); ok {
			c.log.Warn("Too many HTTP connections: those without a request are closed, then new ones",
				"limit", c.limit, "not_told", missed)
		}
	}
	return admitted
}

// oldest finds the connection that has been without a request for the longest time, and
// lets nobody else find it. c.mu is held.
func (c *connections) oldest() (found *countedConn) {
	var since int64
	for conn := range c.open {
		if t := conn.waits.Load(); t != 0 && (found == nil || t < since) {
			found, since = conn, t
		}
	}
	if found != nil && !found.waits.CompareAndSwap(since, 0) {
		return c.oldest() // a request has come on it
	}
	return found
}

func (c *connections) closed(conn *countedConn) {
	c.mu.Lock()
	delete(c.open, conn)
	c.mu.Unlock()
}

// bound wraps a listener.
func (c *connections) bound(l net.Listener) net.Listener { return boundedListener{l, c} }

type boundedListener struct {
	net.Listener
	connections *connections
}

func (l boundedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if counted := l.connections.admit(conn); counted != nil {
			return counted, nil
		}
		_ = conn.Close()
	}
}

// countedConn is one of the connections of a server.
type countedConn struct {
	net.Conn
	owner *connections
	once  sync.Once

	waits   atomic.Int64 // without a request since then, in Unix nanoseconds; 0: it has one
	used    atomic.Bool  // it has had one
	writeBy atomic.Int64 // the deadline of writes, in Unix nanoseconds; 0: none is known
}

// Close says once that the connection was closed.
func (c *countedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { c.owner.closed(c) })
	return err
}

// deadlineStep is by how much a deadline of writes is moved at least. It is moved with every
// answer, and costs as much as a part of one.
const deadlineStep = time.Second

// SetWriteDeadline leaves out a small step forward.
func (c *countedConn) SetWriteDeadline(t time.Time) error {
	by := int64(0)
	if !t.IsZero() {
		by = t.UnixNano()
	}
	if last := c.writeBy.Load(); last != 0 && by >= last && by-last < int64(deadlineStep) {
		return nil
	}
	c.writeBy.Store(by)
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline sets both deadlines, always.
func (c *countedConn) SetDeadline(t time.Time) error {
	c.writeBy.Store(0)
	return c.Conn.SetDeadline(t)
}
