package storagecontroller

import (
	"context"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
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

	// largeHeap is from when on garbage costs more than its collection: as much garbage as
	// what is in use is let be by default, fullShare, and largeShare in percent of it from
	// there on, until less than smallHeap is in use.
	largeHeap, smallHeap  = 64 << 20, 48 << 20
	largeShare, fullShare = 50, 100
	// limitShare is the part of the memory that the control group allows within which the
	// runtime tries to stay. The rest is for what is not the heap, such as buffers of the
	// kernel.
	limitShare = 0.9
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

// garbageShare is how much garbage there may be, in percent of what is in use, after another
// share.
func (m memory) garbageShare(before int) int {
	switch {
	case m.live > largeHeap:
		return largeShare
	case m.live < smallHeap:
		return fullShare
	}
	return before
}

// limitMemory has the runtime stay within what the control group of the process allows, if
// it has one, unless GOMEMLIMIT says something else.
func limitMemory(log *slog.Logger) {
	limit, err := memlimit.Set(memlimit.WithRatio(limitShare),
		memlimit.WithLogger(slog.New(slog.DiscardHandler)))
	if err == nil && limit > 0 && limit < math.MaxInt64 {
		log.Info("Memory is limited by the control group", "limit_bytes", limit)
	}
}

// manageMemory lets a large heap have less garbage, unless GOGC says how much, and gives memory
// back to the system whenever the process has come to rest, until ctx ends.
func manageMemory(ctx context.Context) {
	tick := time.NewTicker(memoryPause)
	defer tick.Stop()
	chosen := os.Getenv("GOGC") != ""
	share := fullShare
	for before := readMemory(); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := readMemory()
		if next := now.garbageShare(share); !chosen && next != share {
			share = next
			debug.SetGCPercent(share)
		}
		if now.returns(before) {
			debug.FreeOSMemory()
		}
		before = now
	}
}
