package app

import (
	"cmp"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"quorate/internal/buildinfo"
	"quorate/internal/serve"
	"quorate/reconciler"
)

// processMetrics are the series about the process that dashboards expect beside
// the usual ones.
type processMetrics struct {
	served    atomic.Uint64 // how often they were asked for
	linesLost func() uint64 // nil: none can be

	build, threads, io, memory, serves, lines *prometheus.Desc
}

func newProcessMetrics(linesLost func() uint64) *processMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &processMetrics{
		linesLost: linesLost,

		build:   desc("libmetrics_build_info", "Always 1", "revision", "build_tag"),
		threads: desc("process_threads", "Threads of the operating system"),
		io: desc("libmetrics_disk_io_bytes_total",
			"Bytes that went between the process and its disks", "io_operation"),
		memory: desc("libmetrics_maxrss_kb", "Most memory the process has had, in KiB",
			"io_operation"),
		serves: desc("libmetrics_serve_count", "How often the metrics were asked for"),
		lines: desc("storage_controller_log_lines_dropped",
			"Lines of the log that were not read, or not written, in time"),
	}
}

// Describe is part of prometheus.Collector.
func (m *processMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.build, m.threads, m.io, m.memory, m.serves, m.lines} {
		out <- d
	}
}

// blockSize is the unit in which the kernel counts what goes to and from disks.
const blockSize = 512

// Collect is part of prometheus.Collector. What the system does not tell is 0.
func (m *processMetrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	build := buildinfo.Of()
	gauge(m.build, 1, cmp.Or(build.Commit, "unknown"), build.Version)
	tasks, _ := os.ReadDir("/proc/self/task")
	gauge(m.threads, float64(len(tasks)))
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	gauge(m.io, float64(usage.Inblock*blockSize), "read")
	gauge(m.io, float64(usage.Oublock*blockSize), "write")
	gauge(m.memory, float64(usage.Maxrss), "read")
	out <- prometheus.MustNewConstMetric(m.serves, prometheus.CounterValue,
		float64(m.served.Add(1)))
	var lost uint64
	if m.linesLost != nil {
		lost = m.linesLost()
	}
	out <- prometheus.MustNewConstMetric(m.lines, prometheus.CounterValue, float64(lost))
}

// infoMetric tells what runs where. It is always 1.
func infoMetric(version string, l Labels) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "storage_controller_info", Help: "Always 1",
		ConstLabels: prometheus.Labels{
			"version": version, "neon_region": l.Region, "neon_cloud": l.Cloud,
		},
	}, func() float64 { return 1 })
}

// queueMetrics are the gauges about the leader's work.
func queueMetrics(r *reconciler.Reconciler) []prometheus.Collector {
	gauge := func(name, help string, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "storage_controller_" + name, Help: help,
		}, func() float64 { return float64(value()) })
	}
	return []prometheus.Collector{
		gauge("pending_reconciles", "Shards that wait because enough others are worked on",
			func() int { waiting, _ := r.Pending(); return waiting }),
		gauge("stuck_reconciles", "Shards that have failed many times in a row",
			func() int { _, stuck := r.Pending(); return stuck }),
	}
}

// certificateMetrics say how long certificates last.
type certificateMetrics struct {
	expiries func() []serve.Expiry
	left     *prometheus.Desc
}

func newCertificateMetrics(expiries func() []serve.Expiry) *certificateMetrics {
	return &certificateMetrics{expiries, prometheus.NewDesc(
		"storage_controller_certificate_expiry_seconds",
		"Seconds until a certificate expires, negative afterwards; of roots, the first of them",
		[]string{"certificate"}, nil)}
}

// Describe is part of prometheus.Collector.
func (m *certificateMetrics) Describe(out chan<- *prometheus.Desc) { out <- m.left }

// Collect is part of prometheus.Collector.
func (m *certificateMetrics) Collect(out chan<- prometheus.Metric) {
	for _, e := range m.expiries() {
		out <- prometheus.MustNewConstMetric(m.left, prometheus.GaugeValue,
			time.Until(e.NotAfter).Seconds(), e.Name)
	}
}
