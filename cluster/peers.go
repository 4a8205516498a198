package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"quorate/cluster/internal/datadir"
	"quorate/internal/wait"
)

// reportInterval is how often a server asks its peers for a report. Nothing that must
// be fast depends on it.
const reportInterval = time.Second

// maxGreetings bounds what is remembered of other servers.
const maxGreetings = 1000

// dialer connects to another server and returns its greeting.
type dialer interface {
	dial(ctx context.Context, addr string, tag byte) (*conn, greeting, error)
}

// peers holds what is known about the other servers, and a link to each.
type peers struct {
	node   *raftNode
	disks  *datadir.KnownDisks
	dialer dialer
	heard  func(*link, peerReport)
	broken func(id string) // called when the standing connection to a server has ended
	wake   wait.Signal     // the membership may have changed
	moved  func()          // called when a server has told another address of its API
	// founders are the ids of Config.Members.
	founders []string

	mu    sync.Mutex
	addrs map[string]greeting // the newest greeting of each server id
	links map[string]*peerLink
}

type peerLink struct {
	*link
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func newPeers(
	node *raftNode, disks *datadir.KnownDisks, d dialer, broken func(id string),
) *peers {
	return &peers{
		node: node, disks: disks, dialer: d, broken: broken, wake: wait.NewSignal(),
		addrs: make(map[string]greeting), links: make(map[string]*peerLink),
	}
}

// learn remembers the addresses that a server told about itself.
func (p *peers) learn(g greeting) {
	if g.ID == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.addrs[g.ID]; known || len(p.addrs) < maxGreetings {
		if g.Raft == "" {
			g.Raft = p.addrs[g.ID].Raft
		}
		if g.Level == 0 { // only the server itself tells
			g.Level = p.addrs[g.ID].Level
		}
		before := p.addrs[g.ID].HTTP
		p.addrs[g.ID] = g
		if g.HTTP != before {
			p.moved()
		}
	}
}

// admit remembers a peer that is welcome, and says why another one is not.
//
// Before a cluster is founded, the founders count as its members: one that comes back
// with another disk may have forgotten the founding.
func (p *peers) admit(who greeting) string {
	ok, err := p.disks.Record(who.ID, who.Disk, func(id string) bool {
		return p.node.isMember(id) || p.node.empty() && slices.Contains(p.founders, id)
	})
	if err != nil {
		return err.Error()
	}
	if !ok {
		return "server " + who.ID + " is a member with another disk"
	}
	p.learn(who)
	return ""
}

// address prefers what the server said about itself to its membership entry. A server
// may come back with another address.
func (p *peers) address(id raft.ServerID, otherwise raft.ServerAddress) raft.ServerAddress {
	if g := p.greeting(string(id)); g.Raft != "" {
		return raft.ServerAddress(g.Raft)
	}
	return otherwise
}

// greeting is the newest of a server, zero if there was none.
func (p *peers) greeting(id string) greeting {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addrs[id]
}

func (p *peers) link(id string) *link {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.links[id]; l != nil {
		return l.link
	}
	return nil
}

// report is the newest of a server, nil if there was none.
func (p *peers) report(id string) *peerReport {
	if l := p.link(id); l != nil {
		return l.report.Load()
	}
	return nil
}

// run keeps one link to every other server of the membership until ctx ends.
func (p *peers) run(ctx context.Context) {
	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	for {
		p.adjust(ctx)
		select {
		case <-p.wake:
		case <-tick.C:
		case <-ctx.Done():
			p.stop(nil)
			return
		}
	}
}

func (p *peers) adjust(ctx context.Context) {
	want := make(map[string]bool)
	for _, s := range p.node.servers() {
		if id := string(s.ID); id != p.node.id {
			want[id] = true
		}
	}
	p.stop(want)
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range want {
		if p.links[id] != nil {
			continue
		}
		linkCtx, cancel := context.WithCancel(ctx)
		l := &peerLink{cancel: cancel, link: &link{
			id: id, dial: p.dial, broken: p.broken, heard: p.heard,
		}}
		p.links[id] = l
		l.wg.Go(func() { l.run(linkCtx) })
		l.wg.Go(func() { l.poll(linkCtx) })
	}
}

// stop ends and joins the links to servers that are not in keep.
func (p *peers) stop(keep map[string]bool) {
	var gone []*peerLink
	p.mu.Lock()
	for id, l := range p.links {
		if !keep[id] {
			gone = append(gone, l)
			delete(p.links, id)
		}
	}
	p.mu.Unlock()
	for _, l := range gone {
		l.cancel()
	}
	for _, l := range gone {
		l.wg.Wait()
	}
}

// dial connects to a member.
func (p *peers) dial(ctx context.Context, id string) (net.Conn, error) {
	member, _ := p.node.find(id)
	return p.dialAs(ctx, id, string(p.address(raft.ServerID(id), member.Address)))
}

// dialAs connects to the server with this id at addr.
func (p *peers) dialAs(ctx context.Context, id, addr string) (net.Conn, error) {
	c, who, err := p.dialer.dial(ctx, addr, tagPeer)
	if err != nil {
		return nil, err
	}
	if who.ID != id {
		_ = c.Close()
		return nil, ErrUnknownMember
	}
	return c, nil
}

// isFresh asks a server that need not be a member whether it has no state.
func (p *peers) isFresh(ctx context.Context, m Member) bool {
	ctx, cancel := context.WithTimeout(ctx, reportInterval)
	defer cancel()
	conn, err := p.dialAs(ctx, m.ID, m.RaftAddr)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(reportInterval))
	if _, err := conn.Write(appendPeerFrame(nil, peerFrame{kind: callStatus, id: 1})); err != nil {
		return false
	}
	f, err := readPeerFrame(bufio.NewReader(conn))
	var r peerReport
	return err == nil && f.kind == answerOK && json.Unmarshal(f.body, &r) == nil && r.Empty
}
