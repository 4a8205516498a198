// Package reconciler makes pageservers and compute be what the log says. It runs
// on the leader only, for one term at a time.
//
// It is level-triggered: there is no progress counter and no resume code. What a
// shard needs next follows from three things: its record in the log, what was
// seen of its locations, and which nodes answer. Next is that function, pure and
// total; the workers execute the one step it names, record what they saw, and ask
// again. A successor leader starts with everything unknown, lists the nodes, and
// Next names the step at which its predecessor stopped.
//
// What is seen is leader memory. "Unknown" and "nothing there" are never mixed
// up: before any call that changes a location the location becomes unknown, and
// only an answer makes it known again.
//
// A generation is committed by the log before any pageserver hears of it, and
// merely not knowing costs none: an unknown location is looked at first.
package reconciler
