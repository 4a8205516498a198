package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"quorate/api/neon"
	"quorate/fsm"
)

// safekeeperMetrics are the series about safekeepers that are counted as things
// happen.
type safekeeperMetrics struct {
	errors  *prometheus.CounterVec
	latency *prometheus.HistogramVec
	done    *prometheus.CounterVec

	calls, operations *nodeSeries
}

func newSafekeeperMetrics(
	reg prometheus.Registerer, state func() *fsm.State,
) safekeeperMetrics {
	call := []string{"safekeeper_id", "path", "method"}
	node := []string{"sk_az", "sk_node_id", "sk_hostname"}
	m := safekeeperMetrics{
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "safekeeper_request_error",
			Help: "Requests to safekeepers that failed",
		}, call),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: prefix + "safekeeper_request_latency",
			Help: "Seconds of requests to safekeepers", Buckets: latencyBuckets,
		}, call),
		done: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "safekeeper_reconciles_complete",
			Help: "Operations carried out on a safekeeper",
		}, node),
	}
	registered := func(id neon.NodeID) bool {
		_, ok := state().Safekeeper(id)
		return ok
	}
	m.calls = newNodeSeries("safekeeper_id", registered, m.errors, m.latency)
	m.operations = newNodeSeries("sk_node_id", registered, m.done)
	reg.MustRegister(m.calls, m.operations)
	return m
}

// Safekeeper counts a request of ours to a safekeeper.
func (m *Recorder) Safekeeper(c Call) {
	m.safekeeper.calls.count(m.safekeeper.latency, m.safekeeper.errors, c)
}

// SafekeeperDone counts an operation that a safekeeper carried out.
func (m *Recorder) SafekeeperDone(sk *fsm.Safekeeper) {
	az, host := sk.AZ.String(), sk.Host
	m.safekeeper.operations.rename(sk.ID, az+" "+host)
	m.safekeeper.done.WithLabelValues(az, sk.ID.String(), host).Inc()
	m.safekeeper.operations.note(sk.ID, az+" "+host)
}
