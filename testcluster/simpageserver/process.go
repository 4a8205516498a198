package simpageserver

import (
	"context"
	"errors"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// process is one incarnation of a node. Everything it does happens in goroutines
// that kill joins, and changes the core only through with, so that nothing of a
// killed process has an effect.
type process struct {
	node        *Node
	index       uint32 // in the oracle
	incarnation uint32
	launched    []string // header value
	ctx         context.Context
	cancel      context.CancelFunc
	ready       chan struct{} // closed when re-attached
	gate        gate
	ln          net.Listener
	server      *http.Server
	work        crew

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	open  crew // one entry for each connection
}

func newProcess(n *Node, ln net.Listener, incarnation uint32) *process {
	p := &process{
		node: n, incarnation: incarnation, ln: ln,
		index:    n.fleet.opt.Oracle.started(n.opt.ID, incarnation),
		launched: []string{time.Now().UTC().Format(time.RFC3339Nano)},
		ready:    make(chan struct{}),
		conns:    map[net.Conn]struct{}{},
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.server = &http.Server{
		Handler: p, ConnState: p.connState, ErrorLog: log.New(io.Discard, "", 0),
	}
	return p
}

// run starts serving, re-attaching and, if wanted, maintenance.
func (p *process) run() {
	p.work.enter()
	go func() {
		defer p.work.leave()
		if err := p.server.Serve(p.ln); err != nil && !errors.Is(err, http.ErrServerClosed) {
			p.node.log.Debug("listener ended", "err", err)
		}
	}()
	p.work.enter()
	go func() {
		defer p.work.leave()
		p.live()
	}()
}

// live re-attaches and then does the background work.
func (p *process) live() {
	if !p.reattach() {
		return
	}
	close(p.ready)
	period := p.node.opt.Maintenance
	if period <= 0 {
		return
	}
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-tick.C:
		}
		if !p.gate.wait(p.ctx) {
			return
		}
		if err := p.tick(p.ctx); err != nil {
			p.node.log.Debug("maintenance", "err", err)
		}
	}
}

// kill resets all connections and joins everything. It may be called twice.
func (p *process) kill() {
	p.cancel()
	p.mu.Lock()
	for c := range p.conns {
		lingerNot(c)
	}
	p.mu.Unlock()
	_ = p.server.Close() // the listener may be closed already
	p.work.close()
	p.mu.Lock()
	late := slices.Collect(maps.Keys(p.conns)) // accepted while the server closed
	p.mu.Unlock()
	for _, c := range late {
		_ = c.Close() // its reader ends, that is all
	}
	p.open.close()
}

// shutdown stops accepting and waits for the running requests.
func (p *process) shutdown(ctx context.Context) error {
	return p.server.Shutdown(ctx)
}

func (p *process) connState(c net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew:
		p.open.enter()
		p.mu.Lock()
		p.conns[c] = struct{}{}
		p.mu.Unlock()
	case http.StateClosed, http.StateHijacked:
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
		p.open.leave()
	}
}

// lingerNot makes closing a TCP connection a reset.
func lingerNot(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // closing it is all that matters
	}
}

// with runs f on the core unless the process is dead. f must not block.
func (p *process) with(f func(now time.Duration, c *core)) bool {
	p.node.mu.Lock()
	defer p.node.mu.Unlock()
	if p.node.proc != p {
		return false
	}
	f(p.node.fleet.now(), p.node.core)
	return true
}

// sleep waits for d; false means the process died.
func (p *process) sleep(d time.Duration) bool {
	if d <= 0 {
		return p.ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-p.ctx.Done():
		return false
	}
}

// gate holds up everything while it is shut.
type gate struct {
	mu   sync.Mutex
	held chan struct{} // nil when open
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held == nil {
		g.held = make(chan struct{})
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held != nil {
		close(g.held)
		g.held = nil
	}
}

// wait returns when the gate is open; false means ctx ended first.
func (g *gate) wait(ctx context.Context) bool {
	for {
		g.mu.Lock()
		held := g.held
		g.mu.Unlock()
		if held == nil {
			return ctx.Err() == nil
		}
		select {
		case <-held:
		case <-ctx.Done():
			return false
		}
	}
}

// crew counts running goroutines and lets nobody in once it is closed.
type crew struct {
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

func (c *crew) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.wg.Add(1)
	return true
}

func (c *crew) leave() { c.wg.Done() }

// close refuses newcomers and waits for those inside.
func (c *crew) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.wg.Wait()
}
