// Package duty runs what only the leader does. A duty is begun with a term of
// leadership and has ended, with all that it started, before the next term begins.
//
// It also has what duties have in common: one piece of work for each thing at a time,
// and turns between a duty and the requests of clients.
//
// The package must not know what any duty does.
package duty
