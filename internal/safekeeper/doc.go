// Package safekeeper calls the management API of safekeepers.
//
// One method is one request and one try, bounded by its own timeout and by the
// caller's context. Every answer other than 2xx is an error: a StatusError, which
// has the status and the text, so that the caller can tell a safekeeper that
// refuses from one that does not answer. What is to be tried again, and how often,
// is decided elsewhere.
package safekeeper
