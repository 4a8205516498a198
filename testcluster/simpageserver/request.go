package simpageserver

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"quorate/api/neon"
)

// call is one decoded request.
type call struct {
	route     Route
	shard     neon.ShardID
	timeline  neon.TimelineID
	query     string
	body      []byte
	change    *locationChange // of a location PUT
	flush     bool            // a location PUT with flush_ms
	caller    context.Context // ends when the client gives up
	duplicate bool
	delayed   bool // by a fault, so that nobody sees that it is on its way
}

// late reports whether no caller waits for this call's answer any more.
func (c *call) late() bool { return c.duplicate || c.caller.Err() != nil }

// unseen reports whether it arrives when no controller can know of it any more.
func (c *call) unseen() bool { return c.duplicate || c.delayed && c.late() }

func (c *call) source() source {
	if c.late() {
		return byLate
	}
	return bySender
}

// maxBody bounds request bodies.
const maxBody = 16 << 20

// Handler serves the node's HTTP interface through whatever process runs at the
// time of each request; without one, connections are reset. Start serves it on
// the node's own listener, so it is only needed to serve the node elsewhere too.
func (n *Node) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := n.process()
		if p == nil {
			reset(w)
			return
		}
		p.ServeHTTP(w, r)
	})
}

// ServeHTTP serves one request, which goes on when its client is gone and ends
// with the process.
func (p *process) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !p.work.enter() {
		reset(w)
		return
	}
	defer p.work.leave()
	p.serve(w, r)
}

// serve takes one request through waiting, decoding, faults, work and answer.
func (p *process) serve(w http.ResponseWriter, r *http.Request) {
	c, f := p.decode(r)
	if see := p.calling; see != nil && f == nil && c.route == RouteLocationPut {
		see("a change of shard " + c.shard.String() + " on node " + p.host.id.String())
	}
	select {
	case <-p.ready:
	case <-r.Context().Done(): // nothing has been begun
		reset(w)
		return
	case <-p.ctx.Done():
		reset(w)
		return
	}
	if !p.pass() {
		reset(w)
		return
	}
	var out reply
	if f != nil {
		out = f.reply()
	} else {
		out = p.handle(c)
	}
	if !p.pass() || out.abort {
		reset(w)
		return
	}
	h := w.Header()
	h["Content-Type"] = contentJSON
	h["PAGESERVER_LAUNCH_TIMESTAMP"] = p.launched
	w.WriteHeader(out.status)
	_, _ = w.Write(out.body) // the client may have gone, which is its own business
}

var contentJSON = []string{"application/json"}

// reset breaks the connection without an answer.
func reset(w http.ResponseWriter) {
	if hj, ok := w.(http.Hijacker); ok {
		if conn, _, err := hj.Hijack(); err == nil {
			lingerNot(conn)
			_ = conn.Close() // reset is all that is wanted
			return
		}
	}
	panic(http.ErrAbortHandler)
}

// decode reads the request up to its last byte. What arrives incomplete is not
// processed.
func (p *process) decode(r *http.Request) (*call, *failure) {
	c := &call{query: r.URL.RawQuery, caller: r.Context()}
	if f := p.refuseUnauthorized(r); f != nil {
		return nil, f
	}
	if f := c.match(r.Method, r.URL.Path); f != nil {
		return nil, f
	}
	if r.Method == http.MethodPut || r.Method == http.MethodPost {
		body, err := readBody(r)
		if err != nil {
			return nil, failf(http.StatusBadRequest, "Failed to read request body: %v", err)
		}
		c.body = body
	}
	if c.route == RouteLocationPut {
		return c, c.decodeChange()
	}
	return c, nil
}

func (p *process) refuseUnauthorized(r *http.Request) *failure {
	check := p.authorize
	if check == nil || r.URL.Path == "/v1/status" {
		return nil
	}
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case check(token):
		return nil
	case token == "":
		return fail(http.StatusUnauthorized, "Unauthorized: missing authorization header")
	}
	return fail(http.StatusForbidden, "Forbidden: JWT authentication error")
}

var errTooLarge = errors.New("request body is too large")

