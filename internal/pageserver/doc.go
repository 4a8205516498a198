// Package pageserver is the HTTP client of the pageservers' management API.
//
// Every method is one try with a time limit. The package never tries again. Only the
// caller knows whether the call is still wanted, and a change of a location that is
// tried again too late loses data. After an error other than a *StatusError, it is not
// known whether the pageserver carried the call out: a pageserver goes on when its
// client has hung up.
//
// errors.As finds a *neon.Error in every error. It has the class and the text that a
// client of the controller sees when the error is passed on.
package pageserver
