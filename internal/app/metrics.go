package app

import (
	"github.com/prometheus/client_golang/prometheus"

	"quorate/cluster"
)

// raftMetrics reads the Raft member's status when the metrics are asked for.
type raftMetrics struct {
	status func() cluster.Status
	series []raftSeries
}

type raftSeries struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*cluster.Status) float64
}

func newRaftMetrics(c *cluster.Cluster) *raftMetrics {
	m := &raftMetrics{status: c.Status}
	add := func(name, help string, kind prometheus.ValueType, value func(*cluster.Status) float64) {
		desc := prometheus.NewDesc("storage_controller_raft_"+name, help, nil, nil)
		m.series = append(m.series, raftSeries{desc, kind, value})
	}
	gauge := prometheus.GaugeValue
	add("term", "Current Raft term", gauge,
		func(s *cluster.Status) float64 { return float64(s.Term) })
	add("last_index", "Last entry in the log", gauge,
		func(s *cluster.Status) float64 { return float64(s.LastIndex) })
	add("commit_index", "Last committed entry", gauge,
		func(s *cluster.Status) float64 { return float64(s.CommitIndex) })
	add("applied_index", "Last applied entry", gauge,
		func(s *cluster.Status) float64 { return float64(s.AppliedIndex) })
	add("leader", "1 while this replica leads", gauge,
		func(s *cluster.Status) float64 { return truth(s.State == "Leader") })
	add("leader_known", "1 while a leader is known", gauge,
		func(s *cluster.Status) float64 { return truth(s.Leader != "") })
	add("disk_sick", "1 while the disk keeps this replica from leading", gauge,
		func(s *cluster.Status) float64 { return truth(s.Sick) })
	add("diverged", "1 while the state of this replica is not that of the others", gauge,
		func(s *cluster.Status) float64 { return truth(s.Diverged != "") })
	add("states_replaced", "How often this replica got the state of another, since its own "+
		"was not that of the others", prometheus.CounterValue,
		func(s *cluster.Status) float64 { return float64(s.Mended) })
	add("write_seconds", "Duration of the last write of the log, fsync included", gauge,
		func(s *cluster.Status) float64 { return s.LastWrite.Seconds() })
	add("slowest_write_seconds", "Longest write of the log since the start", gauge,
		func(s *cluster.Status) float64 { return s.SlowestWrite.Seconds() })
	add("proposals_in_flight", "Commands without a result", gauge,
		func(s *cluster.Status) float64 { return float64(s.InFlight) })
	add("laggards", "Members that get no new entries, as the leader sees it", gauge,
		func(s *cluster.Status) float64 { return float64(len(s.Laggards)) })
	add("log_bytes", "Size of the entries of the log", gauge,
		func(s *cluster.Status) float64 { return float64(s.LogBytes) })
	add("snapshot_bytes", "Size of the newest snapshot that was written here", gauge,
		func(s *cluster.Status) float64 { return float64(s.SnapshotBytes) })
	add("leader_changes", "How often the leader that is known here changed, its loss included",
		prometheus.CounterValue,
		func(s *cluster.Status) float64 { return float64(s.LeaderChanges) })
	add("terms_led", "Terms this replica has led", prometheus.CounterValue,
		func(s *cluster.Status) float64 { return float64(s.TermsLed) })
	add("crash_elections", "Elections called because the leader's process was seen to die",
		prometheus.CounterValue,
		func(s *cluster.Status) float64 { return float64(s.CrashElections) })
	return m
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Describe is part of prometheus.Collector.
func (m *raftMetrics) Describe(out chan<- *prometheus.Desc) {
	for i := range m.series {
		out <- m.series[i].desc
	}
}

// Collect is part of prometheus.Collector.
func (m *raftMetrics) Collect(out chan<- prometheus.Metric) {
	s := m.status()
	for i := range m.series {
		x := &m.series[i]
		out <- prometheus.MustNewConstMetric(x.desc, x.kind, x.value(&s))
	}
}
