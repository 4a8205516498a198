package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
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
	addrs map[string]known // by server id
	links map[string]*peerLink
}

// known is what this server believes of another one.
type known struct {
	greeting
	// proved: its raft address is the server's own word, and it has proved who it is.
	// Otherwise the address is what an operator gave, and the membership goes before.
	proved bool
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
		addrs: make(map[string]known), links: make(map[string]*peerLink),
	}
}

// learn remembers what an operator, or a server that has proved who it is, told.
func (p *peers) learn(g greeting) { p.remember(known{greeting: g}) }

func (p *peers) remember(k known) {
	if k.ID == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	before, have := p.addrs[k.ID]
	if !have && len(p.addrs) >= maxGreetings && !p.forgetStranger() {
		return
	}
	if k.Raft == "" {
		k.Raft, k.proved = before.Raft, before.proved
	}
	if k.HTTP == "" {
		k.HTTP = before.HTTP
	}
	if k.Level == 0 { // only the server itself tells
		k.Level = before.Level
	}
	if k.Version == "" {
		k.Version = before.Version
	}
	p.addrs[k.ID] = k
	if k.HTTP != before.HTTP {
		p.moved()
	}
}

// forgetStranger makes room for another server. It reports false if all are members.
func (p *peers) forgetStranger() bool {
	for id := range p.addrs {
		if !p.isFounder(id) && !p.node.isMember(id) {
			delete(p.addrs, id)
			return true
		}
	}
	return false
}

func (p *peers) isFounder(id string) bool { return slices.Contains(p.founders, id) }

// admit remembers a peer that is welcome, and says why another one is not.
//
// Before a cluster is founded, the founders count as its members: one that comes back
// with another disk may have forgotten the founding.
//
// So is one whose disk had more when it was last seen: it has forgotten votes, or entries
// that it acknowledged.
func (p *peers) admit(m meeting) refusalReason {
	ok, err := p.disks.Record(m.ID, m.Disk, func(id string) bool {
		return p.node.isMember(id) || p.node.empty() && p.isFounder(id)
	})
	if err != nil {
		return refusalReason{why: err.Error()}
	}
	if !ok {
		return refusalReason{
			otherDisk: true, why: "server " + m.ID + " is a member with another disk",
		}
	}
	if had, back := p.disks.GoneBack(m.ID, datadir.Progress{
		Disk: m.Disk, Run: m.Run, Term: m.Term, Index: m.Last,
	}); back {
		return refusalReason{goneBack: true, why: fmt.Sprintf("the disk of %s ends with entry %d "+
			"in term %d and had entry %d in term %d: it is an older copy", m.ID, m.Last,
			m.Term, had.Index, had.Term)}
	}
	p.believe(m)
	return refusalReason{}
}

// believe remembers what a server says about itself, as far as it is worth something.
// A server whose certificate names it is believed. Without certificates anybody can claim
// to be any server, so only who answers at the address of the membership is believed, and
// never another address for raft. Others get requests with their tokens at these addresses.
func (p *peers) believe(m meeting) {
	if m.proved {
		p.remember(known{greeting: m.greeting, proved: m.Raft != ""})
		return
	}
	if m.dialed != "" && m.dialed == p.home(m.ID) {
		m.Raft = ""
		p.remember(known{greeting: m.greeting})
	}
}

// isMember reports whether a server that was dialed is a member: its certificate says so,
// or it is where the membership has it. Gossip and applications for membership have this
// server dial strangers too.
func (p *peers) isMember(m meeting) bool {
	return p.node.isMember(m.ID) && (m.proved || m.dialed == p.home(m.ID))
}

// isSuccessor reports whether a server that was dialed may say that our cluster has ended.
// It need not be a member any more, but it has a certificate or the place of one.
func (p *peers) isSuccessor(m meeting) bool {
	return m.proved || p.expected(m.dialed) != ""
}

// home is where a server is according to the membership or, before there is one, to
// the operator.
func (p *peers) home(id string) string {
	member, _ := p.node.find(id)
	return string(p.address(raft.ServerID(id), member.Address))
}

// expected is the member at an address, "" if there is none, or more than one.
func (p *peers) expected(addr string) (id string) {
	for _, s := range p.node.servers() {
		if string(p.address(s.ID, s.Address)) != addr {
			continue
		}
		if id != "" {
			return ""
		}
		id = string(s.ID)
	}
	return id
}

// address is where a server can be reached. It may have come back with another address
// than that of the membership, and proved that.
func (p *peers) address(id raft.ServerID, otherwise raft.ServerAddress) raft.ServerAddress {
	p.mu.Lock()
	k := p.addrs[string(id)]
	p.mu.Unlock()
	if k.Raft != "" && (k.proved || otherwise == "") {
		return raft.ServerAddress(k.Raft)
	}
	return otherwise
}

// greeting is the newest that was believed of a server, zero if there was none.
func (p *peers) greeting(id string) greeting {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addrs[id].greeting
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

// left reports whether a server is known to have been a member. The disks of members are
// remembered for ever, also when they have left.
func (p *peers) left(id string) bool {
	// There is a link for as long as the newest membership was not looked at.
	return p.link(id) != nil || p.disks.Disk(id) != ""
}

// dial connects to a member.
func (p *peers) dial(ctx context.Context, id string) (net.Conn, error) {
	return p.dialAs(ctx, id, p.home(id))
}

// dialAs connects to the server with this id at addr.
func (p *peers) dialAs(ctx context.Context, id, addr string) (net.Conn, error) {
	c, who, err := p.dialer.dial(ctx, addr, tagPeer)
	if err != nil {
		return nil, err
	}
	if who.ID != id {
		_ = c.Close()
		return nil, fmt.Errorf("%w: %s", ErrOtherServer, who.ID)
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
