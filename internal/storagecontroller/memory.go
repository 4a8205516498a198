package storagecontroller

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A process that has come to rest keeps the memory of its last work: the runtime collects
// only when as much again was allocated, or every two minutes, and returns little of it.
const (
	// memoryPause is how often the process looks whether it is at rest.
	memoryPause = 30 * time.Second
	// restBytes is what a process at rest allocates at most in that time.
	restBytes = 16 << 20
	// leastReturned is what is worth a collection. Of a large heap it is half of what is
	// in use, since the collection reads all of that.
	leastReturned = 8 << 20
)

// memory is what the runtime says of its memory, in bytes.
type memory struct {
	allocated uint64 // since the process began
	live      uint64 // at the end of the last collection
	objects   uint64 // live ones and garbage
	free      uint64 // kept for new objects
}

func readMemory() memory {
	s := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(s)
	return memory{s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64(),
		s[3].Value.Uint64()}
}

// returns reports whether a process at rest should return memory, seen memoryPause before.
func (m memory) returns(before memory) bool {
	if m.allocated-before.allocated > restBytes {
		return false
	}
	spare := m.free + m.objects - min(m.objects, m.live)
	return spare > max(leastReturned, m.live/2)
}

// returnMemory gives memory back to the system whenever the process has come to rest, until
// ctx ends.
func returnMemory(ctx context.Context) {
	tick := time.NewTicker(memoryPause)
	defer tick.Stop()
	for before := readMemory(); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := readMemory()
		if now.returns(before) {
			debug.FreeOSMemory()
		}
		before = now
	}
}
