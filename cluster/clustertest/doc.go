// Package clustertest has what a cluster is tested with: a network in memory that can
// be cut, and disks that hang or fail.
//
// All of it works in a testing/synctest bubble. Nothing of a production binary may
// import it.
package clustertest
