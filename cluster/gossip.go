package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	gossipInterval = 100 * time.Millisecond
	// stableView is how long exactly the expected servers must have been in view.
	stableView = time.Second
	// rejoinInterval is how often a server that sees no other one tries its join list.
	rejoinInterval = time.Second
)

// gossip finds other servers and carries addresses. It never is the truth about the
// membership or about who is alive: those are raft's.
type gossip struct {
	expect     int
	keyed      bool // Config.GossipKey is set
	join       []string
	background *group
	node       *raftNode
	self       *identity
	peers      *peers
	membership *membership
	leads      func() bool
	warnOnce   func(who greeting, msg string)
	log        *slog.Logger
	list       *memberlist.Memberlist

	mu    sync.Mutex
	metas map[string]gossipMeta // by server id, this server's among them
	// agreed are the founders, see founders.
	agreed []Member

	seen      []Member      // the fresh servers last in view
	seenSince time.Time     // since when
	joined    time.Time     // last try
	adding    chan struct{} // holds one token while a server is being added
	crowded   bool          // the warning about too many servers was given
}

// gossipMeta travels with each server's entry; at most 512 bytes.
type gossipMeta struct {
	Cluster string `json:"c,omitempty"`
	Raft    string `json:"r"`
	HTTP    string `json:"h,omitempty"`
	Expect  int    `json:"e,omitempty"`
	Used    bool   `json:"u,omitempty"` // has raft state
}

// open begins to listen.
func (g *gossip) open(cfg Config) error {
	g.adding, g.metas = make(chan struct{}, 1), make(map[string]gossipMeta)
	host, port, err := net.SplitHostPort(cfg.GossipListen)
	if err != nil {
		return fmt.Errorf("cluster: gossip address: %w", err)
	}
	conf := memberlist.DefaultLANConfig()
	conf.Name = g.self.id
	conf.BindAddr = host
	if host == "" {
		conf.BindAddr = "0.0.0.0"
	}
	if conf.BindPort, err = strconv.Atoi(port); err != nil {
		return fmt.Errorf("cluster: gossip port: %w", err)
	}
	conf.AdvertisePort = conf.BindPort
	if advertised, _, err := net.SplitHostPort(g.self.advertise); err == nil {
		if ip := net.ParseIP(advertised); ip != nil && !ip.IsUnspecified() {
			conf.AdvertiseAddr = advertised
		}
	}
	// With these a death is noticed in 1.8 s instead of 5.6 s.
	conf.ProbeInterval, conf.ProbeTimeout = 300*time.Millisecond, 150*time.Millisecond
	conf.SuspicionMult = 3
	conf.GossipInterval = 100 * time.Millisecond
	conf.SecretKey = cfg.GossipKey
	conf.Delegate, conf.Alive, conf.Events = g, g, g
	conf.Logger = slog.NewLogLogger(g.log.Handler(), slog.LevelDebug)
	if g.list, err = memberlist.Create(conf); err != nil {
		return fmt.Errorf("cluster: gossip: %w", err)
	}
	return nil
}

// addr is the address that gossip listens on.
func (g *gossip) addr() string { return g.list.LocalNode().Address() }

func (g *gossip) run(ctx context.Context) {
	tick := time.NewTicker(gossipInterval)
	defer tick.Stop()
	last := g.meta()
	for {
		if now := g.meta(); now != last {
			last = now
			_ = g.list.UpdateNode(rejoinInterval)
		}
		g.look(ctx)
		select {
		case <-tick.C:
		case <-g.self.changed:
		case <-ctx.Done():
			_ = g.list.Leave(rejoinInterval)
			_ = g.list.Shutdown()
			return
		}
	}
}

func (g *gossip) meta() gossipMeta {
	return gossipMeta{
		Cluster: g.self.cluster(), Raft: g.self.advertise, HTTP: g.self.httpAddr,
		Expect: g.expect, Used: g.node.raft().LastIndex() > 0,
	}
}

// NodeMeta and the next four methods are what memberlist asks of its delegate.
func (g *gossip) NodeMeta(limit int) []byte {
	m := g.meta()
	b, err := json.Marshal(m)
	if err != nil || len(b) > limit {
		m.HTTP = "" // the servers learn it from each other's greeting
		b, _ = json.Marshal(m)
	}
	return b
}

