package simpageserver

import (
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"quorate/api/neon"
)

// Route names a group of requests for fault rules. The empty Route is any.
type Route string

// The routes of a simulated pageserver and of a Hook.
const (
	RouteLocationPut        Route = "location_put"
	RouteLocationGet        Route = "location_get"
	RouteLocationList       Route = "location_list"
	RouteTenantDelete       Route = "tenant_delete"
	RouteTenantList         Route = "tenant_list"
	RouteTenantGet          Route = "tenant_get"
	RouteTimelineCreate     Route = "timeline_create"
	RouteTimelineList       Route = "timeline_list"
	RouteTimelineGet        Route = "timeline_get"
	RouteTimelineDelete     Route = "timeline_delete"
	RouteCheckpoint         Route = "checkpoint"
	RouteArchival           Route = "archival_config"
	RouteDetachAncestor     Route = "detach_ancestor"
	RouteBlockGC            Route = "block_gc"
	RouteUnblockGC          Route = "unblock_gc"
	RouteLease              Route = "lsn_lease"
	RouteHeatmapLayers      Route = "download_heatmap_layers"
	RouteOffload            Route = "offload"
	RouteTimelinesOffloaded Route = "timeline_and_offloaded"
	RouteActivateImport     Route = "activate_post_import"
	RouteMarkInvisible      Route = "mark_invisible"
	RouteScanRemote         Route = "scan_remote_storage"
	RouteTimeTravel         Route = "time_travel_remote_storage"
	RouteWaitLsn            Route = "wait_lsn"
	RouteSecondaryDownload  Route = "secondary_download"
	RouteSecondaryStatus    Route = "secondary_status"
	RouteHeatmapUpload      Route = "heatmap_upload"
	RouteShardSplit         Route = "shard_split"
	RouteTopTenants         Route = "top_tenants"
	RouteUtilization        Route = "utilization"
	RouteStatus             Route = "status"
	RouteDeletionFlush      Route = "deletion_flush"
	RouteNotifyAttach       Route = "notify_attach"
	RouteNotifySafekeepers  Route = "notify_safekeepers"
	RouteImportComplete     Route = "import_complete"
	RouteUnknown            Route = "unknown"
)

// FaultKind says what a Fault does to a request.
type FaultKind int

// The kinds of faults.
const (
	// FaultDelay waits Delay plus a random part of Jitter before the request is
	// processed. The caller may be gone by then; the effect comes all the same.
	FaultDelay FaultKind = iota + 1
	// FaultDelayReply processes the request, then waits before answering.
	FaultDelayReply
	// FaultRefuse answers Status and Msg without processing.
	FaultRefuse
	// FaultHang neither processes nor answers.
	FaultHang
	// FaultReset breaks the connection without processing.
	FaultReset
	// FaultLoseReply processes the request and breaks the connection.
	FaultLoseReply
	// FaultDuplicate processes the request twice, the second time Delay plus
	// Jitter after the first.
	FaultDuplicate
	// FaultMalformed processes the request and answers with a body that is cut
	// short. With Status set, the answer has that status and a body that is not
	// the usual error body.
	FaultMalformed
)

// Fault is one rule. It applies to requests that match Route, Shard and Tenant.
type Fault struct {
	Kind        FaultKind
	Route       Route
	Shard       neon.ShardID  // zero value: any
	Tenant      neon.TenantID // zero value: any
	Probability float64       // 0 means always
	Count       int           // how many requests it hits; 0 means no limit
	Delay       time.Duration
	Jitter      time.Duration
	Status      int // zero means 503
	Msg         string
	On, Off     time.Duration // if both set: in force for On, then not for Off, and so on
}

// status is the status a refusing rule answers with.
func (f *Fault) status() int {
	if f.Status == 0 {
		return http.StatusServiceUnavailable
	}
	return f.Status
}

// cutsOff reports whether the rule, as long as it is there, makes location calls
// of any shard fail.
func (f *Fault) cutsOff() bool {
	if f.Route != "" && f.Route != RouteLocationPut {
		return false
	}
	return f.Kind == FaultRefuse || f.Kind == FaultHang || f.Kind == FaultReset ||
		f.Kind == FaultDelay
}

// faults is the set of rules of one server, with its own random numbers.
type faults struct {
	mu    sync.Mutex
	rng   *rand.Rand
	rules []Fault
	hits  []int
}

func (fs *faults) set(rules []Fault) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.rules = append([]Fault(nil), rules...)
	fs.hits = make([]int, len(rules))
}

// struck counts the requests that the rules have hit.
func (fs *faults) struck() (n int) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, hits := range fs.hits {
		n += hits
	}
	return n
}

// blow is what the matching rules together do to one request.
type blow struct {
	before    time.Duration
	after     time.Duration
	refuse    *Fault
	hang      bool
	reset     bool
	lose      bool
	duplicate bool
	dupDelay  time.Duration
	malformed *Fault
}

// strike draws the blow for one request.
func (fs *faults) strike(now time.Duration, route Route, shard neon.ShardID) (b blow) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for i := range fs.rules {
		f := &fs.rules[i]
		if !f.matches(now, route, shard) || f.Count > 0 && fs.hits[i] >= f.Count {
			continue
		}
		if f.Probability > 0 && fs.rng.Float64() >= f.Probability {
			continue
		}
		fs.hits[i]++
		wait := f.Delay
		if f.Jitter > 0 {
			wait += time.Duration(fs.rng.Int64N(int64(f.Jitter)))
		}
		b.add(f, wait)
	}
	return b
}

func (f *Fault) matches(now time.Duration, route Route, shard neon.ShardID) bool {
	switch {
	case f.Route != "" && f.Route != route,
		f.Shard != (neon.ShardID{}) && f.Shard != shard,
		f.Tenant != (neon.TenantID{}) && f.Tenant != shard.Tenant:
		return false
	case f.On > 0 && f.Off > 0 && now%(f.On+f.Off) >= f.On:
		return false
	}
	return true
}

func (b *blow) add(f *Fault, wait time.Duration) {
	switch f.Kind {
	case FaultDelay:
		b.before += wait
	case FaultDelayReply:
		b.after += wait
	case FaultRefuse:
		rule := *f
		b.refuse = &rule
	case FaultHang:
		b.hang = true
	case FaultReset:
		b.reset = true
	case FaultLoseReply:
		b.lose = true
	case FaultDuplicate:
		b.duplicate, b.dupDelay = true, wait
	case FaultMalformed:
		rule := *f
		b.malformed = &rule
	}
}

// spoil turns an answer into a malformed one.
func (f *Fault) spoil(r reply) reply {
	if f.Status != 0 {
		return reply{status: f.Status, body: []byte("<html>bad gateway</html>")}
	}
	return reply{status: r.status, body: append([]byte(`{"`), r.body[:len(r.body)/2]...)}
}
