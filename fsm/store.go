package fsm

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// Entry is one command as it stands in the log. Several entries may share an
// index when the log groups them.
type Entry struct {
	Index uint64
	Data  []byte
}

// Store holds the current State. One goroutine applies; any number read.
type Store struct {
	current atomic.Pointer[State]

	// work is what the applying goroutine builds on; published states are copies.
	work *txn

	mu   sync.Mutex
	subs []func(*State, Touched)
}

// NewStore starts with the empty state.
func NewStore() *Store {
	st := &Store{}
	st.reset(NewState())
	return st
}

func (st *Store) reset(s *State) {
	st.work = begin(s)
	st.current.Store(st.work.snapshot())
}

// State is the newest published state. It never blocks.
func (st *Store) State() *State { return st.current.Load() }

// Subscribe registers f to be called after each batch, with the state that holds
// it, on the applying goroutine: f must return at once.
func (st *Store) Subscribe(f func(*State, Touched)) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.subs = append(st.subs, f)
}

// Apply applies a batch and publishes one state for all of it. An entry that
// cannot be decoded stops the replica by a panic: going on would make its state
// differ from the others'.
func (st *Store) Apply(batch []Entry) []Result {
	results := make([]Result, len(batch))
	for i, e := range batch {
		id, c, err := Decode(e.Data)
		if err != nil {
			panic(fmt.Sprintf("log index %d: %v", e.Index, err))
		}
		results[i] = st.work.run(e.Index, id, c)
	}
	st.publish()
	return results
}

func (st *Store) publish() {
	touched := st.work.touched
	st.work.touched = Touched{}
	next := st.work.snapshot()
	st.current.Store(next)
	st.mu.Lock()
	subs := st.subs
	st.mu.Unlock()
	for _, f := range subs {
		f(next, touched)
	}
}

// Snapshot is a writer of the current state, whose WriteTo may run while the
// store goes on applying. Call it on the applying goroutine.
func (st *Store) Snapshot() io.WriterTo { return SnapshotWriter{st.State()} }

// Restore replaces the state by a snapshot. Nothing changes on an error.
func (st *Store) Restore(r io.Reader) error {
	s, err := ReadSnapshot(r)
	if err != nil {
		return err
	}
	st.reset(s)
	st.publish()
	return nil
}
