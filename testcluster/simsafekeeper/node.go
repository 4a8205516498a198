package simsafekeeper

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"quorate/api/neon"
)

// Node is one safekeeper.
type Node struct {
	id     neon.NodeID
	fleet  *Fleet // its mutex guards what follows
	listen Listen
	token  string

	addr      string
	server    *http.Server // nil while it does not run
	done      sync.WaitGroup
	gone      chan struct{} // closed when it is killed
	lose      int           // replies to be lost
	delay     time.Duration // before a change, also when no caller waits for it any more
	timelines map[neon.TimelineRef]*timeline

	// A restart forgets both. tombstones are of timelines, up to a generation; tenants are
	// the tenants that were deleted.
	tombstones map[neon.TimelineRef]neon.SafekeeperGeneration
	tenants    map[neon.TenantID]bool
}

// timeline is one timeline on one safekeeper.
type timeline struct {
	conf neon.Membership
	at   position
}

// forever is the tombstone that no generation outlives.
const forever = ^neon.SafekeeperGeneration(0)

// ID is the safekeeper's id.
func (n *Node) ID() neon.NodeID { return n.id }

// Addr is where it listens or did so last.
func (n *Node) Addr() string {
	n.fleet.mu.Lock()
	defer n.fleet.mu.Unlock()
	return n.addr
}

// Running reports whether it answers.
func (n *Node) Running() bool {
	n.fleet.mu.Lock()
	defer n.fleet.mu.Unlock()
	return n.server != nil
}

// Start starts it, on the disk that it had.
func (n *Node) Start() error {
	l, err := n.listen()
	if err != nil {
		return err
	}
	s := &http.Server{Handler: n, ErrorLog: log.New(io.Discard, "", 0)}
	n.fleet.mu.Lock()
	defer n.fleet.mu.Unlock()
	if n.server != nil {
		return errors.Join(errors.New("it runs already"), l.Close())
	}
	n.server, n.addr, n.gone = s, l.Addr().String(), make(chan struct{})
	clear(n.tombstones)
	clear(n.tenants)
	n.done.Go(func() { _ = s.Serve(l) }) // ends with the server
	return nil
}

// Kill ends it as kill -9 does.
func (n *Node) Kill() {
	n.fleet.mu.Lock()
	s := n.server
	n.server = nil
	if s != nil {
		close(n.gone)
	}
	n.fleet.mu.Unlock()
	if s != nil {
		_ = s.Close()
	}
	n.done.Wait()
}

// LoseReplies makes the next replies to changes get lost, after the change.
func (n *Node) LoseReplies(count int) {
	n.fleet.mu.Lock()
	defer n.fleet.mu.Unlock()
	n.lose = count
}

// Delay makes changes take that long; 0 ends it. They are made even if the client that asked
// for them has given up by then.
func (n *Node) Delay(d time.Duration) {
	n.fleet.mu.Lock()
	defer n.fleet.mu.Unlock()
	n.delay = d
}

// waitDelay waits for as long as changes take, and reports whether the process that
// took the request still runs.
func (n *Node) waitDelay() bool {
	n.fleet.mu.Lock()
	d, s, gone := n.delay, n.server, n.gone
	n.fleet.mu.Unlock()
	if d <= 0 || s == nil {
		return s != nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-gone:
		return false
	}
}

// Has reports whether a timeline is there, and in which configuration.
func (n *Node) Has(ref neon.TimelineRef) (conf neon.Membership, ok bool) {
	n.fleet.mu.Lock()
	defer n.fleet.mu.Unlock()
	if t := n.timelines[ref]; t != nil {
		return t.conf, true
	}
	return conf, false
}

// Count is how many timelines it has.
func (n *Node) Count() int {
	n.fleet.mu.Lock()
	defer n.fleet.mu.Unlock()
	return len(n.timelines)
}

// donor finds a running safekeeper by a base URL.
func (f *Fleet) donor(url string) *Node {
	for _, n := range f.nodes {
		if n.server != nil && (url == "http://"+n.addr || url == "http://"+hostPort(n.addr)) {
			return n
		}
	}
	return nil
}

func hostPort(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return net.JoinHostPort(host, port)
}
