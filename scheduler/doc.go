// Package scheduler decides where shards should be: pure functions from one
// fsm.State and the last known load of each node to proposed intents. It has no
// clock, no randomness and no I/O, and the same input always gives the same
// placement. Nothing it returns takes effect before a command with it is
// committed; each intent carries the sequence of the shard it was decided on, so
// a decision that came too late is refused there.
//
// A node may take a new location when it is available and its policy is Active or
// Filling, and when it has no other location of the same shard. Among those the
// lowest Score wins. A node that is not schedulable any more loses nothing by
// that alone: only a node that is offline or deleted does.
//
// A Scheduler is made for one round of decisions. It counts what it has proposed
// as if it were committed, so that a batch spreads over the nodes like the same
// shards placed one after another. For that to hold each shard is to be decided
// at most once by one Scheduler.
//
// When no node at all is schedulable nothing is proposed for a shard that exists:
// if everything looks dead, what looks dead may well be the network, and tearing
// down the last known locations would make it worse.
package scheduler
