package simpageserver

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"quorate/api/neon"
)

// Hook is the control plane that controllers notify. It remembers what compute was
// told, and misbehaves by the same fault rules as a node, with the routes
// RouteNotifyAttach, RouteNotifySafekeepers and RouteImportComplete. FaultDelay makes
// it slow, FaultRefuse with 423 busy, with 429 throttling, and so on. A request that a
// rule refuses tells compute nothing; one whose reply is lost does.
//
// Serve it with net/http. Its work goes on when the client gives up.
type Hook struct {
	oracle *Oracle
	epoch  time.Time
	faults faults
	ctx    context.Context
	cancel context.CancelFunc
	work   crew

	mu       sync.Mutex
	notified map[neon.TenantID][]Notification
	taken    map[neon.TenantID]uint64 // the youngest notification that compute took, by its arrival
	came     uint64                   // counts arrivals
	count    uint64
	keep     int

	imports map[neon.TimelineRef][]neon.ImportComplete
}

// Notification is one notify-attach that compute took.
type Notification struct {
	At   time.Duration // since the hook was made
	Body neon.NotifyAttach
	Late bool // the caller had gone by then, or one that came after it was taken before it
}

// HookOptions configures a Hook.
type HookOptions struct {
	Seed   uint64
	Oracle *Oracle // learns what compute was told; nil: none
	Keep   int     // notifications kept for each tenant; zero means 16
}

// NewHook makes a hook. Close it when it is not called any more.
func NewHook(opt HookOptions) *Hook {
	h := &Hook{
		oracle: opt.Oracle, epoch: time.Now(), notified: map[neon.TenantID][]Notification{},
		taken: map[neon.TenantID]uint64{}, keep: opt.Keep,
		imports: map[neon.TimelineRef][]neon.ImportComplete{},
	}
	if h.keep == 0 {
		h.keep = 16
	}
	h.faults.rng = rand.New(rand.NewPCG(opt.Seed, 0x600d))
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

// SetFaults replaces the hook's fault rules.
func (h *Hook) SetFaults(rules ...Fault) { h.faults.set(rules) }

// Close ends all requests under way and waits for them.
func (h *Hook) Close() {
	h.cancel()
	h.work.close()
}

// Count is how many notify-attach calls were taken.
func (h *Hook) Count() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count
}

// History copies the last notifications of a tenant, oldest first.
func (h *Hook) History(t neon.TenantID) []Notification {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.notified[t])
}

// LastNode is the node that compute was last told for a shard. Late notifications
// count only while there is no other: see Oracle.
func (h *Hook) LastNode(shard neon.ShardID) (neon.NodeID, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.notified[shard.Tenant]
	if len(all) == 0 {
		return 0, false
	}
	last := all[len(all)-1].Body
	for i := len(all) - 1; i >= 0; i-- {
		if !all[i].Late {
			last = all[i].Body
			break
		}
	}
	if len(last.Shards) != shard.Count.Shards() {
		return 0, false
	}
	for _, s := range last.Shards {
		if s.Number == shard.Number {
			return s.Node, true
		}
	}
	return 0, false
}

// Imports copies what was heard of the end of an import, oldest first. It may be
// heard more than once.
func (h *Hook) Imports(ref neon.TimelineRef) []neon.ImportComplete {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.imports[ref])
}

// ServeHTTP answers PUT …/notify-attach, …/notify-safekeepers and …/import_complete.
func (h *Hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.work.enter() {
		reset(w)
		return
	}
	defer h.work.leave()
	body, err := readBody(r)
	var out reply
	switch name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]; {
	case err != nil:
		out = failf(http.StatusBadRequest, "%v", err).reply()
	case r.Method == http.MethodPut && name == "notify-attach":
		out = h.handle(r.Context(), RouteNotifyAttach, body)
	case r.Method == http.MethodPut && name == "notify-safekeepers":
		out = h.handle(r.Context(), RouteNotifySafekeepers, body)
	case r.Method == http.MethodPut && name == "import_complete":
		out = h.handle(r.Context(), RouteImportComplete, body)
	default:
		out = fail(http.StatusNotFound, "page not found").reply()
	}
	if out.abort {
		reset(w)
		return
	}
	w.Header()["Content-Type"] = contentJSON
	w.WriteHeader(out.status)
	_, _ = w.Write(out.body) // the client may have gone
}

func (h *Hook) handle(caller context.Context, route Route, body []byte) reply {
	var n neon.NotifyAttach
	if err := json.Unmarshal(body, &n); err != nil {
		return failf(http.StatusBadRequest, "Json parse error: %v", err).reply()
	}
	h.mu.Lock()
	h.came++
	arrival := h.came
	h.mu.Unlock()
	b := h.faults.strike(time.Since(h.epoch), route, neon.ShardID{Tenant: n.Tenant})
	switch {
	case b.reset:
		return aborted
	case b.hang:
		select {
		case <-caller.Done():
		case <-h.ctx.Done():
		}
		return aborted
	case b.refuse != nil:
		return fail(b.refuse.status(), b.refuse.Msg).reply()
	case !h.sleep(b.before):
		return aborted
	}
	out := ok(jsonNull)
	switch route {
	case RouteNotifyAttach:
		if f := h.take(n, arrival, caller.Err() != nil); f != nil {
			out = f.reply()
		}
	case RouteImportComplete:
		var done neon.ImportComplete
		if err := json.Unmarshal(body, &done); err != nil {
			return failf(http.StatusBadRequest, "Json parse error: %v", err).reply()
		}
		h.mu.Lock()
		ref := neon.TimelineRef{Tenant: done.Tenant, Timeline: done.Timeline}
		h.imports[ref] = append(h.imports[ref], done)
		h.mu.Unlock()
	}
	switch {
	case b.lose, !h.sleep(b.after):
		return aborted
	case b.malformed != nil:
		return b.malformed.spoil(out)
	}
	return out
}

// take tells compute. One leader sends one notification of a tenant after another, so
// that one which a younger one has overtaken is of a leader that was deposed, or was
// given up: nothing in it says so, and no controller can prevent it.
func (h *Hook) take(n neon.NotifyAttach, arrival uint64, late bool) *failure {
	nodes := make([]neon.NodeID, len(n.Shards))
	for _, s := range n.Shards {
		if int(s.Number) >= len(nodes) || nodes[s.Number] != 0 {
			return failf(http.StatusBadRequest, "shard %d of %d", s.Number, len(nodes))
		}
		nodes[s.Number] = s.Node
	}
	if len(nodes) == 0 || len(nodes) > 255 {
		return failf(http.StatusBadRequest, "%d shards", len(nodes))
	}
	h.mu.Lock()
	late = late || arrival < h.taken[n.Tenant]
	h.taken[n.Tenant] = max(h.taken[n.Tenant], arrival)
	all := append(h.notified[n.Tenant], Notification{At: time.Since(h.epoch), Body: n, Late: late})
	if len(all) > h.keep {
		all = slices.Clone(all[len(all)-h.keep:])
	}
	h.notified[n.Tenant] = all
	h.count++
	h.mu.Unlock()
	if h.oracle != nil {
		h.oracle.notified(n.Tenant, nodes, late)
	}
	return nil
}

func (h *Hook) sleep(d time.Duration) bool { return sleep(h.ctx, d) }
