// Package safekeeping is the leader's work on safekeepers. It sends heartbeats to them,
// and carries out what the log says they owe: to pull a timeline, to drop one that they
// are no member of, or to delete one.
//
// What is owed is a record in the log, and stays one until it was carried out. So a new
// leader goes on where the last one stopped. A safekeeper whose policy is not Active is
// called for nothing that it owes. Everything else known here ends with the term.
package safekeeping
