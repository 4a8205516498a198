// Package simpageserver simulates many Neon pageservers in one process and
// checks, as they work, that their controller keeps the rules that protect
// tenants' data.
//
// A Fleet holds Nodes that share one object Store and one Oracle. A Node speaks
// the pageservers' HTTP routes, re-attaches when it starts, loses its memory
// when it is killed and its disk when it is wiped, and can be told to be slow,
// to refuse, to hang and to lose replies. The layers are:
//
//   - core: the state of one pageserver as plain values, without I/O and without
//     a clock. Durations such as activation, downloads and the growth of the
//     log are functions of the time passed in, so a shard costs no goroutine and
//     no timer. The core keeps the slots; timelines, heatmaps, the deletion queue and
//     a split under way are types of their own.
//   - host: what outlives the processes of a Node, which is the core and its lock.
//   - incarnation: one life of a Node. It owns the goroutines, and is the only way
//     in which they change the core, so that nothing of a killed process has an
//     effect. A request goes on after its client gave up.
//   - handlers: one type for each resource, on top of the incarnation.
//   - process: the listener, the HTTP server and the background work.
//   - Fault: rules applied to requests before and after they reach the core.
//   - Oracle: told of every effect, it records violations of the numbered
//     invariants and a bounded history. It never stops the run.
//   - Hook: the control plane that controllers notify about attachments.
//
// What is not modelled: page contents, WAL bytes.
// In an object store the index that an unreachable, superseded pageserver uploads
// of a timeline which its successor has deleted stays, and a later owner would find
// it; here it is ignored.
//
// Everything uses the time package and injected listeners and transports, and
// no lock is held while waiting, so a fleet runs unchanged in a testing/synctest
// bubble.
package simpageserver
