package simpageserver

import (
	"net/http"
	"sync"
	"time"

	"quorate/api/neon"
)

// underWay are the calls that a process is at. As on real pageservers they go on when their
// callers are gone, and the same call meanwhile is refused.
type underWay struct {
	mu    sync.Mutex
	calls map[work]bool
}

// work is what cannot be done twice at a time.
type work struct {
	route    Route
	shard    neon.ShardID
	timeline neon.TimelineID
}

// refusals are what pageservers answer to a call that they are at already.
var refusals = map[Route]*failure{
	RouteTimelineCreate: fail(http.StatusTooManyRequests,
		"creation of timeline with the given ID is in progress"),
	RouteTimelineDelete: fail(http.StatusConflict, "Conflict: timeline deletion is in progress"),
	RouteArchival:       fail(http.StatusConflict, "Conflict: timeline archival is in progress"),
	RouteDetachAncestor: fail(http.StatusServiceUnavailable,
		"ongoing detach of a timeline, try again later"),
	RouteTenantDelete: fail(http.StatusServiceUnavailable,
		"Tenant is being modified concurrently"),
	RouteActivateImport: fail(http.StatusServiceUnavailable, "Import task still running"),
}

// begin says that a call is under way. Nil is a refusal; else end has to be called.
func (u *underWay) begin(w work) (end func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.calls[w] {
		return nil
	}
	if u.calls == nil {
		u.calls = make(map[work]bool)
	}
	u.calls[w] = true
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.calls, w)
	}
}

// slowly does the work of a call that takes time.
func (p *process) slowly(c *call, do func(*call) reply) reply {
	var takes time.Duration
	p.with(func(_ time.Duration, core *core) { takes = core.behave.Takes[c.route] })
	refusal := refusals[c.route]
	if takes == 0 || refusal == nil {
		return do(c)
	}
	w := work{c.route, c.shard, c.timeline}
	if c.route == RouteTimelineCreate {
		if req, f := decodeCreation(c.body); f == nil {
			w.timeline = req.id
		}
	}
	end := p.slow.begin(w)
	if end == nil {
		return refusal.reply()
	}
	defer end()
	if !p.sleep(takes) || !p.pass() {
		return aborted
	}
	return do(c)
}
