// Package metrics has the series that a controller shows about its work, under the
// names and labels that the dashboards of existing clusters ask for; counters have no
// _total. Series about consensus are not among them.
//
// The package may not decide anything, and nothing may read a series to decide.
package metrics

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"quorate/api/neon"
	"quorate/fsm"
)

// prefix begins the name of every series.
const prefix = "storage_controller_"

// latencyBuckets are the bounds, in seconds, that the existing dashboards expect.
var latencyBuckets = []float64{0.1, 0.2, 0.4, 0.8, 1.6}

// Recorder has the series that are counted as things happen. All methods may be
// called at any time.
type Recorder struct {
	httpStatus  *prometheus.CounterVec
	httpLatency *prometheus.HistogramVec
	limited     prometheus.Histogram
	forwarded   *prometheus.CounterVec

	spawned   prometheus.Counter
	completed *prometheus.CounterVec
	optimised prometheus.Counter
	long      *prometheus.CounterVec

	pageservers        *nodeSeries
	pageserverErrors   *prometheus.CounterVec
	pageserverLatency  *prometheus.HistogramVec
	passthroughErrors  *prometheus.CounterVec
	passthroughLatency *prometheus.HistogramVec

	safekeeper safekeeperMetrics
	log        logMetrics
}

// outcomes are how reconciles end.
var outcomes = []string{"ok", "ok_no_notify", "error", "cancel"}

// New makes the series and registers them. State is the newest local state: series about
// nodes that are not in it are dropped.
func New(reg prometheus.Registerer, state func() *fsm.State) *Recorder {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + name, Help: help,
		}, labels)
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: prefix + name, Help: help, Buckets: latencyBuckets,
		}, labels)
	}
	m := &Recorder{
		httpStatus: counter("http_request_status", "HTTP requests by status", "path", "method",
			"status"),
		httpLatency: histogram("http_request_latency", "Seconds to answer an HTTP request", "path",
			"method"),
		limited: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    prefix + "http_request_rate_limited",
			Help:    "Seconds that requests were delayed by the rate limit of their tenant",
			Buckets: prometheus.ExponentialBuckets(0.1, 10, 10),
		}),
		forwarded: counter("http_request_forwarded",
			"HTTP requests carried to the leader, by outcome of each try", "outcome"),
		spawned: prometheus.NewCounter(prometheus.CounterOpts{
			Name: prefix + "reconcile_spawn", Help: "Reconciles begun",
		}),
		optimised: prometheus.NewCounter(prometheus.CounterOpts{
			Name: prefix + "schedule_optimization",
			Help: "Shards begun to be moved to a better place",
		}),
		completed: counter("reconcile_complete", "Reconciles ended, by status", "status"),
		long: counter("reconcile_long_running",
			"Reconciles that are over the threshold", "tenant_id", "shard_number", "sequence"),
		pageserverErrors: counter("pageserver_request_error", "Failed requests to pageservers",
			"pageserver_id", "path", "method"),
		pageserverLatency: histogram("pageserver_request_latency",
			"Seconds of requests to pageservers", "pageserver_id", "path", "method"),
		passthroughErrors: counter("passthrough_request_error",
			"Failed requests passed through to pageservers", "pageserver_id", "path", "method"),
		passthroughLatency: histogram("passthrough_request_latency",
			"Seconds of requests passed through to pageservers", "pageserver_id", "path", "method"),
	}
	for _, status := range outcomes {
		m.completed.WithLabelValues(status)
	}
	reg.MustRegister(m.httpStatus, m.httpLatency, m.limited, m.forwarded, m.spawned, m.completed,
		m.optimised, m.long)
	m.pageservers = newNodeSeries("pageserver_id", func(id neon.NodeID) bool {
		n, ok := state().Node(id)
		return ok && !n.Tombstone
	}, m.pageserverErrors, m.pageserverLatency, m.passthroughErrors, m.passthroughLatency)
	reg.MustRegister(m.pageservers)
	m.safekeeper, m.log = newSafekeeperMetrics(reg, state), newLogMetrics(reg)
	declare(reg)
	return m
}

// Spawned counts a reconcile that began.
func (m *Recorder) Spawned() { m.spawned.Inc() }

// Completed counts a reconcile that ended: ok, ok_no_notify, error or cancel.
func (m *Recorder) Completed(status string) { m.completed.WithLabelValues(status).Inc() }

// Optimised counts shards that were begun to be moved to a better place.
func (m *Recorder) Optimised(n int) { m.optimised.Add(float64(n)) }

// LongRunning counts a reconcile that is over the threshold; LongEnded forgets it.
func (m *Recorder) LongRunning(shard neon.ShardID, sequence uint64) {
	m.long.WithLabelValues(longLabels(shard, sequence)...).Inc()
}

// LongEnded ends LongRunning.
func (m *Recorder) LongEnded(shard neon.ShardID, sequence uint64) {
	m.long.DeleteLabelValues(longLabels(shard, sequence)...)
}

func longLabels(shard neon.ShardID, sequence uint64) []string {
	return []string{
		shard.Tenant.String(), strconv.Itoa(int(shard.Number)), strconv.FormatUint(sequence, 10),
	}
}

// Pageserver counts a request of ours to a pageserver.
func (m *Recorder) Pageserver(c Call) {
	m.pageservers.count(m.pageserverLatency, m.pageserverErrors, c)
}

// Passthrough counts a client's request that was passed through to a pageserver.
func (m *Recorder) Passthrough(c Call) {
	m.pageservers.count(m.passthroughLatency, m.passthroughErrors, c)
}

// RateLimited counts a request that was delayed by the rate limit of its tenant.
func (m *Recorder) RateLimited(delay time.Duration) { m.limited.Observe(delay.Seconds()) }

// Forwarded counts one try to have the leader answer a request: ok, again or failed.
func (m *Recorder) Forwarded(outcome string) { m.forwarded.WithLabelValues(outcome).Inc() }

// Request counts one answered HTTP request. The label is that of its path.
func (m *Recorder) Request(label, method string, status int, took time.Duration) {
	method = methodLabel(method)
	m.httpStatus.WithLabelValues(label, method, strconv.Itoa(status)).Inc()
	m.httpLatency.WithLabelValues(label, method).Observe(took.Seconds())
}

func methodLabel(method string) string {
	switch method {
	case http.MethodGet:
		return "get"
	case http.MethodPut:
		return "put"
	case http.MethodPost:
		return "post"
	case http.MethodDelete:
		return "delete"
	}
	return "other"
}
