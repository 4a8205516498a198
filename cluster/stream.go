package cluster

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"quorate/internal/wait"
)

// A connection opens with a preamble: magic, a tag that selects raft or peer calls, and
// the dialer's greeting. The acceptor answers with a verdict and its own greeting. So
// members of two clusters notice each other on the first exchange, whichever of them
// dialed.
const (
	tagRaft byte = 'R'
	tagPeer byte = 'P'

	preambleMagic   = "QC1"
	maxGreeting     = 4096
	greetingTimeout = 2 * time.Second

	verdictWelcome byte = 0
	verdictRefused byte = 1
)

var (
	errPreamble = errors.New("not a peer of this software")

	// errOtherDisk is ErrRefused to a server since the member with its id has another disk.
	errOtherDisk = fmt.Errorf("%w", ErrRefused)
)

// greeting tells who is at the other end.
type greeting struct {
	Cluster string `json:"cluster,omitempty"`
	ID      string `json:"id"`
	Raft    string `json:"raft,omitempty"`
	HTTP    string `json:"http,omitempty"`
	Disk    string `json:"disk,omitempty"` // see datadir.KnownDisks
	Level   uint64 `json:"level,omitempty"`
	// Expects is the member that the dialer's membership has at the address that it dials.
	Expects string `json:"expects,omitempty"`
	// Ended are the clusters that ended when this server's was made of a survivor, with
	// commas between them.
	Ended string `json:"ended,omitempty"`
	// Run is of the process. Term and Last are the newest term and entry on its disk.
	Run  string `json:"run,omitempty"`
	Term uint64 `json:"term,omitempty"`
	Last uint64 `json:"last,omitempty"`
	// Version is for people to read.
	Version string `json:"version,omitempty"`
	// Refusal is set by an acceptor that turns the connection down.
	Refusal string `json:"refusal,omitempty"`
	// GoneBack is set with it, if the disk of the dialer had more before.
	GoneBack bool `json:"gone_back,omitempty"`
	// OtherDisk is set with it, if the member with the dialer's id has another disk.
	OtherDisk bool `json:"other_disk,omitempty"`
}

// refusalReason says why a server is refused; zero if it is welcome.
type refusalReason struct {
	why       string
	goneBack  bool // its disk had more before
	otherDisk bool // the member with its id has another one
}

// warning says what an operator does about the refused member.
func (r refusalReason) warning() string {
	if r.goneBack {
		return "refused a member whose disk has gone back; remove it, then add it, empty, " +
			"under a new id: " + r.why
	}
	return "refused a member that lost its disk; start it with another --server-id, and have it " +
		"take the place of the old one (storcon_cli cluster replace)"
}

func writeGreeting(w io.Writer, head []byte, g greeting) error {
	body, err := json.Marshal(g)
	if err != nil {
		return err
	}
	b := append([]byte(nil), head...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	_, err = w.Write(append(b, body...))
	return err
}

// readGreeting reads exactly one greeting preceded by head bytes, and not a byte more.
func readGreeting(r io.Reader, head []byte) (greeting, error) {
	var g greeting
	if _, err := io.ReadFull(r, head); err != nil {
		return g, err
	}
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return g, err
	}
	n := int(binary.BigEndian.Uint16(size[:]))
	if n > maxGreeting {
		return g, errPreamble
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return g, err
	}
	if err := json.Unmarshal(body, &g); err != nil {
		return g, fmt.Errorf("%w: %w", errPreamble, err)
	}
	return g, nil
}

// acceptPreamble reads the dialer's side.
func acceptPreamble(r io.Reader) (tag byte, g greeting, err error) {
	head := make([]byte, len(preambleMagic)+1)
	if g, err = readGreeting(r, head); err != nil {
		return 0, g, err
	}
	if string(head[:len(preambleMagic)]) != preambleMagic {
		return 0, g, errPreamble
	}
	return head[len(preambleMagic)], g, nil
}

// streams owns every connection of the raft address, both ways. It is raft's
// StreamLayer, and hands peer connections to servePeer.
type streams struct {
	network  Network
	tls      *tls.Config
	listener net.Listener
	log      *slog.Logger
	hooks    streamHooks

	accepted chan net.Conn
	ctx      context.Context // ends with sever
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu     sync.Mutex
	conns  map[*conn]struct{}
	closed bool
	warned map[string]bool // servers that were turned away
}

// streamHooks are what streams ask of the rest of the server.
type streamHooks struct {
	self      func() greeting
	admit     func(meeting) refusalReason
	isMember  func(id string) bool
	expected  func(addr string) string // which member is at an address, "" if none is known
	servePeer func(conn net.Conn, from string)
	uninvited func() bool // this server has nothing, and is of no cluster yet
	// called is called when a server of another cluster dials this one, or of any cluster
	// while this one is of none.
	called func(who greeting)
	// ended is called when the server that was dialed says that our cluster has ended, and
	// goneBack when it says that our disk had more before. Both end this server, so whoever
	// hears it decides whether to believe that. A stranger that dials is not heard.
	ended, goneBack func(meeting)
}

