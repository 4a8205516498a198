package cluster

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// peerReport is what a server says about itself.
type peerReport struct {
	ID           string `json:"id"`
	State        string `json:"state"`
	Term         uint64 `json:"term"`
	LastTerm     uint64 `json:"last_term"`
	LastIndex    uint64 `json:"last_index"`
	AppliedIndex uint64 `json:"applied_index"`
	Sick         bool   `json:"sick,omitempty"`
	Empty        bool   `json:"empty,omitempty"` // no raft state at all

	// Points are hashes of the state, computed as Scheme says; see equality. Diverged
	// says why the server is out of service.
	Scheme   uint64  `json:"scheme,omitempty"`
	Points   []point `json:"points,omitempty"`
	Diverged string  `json:"diverged,omitempty"`
}

// reportInterval is how often a server asks its peers for a report. Nothing
// that must be fast depends on it.
const reportInterval = time.Second

// peers holds what is known about the other servers, and a link to each.
type peers struct {
	c     *Cluster
	wake  chan struct{}
	mu    sync.Mutex
	addrs map[string]greeting // the newest greeting of each server id
	links map[string]*peerLink
}

type peerLink struct {
	*link
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func newPeers(c *Cluster) *peers {
	return &peers{
		c: c, wake: make(chan struct{}, 1), addrs: make(map[string]greeting),
		links: make(map[string]*peerLink),
	}
}

// learn remembers the addresses that a server told about itself.
func (p *peers) learn(g greeting) {
	if g.ID == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.addrs[g.ID]; known || len(p.addrs) < 1000 {
		if g.Raft == "" {
			g.Raft = p.addrs[g.ID].Raft
		}
		if g.Level == 0 { // only the server itself tells
			g.Level = p.addrs[g.ID].Level
		}
		p.addrs[g.ID] = g
	}
}

// address prefers what the server said about itself over the membership entry:
// a server may come back with another address.
func (p *peers) address(id raft.ServerID, otherwise raft.ServerAddress) raft.ServerAddress {
	p.mu.Lock()
	defer p.mu.Unlock()
	if g, ok := p.addrs[string(id)]; ok && g.Raft != "" {
		return raft.ServerAddress(g.Raft)
	}
	return otherwise
}

func (p *peers) httpAddr(id string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addrs[id].HTTP
}

func (p *peers) level(id string) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addrs[id].Level
}

func (p *peers) link(id string) *link {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.links[id]; l != nil {
		return l.link
	}
	return nil
}

func (p *peers) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
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
	for _, s := range p.c.servers() {
		if id := string(s.ID); id != p.c.id {
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
		l := &peerLink{cancel: cancel, link: &link{id: id, dial: p.dial, broken: p.c.linkBroken}}
		p.links[id] = l
		l.wg.Go(func() { l.run(linkCtx) })
		l.wg.Go(func() { p.poll(linkCtx, l.link) })
	}
}

// stop ends and joins the links to servers not in keep.
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

func (p *peers) dial(ctx context.Context, id string) (net.Conn, error) {
	addr := p.address(raft.ServerID(id), p.configured(id))
	c, who, err := p.c.streams.dial(ctx, string(addr), tagPeer)
	if err != nil {
		return nil, err
	}
	if who.ID != id {
		_ = c.Close()
		return nil, ErrUnknownMember
	}
	return c, nil
}

func (p *peers) configured(id string) raft.ServerAddress {
	for _, s := range p.c.servers() {
		if string(s.ID) == id {
			return s.Address
		}
	}
	return ""
}

func (p *peers) poll(ctx context.Context, l *link) {
	tick := time.NewTicker(reportInterval)
	defer tick.Stop()
	for {
		if r, err := p.ask(ctx, l); err == nil {
			p.c.equality.hear(l, r)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// ask fetches a fresh report over a link.
func (p *peers) ask(ctx context.Context, l *link) (peerReport, error) {
	ctx, cancel := context.WithTimeout(ctx, reportInterval)
	defer cancel()
	body, err := l.call(ctx, callStatus, nil)
	if err != nil {
		return peerReport{}, err
	}
	var r peerReport
	if err := json.Unmarshal(body, &r); err != nil {
		return peerReport{}, err
	}
	l.report.Store(&r)
	return r, nil
}

// servePeer answers the calls of one connection until it ends.
func (c *Cluster) servePeer(conn net.Conn, _ greeting) {
	ctx, cancel := context.WithCancel(c.ctx)
	out := newOutbox()
	var wg sync.WaitGroup
	wg.Go(func() { out.run(conn) })
	slots := make(chan struct{}, 64) // calls of one peer that wait at once
	r := bufio.NewReader(conn)
	for {
		f, err := readPeerFrame(r)
		if err != nil {
			break
		}
		if f.kind == callTerm { // hot and never blocks: no goroutine
			body := binary.BigEndian.AppendUint64(nil, c.raft.CurrentTerm())
			if out.send(ctx, peerFrame{kind: answerOK, id: f.id, body: body}) != nil {
				break
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			answer := peerFrame{kind: answerOK, id: f.id}
			body, err := c.answer(ctx, f, out)
			if answer.body = body; err != nil {
				answer.kind, answer.body = answerRefused, refusal(err)
			}
			_ = out.send(ctx, answer)
		})
	}
	cancel()
	_ = conn.Close()
	close(out.done)
	wg.Wait()
}

// answer answers a call; parts of a long answer go out before.
func (c *Cluster) answer(ctx context.Context, f peerFrame, out *outbox) ([]byte, error) {
	switch f.kind {
	case callReadIndex:
		ctx, cancel := context.WithTimeout(ctx, c.timeouts.Election)
		defer cancel()
		index, term, err := c.leaderReads.join(ctx)
		if err != nil {
			return nil, err
		}
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, index), term), nil
	case callStatus:
		return json.Marshal(c.report())
	case callWitness:
		var q witnessQuestion
		if err := json.Unmarshal(f.body, &q); err != nil {
			return nil, errPeerFrame
		}
		return json.Marshal(c.crash.testify(q))
	case callTestWrite:
		ctx, cancel := context.WithTimeout(ctx, c.timeouts.Store)
		defer cancel()
		return nil, c.testWrite(ctx)
	case callPoints:
		c.fsm.look()
		return c.fsm.points.encode(), nil
	case callState:
		return nil, c.equality.send(ctx, f.id, out)
	default:
		return nil, errPeerFrame
	}
}

func (c *Cluster) report() peerReport {
	lastIndex, lastTerm := c.lastEntry()
	c.fsm.look()
	scheme, points := c.fsm.points.newest()
	return peerReport{
		Scheme: scheme, Points: points, Diverged: c.equality.diverged(),
		ID: c.id, State: c.raft.State().String(), Term: c.raft.CurrentTerm(),
		LastTerm: lastTerm, LastIndex: lastIndex, AppliedIndex: c.fsm.applied.index(),
		Sick: !c.health.fit(), Empty: lastIndex == 0,
	}
}
