// Package pageserver is the HTTP client of the pageservers' management API.
//
// Every method is one try with a time limit. Whether and when to try again is the
// caller's decision, because only the caller knows whether the call is still
// wanted: a late retry of a location change is how data gets lost. A method that
// fails without a *StatusError says nothing about whether the pageserver carried
// the call out; a pageserver goes on after its client has hung up.
//
// The errors also answer errors.As for a *neon.Error, with the class and the text
// that a client of the controller sees when the failure is passed on to it.
package pageserver
