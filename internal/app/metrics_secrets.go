package app

import (
	"github.com/prometheus/client_golang/prometheus"

	"quorate/internal/secretfiles"
)

// secretMetrics say whether the files that hold keys and tokens are in use as they are.
type secretMetrics struct {
	files          *secretfiles.Watcher // nil: none
	stale, reloads *prometheus.Desc
}

func newSecretMetrics(files *secretfiles.Watcher) *secretMetrics {
	label := []string{"secret"}
	return &secretMetrics{
		files: files,
		stale: prometheus.NewDesc("storage_controller_secret_stale",
			"1 while the files of a secret cannot be used, so that the old one is", label, nil),
		reloads: prometheus.NewDesc("storage_controller_secret_reloads",
			"How often a secret was exchanged since the start", label, nil),
	}
}

// Describe is part of prometheus.Collector.
func (m *secretMetrics) Describe(out chan<- *prometheus.Desc) {
	out <- m.stale
	out <- m.reloads
}

// Collect is part of prometheus.Collector.
func (m *secretMetrics) Collect(out chan<- prometheus.Metric) {
	if m.files == nil {
		return
	}
	for _, s := range m.files.States() {
		out <- prometheus.MustNewConstMetric(m.stale, prometheus.GaugeValue,
			truth(s.Err != nil), s.What)
		out <- prometheus.MustNewConstMetric(m.reloads, prometheus.CounterValue,
			float64(s.Reloads), s.What)
	}
}
