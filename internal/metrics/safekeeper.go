package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"quorate/fsm"
)

// safekeeperMetrics are the series about safekeepers that are counted as things
// happen.
type safekeeperMetrics struct {
	errors  *prometheus.CounterVec
	latency *prometheus.HistogramVec
	done    *prometheus.CounterVec
}

func newSafekeeperMetrics(reg prometheus.Registerer) safekeeperMetrics {
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
	reg.MustRegister(m.errors, m.latency, m.done)
	return m
}

// Safekeeper counts a request of ours to a safekeeper.
func (m *Recorder) Safekeeper(c Call) { count(m.safekeeper.latency, m.safekeeper.errors, c) }

// SafekeeperDone counts an operation that a safekeeper carried out.
func (m *Recorder) SafekeeperDone(sk *fsm.Safekeeper) {
	m.safekeeper.done.WithLabelValues(sk.AZ.String(), sk.ID.String(), sk.Host).Inc()
}
