// Package cluster replicates one state machine over a few servers with Raft.
//
// It wraps hashicorp/raft, a bolt log store and memberlist behind few verbs: propose a
// command, wait until reads are safe, run something while leading, change the
// membership, save and restore snapshots. A single server is a cluster with one voter
// and runs the same code.
//
// It adds to the libraries what they lack. Concurrent proposals share log entries.
// Errors say whether nothing happened or the outcome is unknown. Reads are linearizable
// on every replica. A leader whose disk hangs gives way. The death of the leader's
// process is noticed at once. A cluster is bootstrapped exactly once. Two clusters
// refuse each other.
//
// It knows nothing of what the commands mean, and has no code for tests: that is in
// clustertest. docs/cluster.md lists the guarantees, the parts, and where the default
// settings come from.
package cluster
