package storagecontroller

import (
	"os"
	"runtime"
)

// minProcs is the least number of goroutines that run at once. A page of the
// memory-mapped log that has to come from a busy disk stops the one that touches
// it without the runtime noticing, unlike a system call; on a machine with one
// processor it would stop heartbeats for as long, and cost the lead.
const minProcs = 4

// spareProcs raises GOMAXPROCS to minProcs, unless the operator has set it.
func spareProcs() {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) < minProcs {
		runtime.GOMAXPROCS(minProcs)
	}
}
