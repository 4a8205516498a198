// Package bench measures a cluster the way its users meet it: real controller
// processes with three replicas, fsync on, one disk; simulated pageservers and the
// clients in the measuring process. Every figure is printed with its target, and
// docs/performance.md tells which command made it.
//
// Failover measures how long writes are not acknowledged around the deaths,
// freezes, hung disks and hand-overs of leaders. Run measures throughput, memory,
// restarts and evacuations. The load takes its share of the same processors: what
// is printed is what remains for the controllers beside it.
package bench
