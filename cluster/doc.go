// Package cluster replicates one state machine over a few servers with Raft.
//
// It wraps hashicorp/raft, a bolt log store and memberlist behind few verbs:
// propose a command, wait until reads are safe, run something while leading,
// change the membership, save and restore snapshots. One server alone is a
// cluster with one voter and runs the same code.
//
// What it adds to the libraries, each because they lack it: concurrent
// proposals share log entries; errors say whether nothing happened or the
// outcome is unknown; reads are linearizable on every replica; a leader whose
// disk hangs gives way; the death of the leader's process is noticed at once;
// a cluster is bootstrapped exactly once, and two clusters refuse each other.
//
// docs/cluster.md lists the guarantees and where the default settings come from.
package cluster
