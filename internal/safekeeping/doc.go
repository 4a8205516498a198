// Package safekeeping is the leader's work on safekeepers: it asks them for signs of
// life, and carries out what the log says they owe — to pull a timeline, to drop one
// that they are no member of, or one that is deleted.
//
// What is owed is a record in the log and stays one until it was carried out, so
// that a leader begins where the last one stopped. A safekeeper whose policy is not
// Active owes on and is left alone. Everything else known here is of one term and
// dies with it.
package safekeeping
