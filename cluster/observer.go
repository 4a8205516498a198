package cluster

import "time"

// Observer is told how long things took, for histograms. Its functions are called on the
// goroutines that do the work, so they must be quick. Those that are nil are not called.
type Observer struct {
	// Appended: entries were written to the log, fsync included.
	Appended func(took time.Duration, bytes int)
	// Committed: an entry that was proposed here is committed and applied here.
	Committed func(took time.Duration)
	// Applied: commands were applied to the machine.
	Applied func(took time.Duration, commands int)
	// SnapshotTaken: a snapshot of the machine was written, for the log to be shortened
	// or for a follower.
	SnapshotTaken func(took time.Duration, bytes int64)
}

func (o Observer) withDefaults() Observer {
	if o.Appended == nil {
		o.Appended = func(time.Duration, int) {}
	}
	if o.Committed == nil {
		o.Committed = func(time.Duration) {}
	}
	if o.Applied == nil {
		o.Applied = func(time.Duration, int) {}
	}
	if o.SnapshotTaken == nil {
		o.SnapshotTaken = func(time.Duration, int64) {}
	}
	return o
}
