// Package safekeeper calls the management API of safekeepers.
//
// Every method is one try. Its own time limit and the caller's context bound it. The
// package never tries again: its callers decide that.
//
// An answer other than 2xx is a *StatusError. It has the status and the text, so that
// the caller can tell a safekeeper that refuses from one that does not answer.
package safekeeper
