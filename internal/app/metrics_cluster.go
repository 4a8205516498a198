package app

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"quorate/cluster"
)

// observe makes histograms of how long things take in the Raft member.
func observe(registry prometheus.Registerer) cluster.Observer {
	histogram := func(name, help string, smallest float64, buckets int) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "storage_controller_raft_" + name, Help: help,
			Buckets: prometheus.ExponentialBuckets(smallest, 2, buckets),
		})
		registry.MustRegister(h)
		return h
	}
	const half = 0.0005 // seconds
	appended := histogram("append_duration_seconds",
		"Duration of a write of entries to the log, fsync included", half, 14)
	committed := histogram("commit_duration_seconds",
		"From the submission of an entry by the leader until it is committed and applied", half, 14)
	applied := histogram("apply_duration_seconds",
		"Duration of the application of commands to the state", half/10, 14)
	snapshot := histogram("snapshot_duration_seconds",
		"Duration of writing a snapshot of the state", 10*half, 14)
	return cluster.Observer{
		Appended:      func(took time.Duration, _ int) { appended.Observe(took.Seconds()) },
		Committed:     func(took time.Duration) { committed.Observe(took.Seconds()) },
		Applied:       func(took time.Duration, _ int) { applied.Observe(took.Seconds()) },
		SnapshotTaken: func(took time.Duration, _ int64) { snapshot.Observe(took.Seconds()) },
	}
}

// memberMetrics tell how this replica sees the members of the cluster, when the metrics
// are asked for. A member that was removed has no series any more.
type memberMetrics struct {
	members func() []cluster.MemberStatus

	connected, voter, lag, majority *prometheus.Desc
}

func newMemberMetrics(members func() []cluster.MemberStatus) *memberMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("storage_controller_raft_"+name, help, labels, nil)
	}
	return &memberMetrics{
		members: members,
		connected: desc("member_connected", "1 while this replica is connected to the member",
			"member"),
		voter: desc("member_voter", "1 if the member is a voter", "member"),
		lag:   desc("member_lag_entries", "Entries that the member has not applied yet", "member"),
		majority: desc("majority_connected",
			"1 while this replica is connected to a majority of the voters"),
	}
}

// Describe is part of prometheus.Collector.
func (m *memberMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.connected, m.voter, m.lag, m.majority} {
		out <- d
	}
}

// Collect is part of prometheus.Collector.
func (m *memberMetrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	voters, connected := 0, 0
	for _, s := range m.members() {
		there := s.Self || s.Connected
		if s.Voter {
			voters++
			if there {
				connected++
			}
		}
		gauge(m.connected, truth(there), s.ID)
		gauge(m.voter, truth(s.Voter), s.ID)
		gauge(m.lag, float64(s.Lag), s.ID)
	}
	gauge(m.majority, truth(voters > 0 && connected > voters/2))
}
