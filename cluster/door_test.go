package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"quorate/cluster/clustertest"
)

// stranger connects to the peers' port of a server as another program would, says who it
// claims to be, and returns the connection and what the server answers.
func stranger(t testing.TB, addr string, tag byte, claim greeting) (net.Conn, greeting) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if err := writeGreeting(c, append([]byte(preambleMagic), tag), claim); err != nil {
		t.Fatal(err)
	}
	var verdict [1]byte
	who, err := readGreeting(c, verdict[:])
	if err != nil {
		t.Fatal(err)
	}
	return c, who
}

// oneConn lets raft's own transport talk over a connection that is there already.
type oneConn struct {
	net.Conn
	closed chan struct{}
}

func (o oneConn) Accept() (net.Conn, error) {
	<-o.closed
	return nil, net.ErrClosed
}
func (o oneConn) Close() error   { close(o.closed); return nil }
func (o oneConn) Addr() net.Addr { return o.LocalAddr() }
func (o oneConn) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	return o.Conn, nil
}

// raftStranger greets as the claimed server and returns raft's transport on that connection.
func raftStranger(t testing.TB, addr string, claim greeting) *raft.NetworkTransport {
	t.Helper()
	c, _ := stranger(t, addr, tagRaft, claim)
	_ = c.SetDeadline(time.Time{})
	tr := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: oneConn{c, make(chan struct{})}, MaxPool: 1, MaxRPCsInFlight: 1,
		Timeout: time.Second, Logger: raftLogger(discardLogger()),
	})
	t.Cleanup(func() { _ = tr.Close() })
	return tr
}

// A follower forwards requests, with their tokens, to the address that it holds for the
// leader. A stranger that claims to be the leader must not change it.
func TestAStrangerDoesNotChangeTheAddressOfAMember(t *testing.T) {
	tr := startTCP(t, 3, Timeouts{})
	lead, follower := tr.leader(), tr.follower()
	want := "http://" + lead.ID()
	eventually(t, "the follower knows the leader's address", func() bool {
		l, ok := follower.Leader()
		return ok && l.HTTPAddr == want
	})
	claim := lead.self.greeting()
	claim.HTTP, claim.Raft = "http://evil", "127.0.0.1:9"
	for _, tag := range []byte{tagPeer, tagRaft} {
		if _, who := stranger(t, follower.cfg.RaftListen, tag, claim); who.Refusal != "" {
			t.Fatalf("refused: %s", who.Refusal)
		}
		if l, _ := follower.Leader(); l.HTTPAddr != want {
			t.Fatalf("requests would be forwarded to %s", l.HTTPAddr)
		}
		if a := follower.peers.address(raft.ServerID(lead.ID()), ""); a != "" &&
			string(a) != lead.cfg.RaftListen {
			t.Fatalf("raft would talk to %s", a)
		}
	}
	// Nor does one that makes itself the leader.
	evil := raftStranger(t, follower.cfg.RaftListen,
		greeting{ID: "evil", Cluster: claim.Cluster, HTTP: "http://evil"})
	var resp raft.AppendEntriesResponse
	if err := evil.AppendEntries("x", "x", &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("evil"), Addr: []byte("h:1")},
		Term:      follower.Status().Term + 1,
	}, &resp); err != nil {
		t.Fatal(err)
	}
	if l, _ := follower.Leader(); l.HTTPAddr != "" && l.HTTPAddr != want {
		t.Fatalf("requests would be forwarded to %s", l.HTTPAddr)
	}
}

// One call with a term near the largest would leave the cluster without a leader for ever:
// no candidate could have a higher one.
func TestAbsurdTermsAreRefused(t *testing.T) {
	tr := startTCP(t, 3, Timeouts{})
	lead, follower := tr.leader(), tr.follower()
	header := lead.node.header()
	for _, term := range []uint64{1 << 63, 1<<64 - 1, follower.Status().Term + 1<<33} {
		evil := raftStranger(t, follower.cfg.RaftListen, lead.self.greeting())
		_ = evil.AppendEntries("x", "x",
			&raft.AppendEntriesRequest{RPCHeader: header, Term: term},
			&raft.AppendEntriesResponse{})
		_ = evil.RequestVote("x", "x", &raft.RequestVoteRequest{
			RPCHeader: header, Term: term, LastLogTerm: term, LastLogIndex: 1 << 40,
			LeadershipTransfer: true,
		}, &raft.RequestVoteResponse{})
		_ = evil.RequestPreVote("x", "x", &raft.RequestPreVoteRequest{RPCHeader: header, Term: term},
			&raft.RequestPreVoteResponse{})
	}
	for _, nd := range tr.nodes {
		if term := nd.Status().Term; term > 1<<32 {
			t.Fatalf("%s is in term %d", nd.ID(), term)
		}
	}
	tr.leader().mustPropose(t, "still works")
}

