// Package fsm is the replicated state of the controller and the only code that
// changes it.
//
// State is an immutable value: tenants, shards with their generations and
// intents, nodes with the verdict on their availability, and the ids of requests
// already done. A Command is an imperative record that the leader puts into the
// log; Apply turns a State and a Command into the next State and a Result. It is
// pure: it reads no clock, draws no random number, does no I/O and depends on no
// map order, so that every replica computes the same state from the same log.
//
// Three rules hold for every command:
//
//   - Generations are numbered here and nowhere else. A number is issued to one
//     node, only grows, and is never issued again for that shard.
//   - A command that carries a decision carries the version of what it was based
//     on (a shard's Sequence, its Generation). When that moved, the command is
//     refused, changes nothing, and the decider looks again.
//   - A refusal is an ordinary Result. Only a log entry that cannot be decoded
//     stops the replica.
//
// Store holds the current State for lock-free readers and tells subscribers what
// each batch touched. Check verifies every internal invariant of a State.
package fsm
