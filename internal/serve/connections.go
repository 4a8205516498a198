package serve

import (
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
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

	mu      sync.Mutex
	open    int
	waiting map[net.Conn]time.Time // without a request, since when
	unused  map[net.Conn]struct{}  // those of waiting that never had one
}

func newConnections(limit int, log *slog.Logger) *connections {
	if limit == 0 {
		limit = connectionLimit()
	}
	return &connections{
		limit: limit, full: newThrottle(), log: log, waiting: make(map[net.Conn]time.Time),
		unused: make(map[net.Conn]struct{}),
	}
}

// changed is the http.Server's ConnState.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.unused, conn)
	switch state {
	case http.StateNew:
		c.unused[conn] = struct{}{}
		c.waiting[conn] = time.Now()
	case http.StateIdle:
		c.waiting[conn] = time.Now()
	default:
		delete(c.waiting, conn)
	}
}

// closeUnused closes the connections on which nothing has come yet.
func (c *connections) closeUnused() {
	c.mu.Lock()
	unused := slices.Collect(maps.Keys(c.unused))
	c.mu.Unlock()
	for _, conn := range unused {
		_ = conn.Close() // which takes the lock
	}
}

// admit reports whether a new connection may stay, and makes room for it.
func (c *connections) admit() bool {
	c.mu.Lock()
	oldest, since := net.Conn(nil), time.Time{}
	if c.open >= c.limit {
		for conn, t := range c.waiting {
			if oldest == nil || t.Before(since) {
				oldest, since = conn, t
			}
		}
		delete(c.waiting, oldest)
	}
	room := c.open < c.limit || oldest != nil
	if room {
		c.open++
	}
	c.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close()
	}
	if !room || oldest != nil {
		if ok, missed := c.full.pass(); ok {
			c.log.Warn("Too many HTTP connections: those without a request are closed, then new ones",
				"limit", c.limit, "not_told", missed)
		}
	}
	return room
}

func (c *connections) closed() {
	c.mu.Lock()
	c.open--
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
		if l.connections.admit() {
			return &countedConn{Conn: conn, closed: l.connections.closed}, nil
		}
		_ = conn.Close()
	}
}

// countedConn says once that it was closed.
type countedConn struct {
	net.Conn
	once   sync.Once
	closed func()
}

func (c *countedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.closed)
	return err
}