// strangersStreams dial as a server that claims an id, with a certificate that may name
// another one.
func strangersStreams(claim greeting, secure *tls.Config) *streams {
	return newStreams(tcpNetwork{}, secure, nil, discardLogger(), streamHooks{
		self:     func() greeting { return claim },
		admit:    func(meeting) refusalReason { return refusalReason{} },
		isMember: func(string) bool { return false },
		expected: func(string) string { return claim.Expects },
	})
}

func TestACertificateNamesItsServer(t *testing.T) {
	ca := newAuthority(t)
	tr := startTLS(t, ca)
	lead := tr.leader()
	lead.mustPropose(t, "a")
	follower := tr.follower()
	other := "a"
	for _, nd := range tr.nodes {
		if nd != lead && nd != follower {
			other = nd.ID()
		}
	}
	claim := lead.self.greeting()
	claim.HTTP = "http://evil"
	for _, c := range []struct {
		name    string
		secure  *tls.Config
		welcome bool
	}{
		{"of another member", ca.of(other), false},
		{"of nobody", ca.of(), false},
		{"with a wildcard", ca.of("*", "*."+lead.ID()), false},
		{"with a longer name", ca.of(lead.ID() + ".example.com"), false},
		{"of the same name elsewhere", newAuthority(t).of(lead.ID()), false},
		{"its own", ca.of("x", lead.ID()), true},
	} {
		for _, tag := range []byte{tagPeer, tagRaft} {
			s := strangersStreams(claim, c.secure)
			conn, _, err := s.dial(t.Context(), follower.cfg.RaftListen, tag)
			if (err == nil) != c.welcome {
				t.Errorf("certificate %s, %c: %v", c.name, tag, err)
			}
			if err == nil {
				_ = conn.Close()
			}
		}
		l, _ := follower.Leader()
		if believed := l.HTTPAddr == claim.HTTP; believed != c.welcome && l.ID == lead.ID() {
			t.Errorf("certificate %s: the address is %s", c.name, l.HTTPAddr)
		}
	}
}

// A server that is dialed must be who it says, and who is meant.
func TestTheDialedServerProvesWhoItIs(t *testing.T) {
	ca := newAuthority(t)
	tr := startTLS(t, ca)
	lead := tr.leader()
	for _, secure := range []*tls.Config{ca.of("x"), ca.of(), newAuthority(t).of("c9")} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		evil := newStreams(tcpNetwork{}, secure, l, discardLogger(), streamHooks{
			self:      func() greeting { return greeting{ID: "c9", Raft: l.Addr().String()} },
			admit:     func(meeting) refusalReason { return refusalReason{} },
			isMember:  func(string) bool { return false },
			uninvited: func() bool { return false }, called: func(greeting) {},
			servePeer: func(net.Conn, string) {},
		})
		evil.start()
		for _, tag := range []byte{tagPeer, tagRaft} {
			if _, _, err := lead.streams.dial(t.Context(), l.Addr().String(), tag); err == nil {
				t.Errorf("dialed a server whose certificate names %v", secure)
			}
		}
		_ = evil.Close()
		evil.join()
	}
	// Raft meant one member and meets another.
	follower := tr.follower()
	lead.peers.remember(known{greeting: greeting{
		ID: lead.ID(), Raft: follower.cfg.RaftListen,
	}, proved: true})
	old := follower.cfg.RaftListen
	lead.peers.remember(known{greeting: greeting{ID: follower.ID(), Raft: "127.0.0.1:1"},
		proved: true})
	if _, err := lead.streams.Dial(raft.ServerAddress(old), time.Second); err == nil {
		t.Error("raft talks to another member than it means")
	}
}

