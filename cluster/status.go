package cluster

import "time"

// Status is this server's view of itself, for metrics and debugging.
type Status struct {
	ID           string `json:"id"`
	ClusterID    string `json:"cluster_id"`
	State        string `json:"state"` // Follower, Candidate, Leader or Shutdown
	Leader       string `json:"leader"`
	Term         uint64 `json:"term"`
	LastIndex    uint64 `json:"last_index"`
	CommitIndex  uint64 `json:"commit_index"`
	AppliedIndex uint64 `json:"applied_index"`

	// Sick: the disk is unhealthy, or was until a moment ago. SickReason says how.
	Sick       bool   `json:"sick"`
	SickReason string `json:"sick_reason,omitempty"`
	// LastWrite and SlowestWrite are durations of writes, fsync included.
	LastWrite    time.Duration `json:"last_write_ns"`
	SlowestWrite time.Duration `json:"slowest_write_ns"`

	// TermsLed counts leads this server began, CrashElections those that the
	// crash detector called for.
	TermsLed       uint64    `json:"terms_led"`
	CrashElections uint64    `json:"crash_elections"`
	LeaderChanged  time.Time `json:"leader_changed"` // when the known leader last changed
	LeaderChanges  uint64    `json:"leader_changes"` // how often it did, its loss included
	// LogBytes is the size of the entries of the log, SnapshotBytes that of the newest
	// snapshot.
	LogBytes      int64 `json:"log_bytes"`
	SnapshotBytes int64 `json:"snapshot_bytes"`
	InFlight      int   `json:"in_flight"` // proposals without a result
	// Diverged says why this server is out of service, since its state is not that of
	// the others; "" when it is not. Mended counts how often it got theirs.
	Diverged string `json:"diverged,omitempty"`
	Mended   uint64 `json:"mended"`
	// Laggards are members that are connected but have not come closer to the
	// commit index for half a minute. Only the leader looks.
	Laggards []string `json:"laggards,omitempty"`
}
