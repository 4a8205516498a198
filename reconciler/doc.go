// Package reconciler makes pageservers and compute be what the log says. It runs
// on the leader only, for one term at a time.
//
// It is level-triggered: there is no progress counter and no resume code. What a
// shard needs next follows from three things: its record in the log, what was
// seen of its locations, and which nodes answer. Package plan has that function. The
// workers execute the one step that it names, record what they saw, and ask again. A
// new leader starts with everything unknown and lists the nodes. Then the planner
// names the step at which its predecessor stopped.
//
// A term builds its parts, runs them and joins them. No part knows the term or locks
// what another one guards:
//
//   - nodes ask for signs of life and list what is on them (nodes.go, heartbeat.go,
//     listing.go); what was seen is in package observed.
//   - feed turns changes of the state into wake-ups of shards in the queue (feed.go,
//     package queue).
//   - workers make steps: short ones (worker.go, calls.go) and long ones (longstep.go,
//     warm.go, catchup.go).
//   - the outbox tells compute (package outbox).
//   - rules evacuate and repair, operations drain, fill and delete nodes, the
//     optimiser looks for better places, and chaos disturbs (rules.go, operations.go,
//     optimise.go, chaos.go).
//
// The package keeps nothing from one term to the next. It makes no call but through
// the interfaces in deps.go.
package reconciler