// Without certificates a server is believed only at the address of the membership.
func TestWithoutCertificatesOnlyTheMembershipsAddressIsBelieved(t *testing.T) {
	tr := startTCP(t, 3, Timeouts{})
	p := tr.leader().peers
	follower := tr.follower()
	home := p.home(follower.ID())
	told := follower.self.greeting()
	told.Raft = "127.0.0.1:1"
	for _, c := range []struct {
		m        meeting
		believed bool
	}{
		{meeting{told, false, ""}, false},
		{meeting{told, false, "127.0.0.1:1"}, false},
		{meeting{told, false, home}, true},
	} {
		c.m.HTTP = "http://" + fmt.Sprint(c.m.dialed)
		if why := p.admit(c.m); why.why != "" {
			t.Fatal(why.why)
		}
		if got := p.greeting(follower.ID()).HTTP == c.m.HTTP; got != c.believed {
			t.Errorf("%+v believed: %v", c.m, got)
		}
		if got := p.home(follower.ID()); got != home {
			t.Errorf("raft talks to %s", got)
		}
	}
	p.learn(greeting{ID: "f", Raft: "h:1"}) // by an operator
	if p.admit(meeting{greeting{ID: "f", Raft: "h:2"}, false, "h:1"}); p.home("f") != "h:1" {
		t.Errorf("raft talks to %s", p.home("f"))
	}
	p.remember(known{greeting: greeting{ID: "g", HTTP: "http://g"}, proved: true})
	if got := tr.leader().membership.httpAddr("g"); got != "" {
		t.Errorf("requests would be forwarded to %s, which is no member", got)
	}
}

