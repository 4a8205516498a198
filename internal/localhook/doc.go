// Package localhook tells the computes of a neon_local environment where their
// tenant is attached, in the place of a control plane.
//
// Everything is read from the directory of the environment each time: the
// addresses of the pageservers, the endpoints, and the specification each compute
// was started with. A running compute gets that specification again, with the new
// addresses in it. The program neon_local is never started: it holds a lock on
// the directory for as long as it runs, and may be waiting for the controller.
package localhook