// conn tells streams when it is closed, by either side of the code.
type conn struct {
	net.Conn
	owner *streams
	once  sync.Once
	seat  // guarded by owner.mu
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { c.owner.forget(c) })
	return err
}

// newStreams returns streams that can dial. start accepts connections too.
func newStreams(
	network Network, tls *tls.Config, l net.Listener, log *slog.Logger, hooks streamHooks,
) *streams {
	s := &streams{
		network: network, tls: tls, listener: l, log: log, hooks: hooks,
		accepted: make(chan net.Conn), conns: make(map[*conn]struct{}),
		warned: make(map[string]bool),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

func (s *streams) start() { s.wg.Go(s.acceptLoop) }

// acceptRetry is the pause after a failed accept, as when there are no descriptors left.
const acceptRetry = 10 * time.Millisecond

func (s *streams) acceptLoop() {
	for {
		raw, err := s.listener.Accept()
		if err == nil {
			s.wg.Go(func() { s.welcome(raw) })
		} else if wait.Sleep(s.ctx, acceptRetry) != nil {
			return
		}
	}
}

// track keeps a connection. socket is below raw, which may be TLS.
func (s *streams) track(raw, socket net.Conn, incoming bool) (*conn, bool) {
	c := &conn{Conn: raw, owner: s, seat: seat{
		socket: socket, incoming: incoming, since: time.Now(),
	}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = socket.Close()
		return nil, false
	}
	if incoming {
		s.makeRoom(maxGreetingConns, func(o *conn) bool { return !o.greeted })
	}
	s.conns[c] = struct{}{}
	return c, true
}

func (s *streams) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if c.held {
		s.wg.Done()
	}
}

// hold makes Close wait until raft's handler of c has ended.
func (s *streams) hold(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, open := s.conns[c]; !open || s.closed {
		return false
	}
	c.held = true
	s.wg.Add(1)
	return true
}

func (s *streams) welcome(socket net.Conn) {
	raw := socket
	if s.tls != nil {
		raw = tls.Server(socket, s.tls)
	}
	c, ok := s.track(raw, socket, true)
	if !ok {
		return
	}
	_ = c.SetDeadline(time.Now().Add(greetingTimeout))
	tag, who, err := acceptPreamble(c)
	if err != nil {
		s.log.Debug("connection without a greeting", "from", raw.RemoteAddr(), "err", err)
		_ = c.Close()
		return
	}
	answer := s.hooks.self()
	no := s.objection(c, tag, who, answer.Cluster)
	answer.Refusal, answer.GoneBack, answer.OtherDisk = no.why, no.goneBack, no.otherDisk
	verdict := verdictWelcome
	if answer.Refusal != "" {
		verdict = verdictRefused
	}
	if verdict == verdictWelcome && !s.admit(c, who) {
		_ = c.Close()
		return
	}
	if err := writeGreeting(c, []byte{verdict}, answer); err != nil || verdict != verdictWelcome {
		_ = c.Close()
		return
	}
	_ = c.SetDeadline(time.Time{})
	switch tag {
	case tagPeer:
		s.hooks.servePeer(c, who.ID)
		_ = c.Close()
	case tagRaft:
		if !s.hold(c) {
			_ = c.Close()
			return
		}
		select {
		case s.accepted <- &raftConn{conn: c, limit: maxRaftCall}:
		case <-s.ctx.Done():
			_ = c.Close()
		}
	default:
		_ = c.Close()
	}
}

// objection says why a server that dialed is turned away.
func (s *streams) objection(c *conn, tag byte, who greeting, cluster string) refusalReason {
	proved, why := s.proof(c, who.ID)
	if who.Cluster != "" && who.Cluster != cluster && why == "" {
		s.hooks.called(who)
	}
	switch {
	case foreign(cluster, who.Cluster):
		s.warnOnce(who, "refused a member of another cluster; check the configured addresses")
		return refusalReason{why: "this is a member of cluster " + cluster}
	case why != "":
		s.warnOnce(who, "refused a server that its certificate does not name")
		return refusalReason{why: why}
	case tag == tagRaft && s.hooks.uninvited():
		// A newcomer learns its cluster from its invitation. Until then it follows no leader.
		s.warnOnce(who, "refused raft calls of a cluster that has not invited this server")
		return refusalReason{why: "not invited to cluster " + who.Cluster}
	}
	no := s.hooks.admit(meeting{greeting: who, proved: proved})
	if no.why != "" {
		s.warnOnce(who, no.warning())
	}
	return no
}

func foreign(a, b string) bool { return a != "" && b != "" && a != b }

// warnOnce warns about each server and disk once.
func (s *streams) warnOnce(who greeting, msg string) {
	key := who.Cluster + "/" + who.ID + "/" + who.Disk
	s.mu.Lock()
	seen := s.warned[key] || len(s.warned) >= maxGreetings
	if !seen {
		s.warned[key] = true
	}
	s.mu.Unlock()
	if !seen {
		s.log.Warn(msg, "peer", who.ID, "addr", who.Raft, "peer_cluster", who.Cluster,
			"our_cluster", s.hooks.self().Cluster)
	}
}

// dial connects to addr, greets, and returns what the other end says about itself.
func (s *streams) dial(ctx context.Context, addr string, tag byte) (*conn, greeting, error) {
	socket, err := s.network.Dial(ctx, addr)
	if err != nil {
		return nil, greeting{}, err
	}
	raw := socket
	if s.tls != nil {
		raw = tls.Client(socket, clientTLS(s.tls, addr))
	}
	c, ok := s.track(raw, socket, false)
	if !ok {
		return nil, greeting{}, ErrClosed
	}
	deadline, has := ctx.Deadline()
	if limit := time.Now().Add(greetingTimeout); !has || deadline.After(limit) {
		deadline = limit
	}
	_ = c.SetDeadline(deadline)
	unhook := context.AfterFunc(ctx, func() { _ = c.Close() })
	who, err := s.greet(c, addr, tag)
	if !unhook() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil && !s.admit(c, who) {
		err = ErrClusterMismatch
	}
	if err != nil {
		_ = c.Close()
		return nil, who, fmt.Errorf("greet %s: %w", addr, err)
	}
	_ = c.SetDeadline(time.Time{})
	return c, who, nil
}

func (s *streams) greet(c *conn, addr string, tag byte) (greeting, error) {
	self := s.hooks.self()
	self.Expects = s.hooks.expected(addr)
	if err := writeGreeting(c, append([]byte(preambleMagic), tag), self); err != nil {
		return greeting{}, err
	}
	var verdict [1]byte
	who, err := readGreeting(c, verdict[:])
	if err != nil {
		return who, err
	}
	proved, why := s.proof(c, who.ID)
	switch {
	case foreign(s.hooks.self().Cluster, who.Cluster):
		if why == "" && slices.Contains(strings.Split(who.Ended, ","), s.hooks.self().Cluster) {
			s.hooks.ended(meeting{who, proved, addr})
		}
		s.warnOnce(who, metForeigner(self.Expects))
		return who, fmt.Errorf("%w: %s is of cluster %q", ErrClusterMismatch, who.ID, who.Cluster)
	case verdict[0] != verdictWelcome:
		s.warnOnce(who, "a peer refuses this server: "+who.Refusal)
		if why == "" && who.GoneBack {
			s.hooks.goneBack(meeting{who, proved, addr})
		}
		class := ErrRefused
		if who.OtherDisk {
			class = errOtherDisk
		}
		return who, fmt.Errorf("%w: %s: %s", class, who.ID, who.Refusal)
	}
	if why != "" {
		s.warnOnce(who, "met a server that its certificate does not name")
		return who, fmt.Errorf("%w: %s at %s: %s", ErrRefused, who.ID, addr, why)
	}
	if no := s.hooks.admit(meeting{who, proved, addr}); no.why != "" {
		s.warnOnce(who, no.warning())
		return who, fmt.Errorf("%w: %s: %s", ErrRefused, who.ID, no.why)
	}
	return who, nil
}

// metForeigner says what an operator does about a server of another cluster. It may be where
// ours has a member.
func metForeigner(member string) string {
	if member == "" {
		return "met a member of another cluster; check the configured addresses"
	}
	return "met a member of another cluster at the address of " + member + ", which may have lost " +
		"its disk; if so, replace it by an empty server with another id (storcon_cli cluster " +
		"replace)"
}

func clientTLS(base *tls.Config, addr string) *tls.Config {
	cfg := base.Clone()
	if cfg.ServerName == "" {
		if host, _, err := net.SplitHostPort(addr); err == nil {
			cfg.ServerName = host
		}
	}
	return cfg
}

// Accept, Close, Addr and Dial make streams raft's StreamLayer.
func (s *streams) Accept() (net.Conn, error) {
	select {
	case c := <-s.accepted:
		return c, nil
	case <-s.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (s *streams) Addr() net.Addr { return s.listener.Addr() }

func (s *streams) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	id := s.hooks.expected(string(addr)) // before the other one tells where it is
	c, who, err := s.dial(ctx, string(addr), tagRaft)
	if err != nil {
		return nil, err
	}
	if id != "" && id != who.ID {
		_ = c.Close()
		return nil, fmt.Errorf("%w: at %s there is %s, not %s", ErrRefused, addr, who.ID, id)
	}
	return &raftConn{conn: c, limit: maxRaftAnswer, begun: true}, nil
}

// sever closes the listener and every connection, and refuses new ones.
func (s *streams) sever() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	open := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		open = append(open, c)
	}
	s.mu.Unlock()
	s.cancel()
	_ = s.listener.Close()
	for _, c := range open {
		// The handler still closes a held connection itself, which ends its accounting.
		if c.held {
			_ = c.Conn.Close()
		} else {
			_ = c.Close()
		}
	}
}

// Close severs everything; join waits for the handlers.
func (s *streams) Close() error {
	s.sever()
	return nil
}

func (s *streams) join() { s.wg.Wait() }
