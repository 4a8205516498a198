// Package imports takes imports of timelines from what the pageservers report to their
// end: the timeline is made usable on all shards and put on safekeepers, and the
// control plane is told.
//
// An import is a record in the log, and every step may be repeated. So any leader
// does all of them. The package does not copy data, and never ends an import of which
// a shard has not reported.
package imports
