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

	"quorate/api/neon"
)

// process serves one incarnation of a node over HTTP and does its background work.
// What it answers is the work of the handlers, one for each resource.
type process struct {
	*incarnation
	authorize   func(token string) bool
	calling     func(what string) // see NodeOptions
	maintenance time.Duration
	faults      *faults
	slow        underWay
	launched    []string      // header value
	ready       chan struct{} // closed when re-attached
	ln          net.Listener
	server      *http.Server

	handlers    map[Route]func(*call) reply
	archival    archivalHandler
	deletions   deletionHandler
	reattaching reattachment

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	open  crew // one entry for each connection
}

func newProcess(n *Node, ln net.Listener, number uint32) *process {
	in := newIncarnation(n.host, number)
	p := &process{
		incarnation: in, authorize: n.opt.Authorize, calling: n.opt.Calling,
		maintenance: n.opt.Maintenance, faults: &n.faults, ln: ln,
		launched:  []string{time.Now().UTC().Format(time.RFC3339Nano)},
		ready:     make(chan struct{}),
		conns:     map[net.Conn]struct{}{},
		archival:  archivalHandler{in},
		deletions: deletionHandler{in, n.opt},
	}
	imports := &importHandler{in, n.opt}
	p.reattaching = reattachment{incarnation: in, opt: n.opt, imports: imports}
	if ln != nil {
		p.reattaching.addr = ln.Addr().String()
	}
	p.handlers = p.routes(imports)
	p.server = &http.Server{
		Handler: p, ConnState: p.connState, ErrorLog: log.New(io.Discard, "", 0),
	}
	return p
}

// routes says which handler answers a route.
func (p *process) routes(imports *importHandler) map[Route]func(*call) reply {
	locations := &locationHandler{p.incarnation, imports}
	tenants := &tenantHandler{p.incarnation}
	timelines := &timelineHandler{p.incarnation, imports}
	secondaries := &secondaryHandler{p.incarnation}
	splits := &splitHandler{p.incarnation}
	return map[Route]func(*call) reply{
		RouteLocationPut:        locations.put,
		RouteLocationGet:        locations.get,
		RouteLocationList:       locations.list,
		RouteTenantDelete:       tenants.remove,
		RouteTenantList:         tenants.list,
		RouteTenantGet:          tenants.get,
		RouteTopTenants:         tenants.top,
		RouteScanRemote:         tenants.scanRemote,
		RouteTimeTravel:         tenants.travel,
		RouteTimelineCreate:     timelines.create,
		RouteTimelineList:       timelines.list,
		RouteTimelineGet:        timelines.list,
		RouteTimelineDelete:     timelines.remove,
		RouteCheckpoint:         timelines.checkpoint,
		RouteWaitLsn:            timelines.waitLsn,
		RouteBlockGC:            timelines.mark,
		RouteUnblockGC:          timelines.mark,
		RouteMarkInvisible:      timelines.mark,
		RouteDetachAncestor:     timelines.detachAncestor,
		RouteLease:              timelines.leaseLsn,
		RouteActivateImport:     imports.activate,
		RouteArchival:           p.archival.archive,
		RouteOffload:            p.archival.offload,
		RouteTimelinesOffloaded: p.archival.list,
		RouteSecondaryDownload:  secondaries.progress,
		RouteSecondaryStatus:    secondaries.progress,
		RouteHeatmapUpload:      secondaries.uploadHeatmap,
		RouteHeatmapLayers:      secondaries.downloadHeatmapLayers,
		RouteShardSplit:         splits.split,
		RouteDeletionFlush:      p.deletions.flush,
		RouteUtilization:        p.utilization,
		RouteStatus: func(*call) reply {
			return answer(http.StatusOK, map[string]neon.NodeID{"id": p.host.id})
		},
	}
}

// run starts serving, re-attaching and, if wanted, maintenance.
func (p *process) run() {
	p.start(func() {
		if err := p.server.Serve(p.ln); err != nil && !errors.Is(err, http.ErrServerClosed) {
			p.host.log.Debug("listener ended", "err", err)
		}
	})
	p.start(p.reattachAndMaintain)
}

func (p *process) reattachAndMaintain() {
	if !p.reattaching.run() {
		return
	}
	close(p.ready)
	if p.maintenance <= 0 {
		return
	}
	tick := time.NewTicker(p.maintenance)
	defer tick.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-tick.C:
		}
		if !p.pass() {
			return
		}
		if err := p.tick(p.ctx); err != nil {
			p.host.log.Debug("maintenance", "err", err)
		}
	}
}

// tick does one round of background work.
func (p *process) tick(ctx context.Context) error {
	p.with(func(now time.Duration, c *core) {
		for shard, s := range c.slots {
			c.maintain(now, shard, s)
			p.archival.autoOffload(c, shard, s)
		}
	})
	return p.deletions.validateAndExecute(ctx)
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

// utilization is GET /v1/utilization.
func (p *process) utilization(*call) reply {
	var u neon.Utilization
	if !p.with(func(now time.Duration, c *core) {
		u = c.utilization(p.host.epoch.Add(now))
	}) {
		return aborted
	}
	return answer(http.StatusOK, u)
}