func readBody(r *http.Request) ([]byte, error) {
	if n := r.ContentLength; n >= 0 {
		if n > maxBody {
			return nil, errTooLarge
		}
		body := make([]byte, n)
		_, err := io.ReadFull(r.Body, body)
		return body, err
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err == nil && len(body) > maxBody {
		err = errTooLarge
	}
	return body, err
}

// match finds the route. Ids that do not parse are 400, unknown paths 404.
func (c *call) match(method, path string) *failure {
	rest, ok := strings.CutPrefix(path, "/v1/")
	if !ok {
		return fail(http.StatusNotFound, "page not found")
	}
	switch head, tail, deeper := strings.Cut(strings.TrimSuffix(rest, "/"), "/"); {
	case !deeper:
		c.route = topRoutes[method+" "+head]
	case head == "tenant":
		return c.matchTenant(method, tail)
	case head == "location_config" && method == http.MethodGet:
		c.route = RouteLocationGet
		return c.parseShard(tail)
	case rest == "deletion_queue/flush" && method == http.MethodPut:
		c.route = RouteDeletionFlush
	}
	return c.known()
}

var topRoutes = map[string]Route{
	"GET status":          RouteStatus,
	"GET utilization":     RouteUtilization,
	"GET location_config": RouteLocationList,
	"GET tenant":          RouteTenantList,
	"POST top_tenants":    RouteTopTenants,
}

var tenantRoutes = map[string]Route{
	"PUT location_config": RouteLocationPut,
	"PUT shard_split":     RouteShardSplit,
	"GET ":                RouteTenantGet,
	"DELETE ":             RouteTenantDelete,
	"POST timeline":       RouteTimelineCreate,
	"GET timeline":        RouteTimelineList,

	"GET timeline_and_offloaded": RouteTimelinesOffloaded,
	"POST wait_lsn":              RouteWaitLsn,
	"POST secondary/download":    RouteSecondaryDownload,
	"GET secondary/status":       RouteSecondaryStatus,
	"POST heatmap_upload":        RouteHeatmapUpload,
	"GET scan_remote_storage":    RouteScanRemote,

	"PUT time_travel_remote_storage": RouteTimeTravel,
}

var timelineRoutes = map[string]Route{
	"GET ":           RouteTimelineGet,
	"DELETE ":        RouteTimelineDelete,
	"PUT checkpoint": RouteCheckpoint,

	"PUT archival_config":          RouteArchival,
	"PUT offload":                  RouteOffload,
	"PUT detach_ancestor":          RouteDetachAncestor,
	"POST block_gc":                RouteBlockGC,
	"POST unblock_gc":              RouteUnblockGC,
	"POST lsn_lease":               RouteLease,
	"POST download_heatmap_layers": RouteHeatmapLayers,
	"PUT mark_invisible":           RouteMarkInvisible,
	"PUT activate_post_import":     RouteActivateImport,
}

func (c *call) matchTenant(method, tail string) *failure {
	id, action, _ := strings.Cut(tail, "/")
	if f := c.parseShard(id); f != nil {
		return f
	}
	if under, ok := strings.CutPrefix(action, "timeline/"); ok {
		id, action, _ := strings.Cut(under, "/")
		tl, err := neon.ParseTimelineID(id)
		if err != nil {
			return failf(http.StatusBadRequest, "%v", err)
		}
		c.timeline, c.route = tl, timelineRoutes[method+" "+action]
		return c.known()
	}
	if action == "location_config" && method == http.MethodPut {
		c.route = RouteLocationPut
		return nil
	}
	c.route = tenantRoutes[method+" "+action]
	return c.known()
}

func (c *call) parseShard(id string) *failure {
	shard, err := neon.ParseShardID(id)
	if err != nil {
		return failf(http.StatusBadRequest, "%v", err)
	}
	c.shard = shard
	return nil
}

func (c *call) known() *failure {
	if c.route == "" {
		return fail(http.StatusNotFound, "page not found")
	}
	return nil
}

// decodeChange reads the body and the query of a location PUT.
func (c *call) decodeChange() *failure {
	if len(c.body) == 0 {
		return fail(http.StatusBadRequest, "missing request body")
	}
	var req neon.LocationConfigRequest
	if err := req.UnmarshalJSON(c.body); err != nil {
		return failf(http.StatusBadRequest, "Json parse error: %v", err)
	}
	ch := &locationChange{
		shard: c.shard, mode: modeOf(req.Mode), number: req.ShardNumber, count: req.ShardCount,
		stripe: req.StripeSize, conf: req.TenantConf,
	}
	if req.Generation != nil {
		ch.gen, ch.hasGen = *req.Generation, true
	}
	if req.SecondaryConf != nil {
		ch.warm = req.SecondaryConf.Warm
	}
	if c.query != "" {
		q, err := url.ParseQuery(c.query)
		if err != nil {
			return failf(http.StatusBadRequest, "query: %v", err)
		}
		ch.lazy, c.flush = q.Get("lazy") == "true", q.Get("flush_ms") != ""
	}
	c.change = ch
	return nil
}

// handle applies the fault rules around the work.
func (p *process) handle(c *call) reply {
	if c.change != nil {
		p.host.oracle.received(p.index, c.change)
	}
	b := p.faults.strike(p.host.now(), c.route, c.shard)
	switch {
	case b.reset:
		return aborted
	case b.hang:
		select {
		case <-c.caller.Done():
		case <-p.ctx.Done():
		}
		return aborted
	case b.refuse != nil:
		return fail(b.refuse.status(), b.refuse.Msg).reply()
	}
	if !p.sleep(b.before) || !p.pass() {
		return aborted
	}
	c.delayed = b.before > 0
	out := p.perform(c)
	if b.duplicate {
		p.repeat(c, b.dupDelay)
	}
	switch {
	case b.lose, !p.sleep(b.after):
		return aborted
	case b.malformed != nil && !out.abort:
		return b.malformed.spoil(out)
	}
	return out
}

// repeat delivers the same request once more, in a goroutine of the process.
func (p *process) repeat(c *call, delay time.Duration) {
	twin := *c
	twin.duplicate = true
	p.start(func() {
		if p.sleep(delay) && p.pass() {
			p.perform(&twin)
		}
	})
}

// perform does the work of one call.
func (p *process) perform(c *call) reply {
	if h := p.handlers[c.route]; h != nil {
		return p.slowly(c, h)
	}
	return fail(http.StatusNotFound, "page not found").reply()
}
