// Package controller holds what the HTTP API can ask for: one small struct per
// resource, whose methods check, decide on the newest state, propose one command
// and wait for as long as the answer promises. It keeps no state of its own, so a
// request may be begun on one leader and be finished by the next.
//
// A decision that turns out to be stale is refused by the log and made again. A
// request that was recognised as done already is answered from the state, and
// done again under no name if the state does not show it.
package controller