func (*gossip) NotifyMsg([]byte)                {}
func (*gossip) GetBroadcasts(_, _ int) [][]byte { return nil }
func (*gossip) LocalState(bool) []byte          { return nil }
func (*gossip) MergeRemoteState([]byte, bool)   {}

// NotifyAlive turns away servers of other clusters.
func (g *gossip) NotifyAlive(n *memberlist.Node) error {
	m, ok := parseMeta(n.Meta)
	if !ok {
		return errPreamble
	}
	if foreign(m.Cluster, g.self.cluster()) {
		g.warnOnce(greeting{ID: n.Name, Cluster: m.Cluster, Raft: m.Raft},
			"gossip with a member of another cluster; check the configured addresses")
		return ErrClusterMismatch
	}
	return nil
}

// NotifyJoin, NotifyUpdate and NotifyLeave keep the view. Memberlist's own list
// hands out entries that it goes on changing.
func (g *gossip) NotifyJoin(n *memberlist.Node) {
	m, ok := parseMeta(n.Meta)
	if !ok {
		return
	}
	g.mu.Lock()
	g.metas[n.Name] = m
	g.mu.Unlock()
	// Without a key anybody can gossip. What is told is then good to look for new servers,
	// and not for the addresses of members.
	if n.Name != g.self.id && g.keyed {
		g.peers.learn(greeting{ID: n.Name, Raft: m.Raft, HTTP: m.HTTP, Cluster: m.Cluster})
	}
}

func (g *gossip) NotifyUpdate(n *memberlist.Node) { g.NotifyJoin(n) }

func (g *gossip) NotifyLeave(n *memberlist.Node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.metas, n.Name)
}

func (g *gossip) view() map[string]gossipMeta {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.metas)
}

func parseMeta(b []byte) (gossipMeta, bool) {
	var m gossipMeta
	return m, json.Unmarshal(b, &m) == nil && m.Raft != ""
}

// look does what the present view calls for.
func (g *gossip) look(ctx context.Context) {
	if len(g.view()) <= 1 && len(g.join) > 0 && time.Since(g.joined) > rejoinInterval {
		g.joined = time.Now()
		if _, err := g.list.Join(g.join); err != nil {
			g.log.Debug("no gossip yet", "err", err)
		}
	}
	metas := g.view()
	if g.expect > 0 && g.node.empty() {
		g.lookForFounders(metas)
	}
	if g.leads() {
		g.addNewcomers(ctx, metas)
	}
}

// founders returns the servers that found the cluster: exactly the expected number, all
// fresh and with the same expectation, and the same ones for a while. nil: not yet.
func (g *gossip) founders() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.agreed)
}

// lookForFounders keeps founders up.
func (g *gossip) lookForFounders(metas map[string]gossipMeta) {
	var members []Member
	for id, m := range metas {
		if m.Used {
			g.agree(nil) // there is a cluster: its leader adds us
			return
		}
		if m.Expect == g.expect {
			members = append(members, Member{ID: id, RaftAddr: m.Raft})
		}
	}
	members = sortedMembers(members)
	if len(members) > g.expect && !g.crowded {
		g.crowded = true
		g.log.Warn("more fresh servers than expected; none founds a cluster",
			"expected", g.expect, "seen", len(members))
	}
	if !slices.Equal(members, g.seen) {
		g.seen, g.seenSince = members, time.Now()
	}
	if len(members) != g.expect || time.Since(g.seenSince) < stableView {
		members = nil
	}
	g.agree(members)
}

func (g *gossip) agree(members []Member) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.agreed = members
}

// addNewcomers adds fresh servers, one at a time, without a vote: autopilot gives them
// theirs when that helps.
func (g *gossip) addNewcomers(ctx context.Context, metas map[string]gossipMeta) {
	var next *Member
	for id, m := range metas {
		if !m.Used && !g.node.isMember(id) {
			next = &Member{ID: id, RaftAddr: m.Raft}
		}
	}
	if next == nil {
		return
	}
	m := *next
	select {
	case g.adding <- struct{}{}:
	default:
		return
	}
	if !g.background.Go(func() {
		defer func() { <-g.adding }()
		ctx, cancel := context.WithTimeout(ctx, lagLimit)
		defer cancel()
		if !g.peers.isFresh(ctx, m) {
			return
		}
		if _, err := g.membership.addStandby(ctx, m); err != nil {
			g.log.Info("could not add a server yet", "member", m.ID, "err", err)
		}
	}) {
		<-g.adding
	}
}
