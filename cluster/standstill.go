package cluster

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// errStandstill is what CheckProgress returns, with the part that stands still.
var errStandstill = errors.New("this server stands still")

// standstill finds out that goroutines of this server have stopped for good, so that only
// a new process helps. What a new process would not change is no standstill: no majority,
// a disk that hangs or is full, a large state that is still coming.
type standstill struct {
	fit  func() bool // whether the disk works
	now  func() activity
	term func() uint64
	// turn has raft's main loop do nothing, and reports whether it did within the limit.
	turn func(limit time.Duration) bool

	mu   sync.Mutex
	last activity
}

// activity counts what has been done.
type activity struct {
	calls uint64 // of the machine: the begun ones and the ended ones; odd during a call
	bytes uint64 // of snapshots, written and read
}

func newStandstill(c *Cluster) *standstill {
	return &standstill{
		fit: c.node.store.Health.Fit, now: c.fsm.activity,
		term: func() uint64 { return c.node.raft().CurrentTerm() },
		turn: func(limit time.Duration) bool {
			// Entries of a term before the first one are refused by the main loop, in
			// whatever state it is, and change nothing.
			_, ok := c.node.transport.call(
				&raft.AppendEntriesRequest{RPCHeader: c.node.header()}, limit)
			return ok || c.closing.Load()
		},
	}
}

// check returns an error that names what has stood still since the last check, or does so
// for limit.
func (s *standstill) check(limit time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.last
	s.last = s.now()
	if s.last == before && before.calls%2 == 1 {
		return fmt.Errorf("%w: a call of the state machine has not returned", errStandstill)
	}
	// In term 0 nothing is older, and nothing is there to be done. Terms only grow.
	if s.term() == 0 || s.turn(limit) || !s.fit() {
		return nil
	}
	if moved := s.now(); moved.bytes != s.last.bytes {
		s.last = moved
		return nil
	}
	return fmt.Errorf("%w: the main loop of raft has done nothing for %v", errStandstill, limit)
}

// callLock is a mutex that counts, so that a call under it can be seen to take long.
type callLock struct {
	mu    sync.Mutex
	calls atomic.Uint64 // odd while it is held
}

func (l *callLock) Lock() {
	l.mu.Lock()
	l.calls.Add(1)
}

func (l *callLock) TryLock() bool {
	if !l.mu.TryLock() {
		return false
	}
	l.calls.Add(1)
	return true
}

func (l *callLock) Unlock() {
	l.calls.Add(1)
	l.mu.Unlock()
}

// countedSnapshots counts the bytes that are written.
type countedSnapshots struct {
	raft.SnapshotStore
	bytes *atomic.Uint64
}

func (s countedSnapshots) Create(
	version raft.SnapshotVersion, index, term uint64, servers raft.Configuration,
	serversIndex uint64, trans raft.Transport,
) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, servers, serversIndex, trans)
	if err != nil {
		return nil, err
	}
	return countedSink{sink, s.bytes}, nil
}

type countedSink struct {
	raft.SnapshotSink
	bytes *atomic.Uint64
}

func (s countedSink) Write(p []byte) (int, error) {
	n, err := s.SnapshotSink.Write(p)
	s.bytes.Add(uint64(n))
	return n, err
}

// countedReader counts the bytes that are read.
type countedReader struct {
	io.ReadCloser
	bytes *atomic.Uint64
}

func (r countedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.bytes.Add(uint64(n))
	return n, err
}