// Nothing that strangers say is kept, on disk or in memory.
func TestStrangersLeaveNothingBehind(t *testing.T) {
	tr := startTCP(t, 1, Timeouts{})
	lead := tr.leader()
	before, err := os.ReadFile(filepath.Join(lead.cfg.DataDir, "met.json"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for i := range 2 * maxGreetings {
		g := greeting{ID: fmt.Sprintf("s%d", i), Disk: fmt.Sprint(i), Raft: "127.0.0.1:1"}
		if why := lead.peers.admit(meeting{g, i%2 == 0, ""}); why.why != "" {
			t.Fatal(why.why)
		}
		lead.streams.warnOnce(g, "test")
	}
	after, err := os.ReadFile(filepath.Join(lead.cfg.DataDir, "met.json"))
	if err != nil && !os.IsNotExist(err) || string(before) != string(after) {
		t.Errorf("met.json went from %q to %q (%v)", before, after, err)
	}
	if n := len(lead.peers.addrs); n > maxGreetings {
		t.Errorf("%d greetings are kept", n)
	}
	if n := len(lead.streams.warned); n > maxGreetings {
		t.Errorf("%d warnings are kept", n)
	}
	lead.peers.founders = []string{"m"}
	lead.peers.learn(greeting{ID: "m", Raft: "h:1"})
	if lead.peers.greeting("m").Raft != "h:1" {
		t.Error("a member has no room, for all the strangers")
	}
	for i := range 2 * maxGreetings {
		lead.peers.remember(known{greeting: greeting{ID: fmt.Sprintf("t%d", i)}, proved: true})
	}
	if lead.peers.greeting("m").Raft != "h:1" {
		t.Error("strangers drove a member out")
	}
}

// Idle connections of a stranger, before and after the greeting, keep no member out.
func TestConnectionsAreBounded(t *testing.T) {
	tr := startTCP(t, 3, Timeouts{})
	lead := tr.leader()
	lead.mustPropose(t, "a")
	s := lead.streams
	count := func() (greeting, all int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.conns {
			if c.incoming {
				all++
				if !c.greeted {
					greeting++
				}
			}
		}
		return greeting, all
	}
	for i := range 4 * maxGreetingConns {
		c, err := net.Dial("tcp", lead.cfg.RaftListen)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i%2 == 0 {
			_ = writeGreeting(c, []byte("QC1P"), greeting{ID: "s" + fmt.Sprint(i)})
		}
	}
	eventually(t, "only some are kept", func() bool {
		g, all := count()
		return g <= maxGreetingConns && all <= maxGreetingConns+maxStrangerConns+2*maxPeerConns
	})
	for range 2 * maxPeerConns {
		c, who := stranger(t, lead.cfg.RaftListen, tagPeer,
			greeting{ID: tr.follower().ID(), Disk: tr.follower().self.disk})
		defer c.Close()
		if who.Refusal != "" {
			t.Fatal(who.Refusal)
		}
	}
	eventually(t, "only some of one member are kept", func() bool {
		_, all := count()
		return all <= maxGreetingConns+maxStrangerConns+2*maxPeerConns
	})
	tr.leader().mustPropose(t, "b")
	for _, nd := range tr.nodes {
		if err := nd.ReadBarrier(t.Context()); err != nil {
			t.Errorf("%s: %v", nd.ID(), err)
		}
	}
}

// Connections that were made before the server knew its cluster are compared again.
func TestConnectionsAreComparedAgainOnceTheClusterIsKnown(t *testing.T) {
	open := func(id, cluster string) *Cluster {
		c, err := Open(context.Background(), Config{
			ID: id, RaftListen: "127.0.0.1:0", Disk: clustertest.NewMemoryDisk(),
			Members:   []Member{{id, "127.0.0.1:1"}, {"z", "127.0.0.1:2"}},
			ClusterID: cluster,
		}, &ledger{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close(context.Background()) })
		return c
	}
	for _, c := range []struct {
		theirs string
		stays  bool
	}{{"", false}, {"other", false}, {"ours", true}} {
		a := open("a", "")
		conn, who := stranger(t, a.streams.Addr().String(), tagPeer,
			greeting{ID: "b", Cluster: c.theirs})
		if who.Refusal != "" || who.Cluster != "" {
			t.Fatalf("%+v", who)
		}
		if err := a.SetClusterID("ours"); err != nil {
			t.Fatal(err)
		}
		_, err := conn.Write(appendPeerFrame(nil, peerFrame{kind: callTerm, id: 1}))
		if err == nil {
			_, err = readPeerFrame(conn)
		}
		if (err == nil) != c.stays {
			t.Errorf("a connection of cluster %q to one of \"ours\": %v", c.theirs, err)
		}
	}
}

// What a snapshot replaces is gone, so both ends must know that they are of one cluster.
func TestASnapshotComesOnlyFromTheOwnCluster(t *testing.T) {
	tr := startTCP(t, 3, Timeouts{})
	lead, follower := tr.leader(), tr.follower()
	lead.mustPropose(t, "a")
	index := follower.Status().LastIndex
	claim := lead.self.greeting()
	for _, cluster := range []string{"", claim.Cluster} {
		claim.Cluster = cluster
		evil := raftStranger(t, follower.cfg.RaftListen, claim)
		var resp raft.InstallSnapshotResponse
		err := evil.InstallSnapshot("x", "x", &raft.InstallSnapshotRequest{
			RPCHeader: lead.node.header(), SnapshotVersion: 1, Term: lead.Status().Term,
			LastLogIndex: index, LastLogTerm: lead.Status().Term, Size: 1, ConfigurationIndex: 1,
			Configuration: raft.EncodeConfiguration(configuration(lead.cfg.Members)),
		}, &resp, strings.NewReader("x"))
		refused := err != nil && !strings.Contains(err.Error(), "restore")
		if refused != (cluster == "") {
			t.Errorf("from a server of cluster %q: %v", cluster, err)
		}
	}
}

// A length that no server would send ends the connection before it is in memory.
func TestRaftCallsAreBounded(t *testing.T) {
	tr := startTCP(t, 1, Timeouts{})
	lead := tr.leader()
	c, _ := stranger(t, lead.cfg.RaftListen, tagRaft, greeting{ID: "s"})
	sent, part := 0, make([]byte, 1<<20)
	// an AppendEntries whose field Addr is an array of 4 GB
	head := append([]byte{0, 0x81, 0xa4}, "Addr"...)
	head = append(head, 0xc6, 0xff, 0xff, 0xff, 0xff)
	_, err := c.Write(head)
	for ; err == nil && sent < 256<<20; sent += len(part) {
		_, err = c.Write(part)
	}
	if err == nil {
		t.Fatalf("%d bytes of one call were taken", sent)
	}
}

func TestImplausibleCalls(t *testing.T) {
	entry := func(index, term uint64) *raft.Log {
		return &raft.Log{Index: index, Term: term, Type: raft.LogNoop}
	}
	kind := func(kind raft.LogType, data []byte) *raft.AppendEntriesRequest {
		return &raft.AppendEntriesRequest{Term: 7, Entries: []*raft.Log{
			{Index: 1, Term: 1, Type: kind, Data: data},
		}}
	}
	conf := raft.EncodeConfiguration(configuration([]Member{{"a", "h:1"}}))
	snapshot := func(s raft.InstallSnapshotRequest) *raft.InstallSnapshotRequest {
		s.Term, s.SnapshotVersion = 7, 1
		if s.Configuration == nil {
			s.Configuration = conf
		}
		return &s
	}
	entries := func(prev, term uint64, logs ...*raft.Log) *raft.AppendEntriesRequest {
		return &raft.AppendEntriesRequest{PrevLogEntry: prev, Term: term, Entries: logs}
	}
	const own = 7
	for name, c := range map[string]struct {
		command any
		ok      bool
	}{
		"an older term":        {&raft.RequestVoteRequest{Term: 1}, true},
		"the next term":        {&raft.RequestVoteRequest{Term: own + 1}, true},
		"a far term":           {&raft.RequestVoteRequest{Term: own + maxTermStep}, true},
		"a too far term":       {&raft.RequestVoteRequest{Term: own + maxTermStep + 1}, false},
		"a pre-vote":           {&raft.RequestPreVoteRequest{Term: 1 << 63}, false},
		"a hand-over":          {&raft.TimeoutNowRequest{}, true},
		"no entries":           {entries(1<<63, own), true},
		"entries":              {entries(4, own, entry(5, own), entry(6, own)), true},
		"the first entry":      {entries(0, own, entry(1, own)), true},
		"a gap":                {entries(4, own, entry(5, own), entry(7, own)), false},
		"a far entry":          {entries(0, own, entry(1<<63, own)), false},
		"a later term's entry": {entries(4, own, entry(5, own+1)), false},
		"nothing for an entry": {entries(4, own, nil), false},
		"a command":            {kind(raft.LogCommand, encodeFrame([][]byte{{1}})), true},
		"a damaged command":    {kind(raft.LogCommand, []byte{1, 2, 3, 4, 5, 6}), false},
		"a membership":         {kind(raft.LogConfiguration, conf), true},
		"no membership":        {kind(raft.LogConfiguration, nil), false},
		"a broken membership":  {kind(raft.LogConfiguration, []byte("abc")), false},
		"an unknown kind":      {kind(77, nil), false},
		"an old kind":          {kind(raft.LogAddPeerDeprecated, nil), false},
		"a snapshot":           {snapshot(raft.InstallSnapshotRequest{Size: 1 << 30}), true},
		"a negative snapshot":  {snapshot(raft.InstallSnapshotRequest{Size: -1}), false},
		"a huge snapshot":      {snapshot(raft.InstallSnapshotRequest{Size: 1 << 60}), false},
		"a far snapshot": {
			snapshot(raft.InstallSnapshotRequest{LastLogIndex: 1 << 63}), false,
		},
		"a snapshot without members": {
			snapshot(raft.InstallSnapshotRequest{Configuration: []byte{}}), false,
		},
	} {
		if err := absurdity(c.command, own); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if absurdTerm(maxTerm+1, maxTerm) == nil || absurdTerm(maxTerm, maxTerm-1) != nil {
		t.Error("the largest term is another")
	}
}

// An answer raises the term as well as a call does.
func TestAbsurdTermsInAnswersAreRefused(t *testing.T) {
	tr := startTCP(t, 1, Timeouts{})
	lead := tr.leader()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	evil := newStreams(tcpNetwork{}, nil, l, discardLogger(), streamHooks{
		self:      func() greeting { return greeting{ID: "evil"} },
		admit:     func(meeting) refusalReason { return refusalReason{} },
		isMember:  func(string) bool { return false },
		uninvited: func() bool { return false }, called: func(greeting) {},
	})
	evil.start()
	server := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: evil, MaxPool: 1, Timeout: time.Second, Logger: raftLogger(discardLogger()),
	})
	defer evil.join()
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case rpc := <-server.Consumer():
				switch rpc.Command.(type) {
				case *raft.AppendEntriesRequest:
					rpc.Respond(&raft.AppendEntriesResponse{Term: 1 << 63}, nil)
				case *raft.RequestVoteRequest:
					rpc.Respond(&raft.RequestVoteResponse{Term: 1 << 63}, nil)
				case *raft.RequestPreVoteRequest:
					rpc.Respond(&raft.RequestPreVoteResponse{Term: 1 << 63}, nil)
				case *raft.InstallSnapshotRequest:
					rpc.Respond(&raft.InstallSnapshotResponse{Term: 1 << 63}, nil)
				}
			case <-ctx.Done():
				return
			}
		}
	})
	defer wg.Wait()
	defer cancel()
	to, at, by := raft.ServerID("evil"), raft.ServerAddress(l.Addr().String()), lead.node.transport
	for name, err := range map[string]error{
		"append": by.AppendEntries(to, at, &raft.AppendEntriesRequest{},
			&raft.AppendEntriesResponse{}),
		"vote": by.RequestVote(to, at, &raft.RequestVoteRequest{}, &raft.RequestVoteResponse{}),
		"pre-vote": by.RequestPreVote(to, at, &raft.RequestPreVoteRequest{},
			&raft.RequestPreVoteResponse{}),
		"snapshot": by.InstallSnapshot(to, at, &raft.InstallSnapshotRequest{},
			&raft.InstallSnapshotResponse{}, strings.NewReader("")),
	} {
		if !errors.Is(err, errAbsurd) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Raft's decoder of memberships panics; ours must not.
func FuzzMembershipIsDecodedOrRefused(f *testing.F) {
	f.Add(raft.EncodeConfiguration(configuration([]Member{{"a", "h:1"}})))
	f.Add([]byte{0xdf, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(_ *testing.T, b []byte) { decodable(b) })
}
