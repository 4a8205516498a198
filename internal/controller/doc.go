// Package controller carries out the requests of the HTTP API. It has one small struct
// for each resource. The methods check, decide on the newest state, propose one command,
// and wait for as long as the answer promises. The package keeps no state of its own, so
// a request may be begun on one leader and be finished by the next.
//
// A decision that turns out to be stale is refused by the log and made again. A
// request that the log recognises as done is answered from the state, and not done again.
package controller
