package app

import (
	"maps"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"quorate/cluster"
)

// gathered are the values of all series, by name and member.
func gathered(t *testing.T, g prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			out[name] = m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return out
}

func TestMetricsShowADeadVoterAndALostMajority(t *testing.T) {
	members := []cluster.MemberStatus{
		{ID: "a", Voter: true, Self: true}, {ID: "b", Voter: true, Connected: true, Lag: 7},
		{ID: "c", Voter: true}, {ID: "d", Connected: true},
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(newMemberMetrics(func() []cluster.MemberStatus { return members }))
	const p = "storage_controller_raft_"
	want := map[string]float64{
		p + "majority_connected": 1,
		p + "member_connected a": 1, p + "member_connected b": 1, p + "member_connected c": 0,
		p + "member_connected d":   1,
		p + "member_lag_entries a": 0, p + "member_lag_entries b": 7,
		p + "member_lag_entries c": 0, p + "member_lag_entries d": 0,
		p + "member_voter a": 1, p + "member_voter b": 1, p + "member_voter c": 1,
		p + "member_voter d": 0,
	}
	if got := gathered(t, registry); !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
	members = members[:3]
	members[1].Connected = false
	want[p+"majority_connected"], want[p+"member_connected b"] = 0, 0
	for _, name := range []string{"connected", "lag_entries", "voter"} {
		delete(want, p+"member_"+name+" d")
	}
	if got := gathered(t, registry); !maps.Equal(got, want) {
		t.Errorf("after one was removed and one had died: %v", got)
	}
}

func TestDurationsOfTheLogAreHistograms(t *testing.T) {
	registry := prometheus.NewRegistry()
	o := observe(registry)
	o.Appended(time.Millisecond, 1)
	o.Committed(time.Millisecond)
	o.Committed(time.Second)
	o.Applied(time.Microsecond, 1)
	o.SnapshotTaken(time.Minute, 1)
	const p = "storage_controller_raft_"
	want := map[string]float64{
		p + "append_duration_seconds": 1, p + "commit_duration_seconds": 2,
		p + "apply_duration_seconds": 1, p + "snapshot_duration_seconds": 1,
	}
	if got := gathered(t, registry); !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
}
