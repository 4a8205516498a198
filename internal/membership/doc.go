// Package membership decides which safekeepers a timeline is on: it puts new timelines
// on a set, and moves timelines from one set to another. Requests begin that, and the
// leader carries on what requests and earlier leaders have left.
//
// A move goes through a joint configuration, as in Raft. What was acknowledged by a
// quorum of the old set is on a quorum of the new set before the move is committed.
//
// The package never deletes a timeline from a safekeeper that is to be excluded: that
// would take the log in remote storage away from the members. What safekeepers still
// owe is carried out by package safekeeping.
package membership
