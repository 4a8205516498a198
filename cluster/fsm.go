package cluster

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"quorate/internal/wait"
)

// Entry is one proposed command as it stands in the log. Several commands may share an
// index, because concurrent proposals share log entries.
type Entry struct {
	Index uint64
	Data  []byte
}

// Machine is the replicated state machine. It must be deterministic. Its methods are
// never called at once. One that is a Digester as well is compared with those of the
// other replicas.
type Machine interface {
	// Apply applies the commands in order and returns one result for each.
	Apply(batch []Entry) []any
	// Snapshot captures the state in O(1). WriteTo runs later, while Apply goes on.
	Snapshot() (io.WriterTo, error)
	// Restore replaces the whole state by what WriteTo wrote.
	Restore(r io.Reader) error
}

// fsm is the bridge between raft and the Machine.
type fsm struct {
	mu      callLock // held while the machine is called
	machine Machine
	digest  Digester // nil: the machine is none
	observe Observer
	points  points
	applied progress
	members committedMembers
	changed func()        // called after a membership entry was applied
	sending chan struct{} // a place for each state that is being sent; see capture

	// handed is the last entry that raft has handed over. Up to ahead the machine has
	// applied everything already: it got the state of another replica.
	handed, ahead uint64

	// vouch waits until others have the state at or after an index; see equality. origins
	// counts the states that came from elsewhere: what is vouched for then is another one.
	vouch   func(index uint64) error
	origins atomic.Uint64

	moved         atomic.Uint64       // bytes of snapshots, written and read
	snapshotBytes atomic.Int64        // of the newest snapshot that was written here
	took          func(index uint64)  // called with the index of each
	appliedIn     func(time.Duration) // called with the time that entries took

	restoreErr error // why the last Restore failed; read before raft runs
}

// activity is what was done until now.
func (f *fsm) activity() activity {
	return activity{calls: f.mu.calls.Load(), bytes: f.moved.Load()}
}

func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

func newFSM(m Machine, changed func(), o Observer) *fsm {
	f := &fsm{
		machine: m, changed: changed, observe: o, sending: make(chan struct{}, maxSending),
		took: func(uint64) {}, appliedIn: func(time.Duration) {},
	}
	f.digest, _ = m.(Digester)
	return f
}

// ApplyBatch hands the commands of the entries to the machine, as many at once as go
// between two points at which states are compared. The result for an entry is the []any
// of its commands; it is empty for one whose effect came with another replica's state.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.handed = logs[len(logs)-1].Index
	return f.applyAll(logs)
}

func (f *fsm) applyAll(logs []*raft.Log) (out []any) {
	for from, i := 0, 0; i < len(logs); i++ {
		if logs[i].Index%pointEvery == 0 || i+1 == len(logs) {
			out = append(out, f.applyRun(logs[from:i+1])...)
			f.note(logs[i].Index)
			from = i + 1
		}
	}
	return out
}

// note keeps the hash of the state after the entry at an index.
func (f *fsm) note(index uint64) {
	if f.digest != nil && index >= f.ahead {
		scheme, hash := f.digest.Digest()
		f.points.add(scheme, point{index, hash})
	}
}

// look notes the hash of the state as it is, also when no entries come. It does not wait
// for the machine.
func (f *fsm) look() {
	if f.mu.TryLock() {
		defer f.mu.Unlock()
		if index := f.applied.index(); index > 0 {
			f.note(index)
		}
	}
}

func (f *fsm) applyRun(logs []*raft.Log) []any {
	var batch []Entry
	counts := make([]int, len(logs))
	for i, l := range logs {
		if l.Type != raft.LogCommand {
			f.members.note(l)
			f.changed()
			continue
		}
		if l.Index <= f.ahead {
			continue
		}
		commands, err := decodeFrame(l.Data)
		if err != nil {
			// The entry was checked when it was written and when the log was opened.
			panic(fmt.Sprintf("cluster: log entry %d of term %d: %v", l.Index, l.Term, err))
		}
		counts[i] = len(commands)
		for _, c := range commands {
			batch = append(batch, Entry{Index: l.Index, Data: c})
		}
	}
	var results []any
	if len(batch) > 0 {
		began := time.Now()
		results = f.machine.Apply(batch)
		took := time.Since(began)
		f.observe.Applied(took, len(batch))
		f.appliedIn(took)
		if len(results) != len(batch) {
			panic(fmt.Sprintf("cluster: machine returned %d results for %d commands", len(results),
				len(batch)))
		}
	}
	out := make([]any, len(logs))
	for i, n := range counts {
		out[i], results = results[:n:n], results[n:]
	}
	f.applied.advance(logs[len(logs)-1].Index)
	return out
}

// snapshotMagic opens every snapshot. The applied index follows, so that a restored
// replica knows how far it is without asking raft.
var snapshotMagic = [8]byte{'C', 'L', 'S', 'N', 'A', 'P', '0', '1'}

type fsmSnapshot struct {
	index uint64
	state io.WriterTo
	vouch func() error // nil: nobody need be asked
	taken func(index uint64, took time.Duration, bytes int64)
}

func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.handed < f.ahead { // raft would note an index before that of the state
		return nil, errAhead
	}
	state, err := f.machine.Snapshot()
	if err != nil {
		return nil, err
	}
	s := &fsmSnapshot{index: f.applied.index(), state: state, taken: f.snapshotTaken}
	if f.digest != nil && f.vouch != nil {
		origin := f.origins.Load()
		s.vouch = func() error {
			if err := f.vouch(s.index); err != nil {
				return err
			}
			if f.origins.Load() != origin {
				return errReplaced
			}
			return nil
		}
	}
	return s, nil
}

func (s *fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	if s.vouch != nil {
		if err := s.vouch(); err != nil {
			_ = sink.Cancel()
			return err
		}
	}
	began := time.Now()
	counted := countingWriter{Writer: sink}
	if err := s.write(&counted); err != nil {
		_ = sink.Cancel()
		return err
	}
	err := sink.Close()
	if err == nil {
		s.taken(s.index, time.Since(began), counted.bytes)
	}
	return err
}

func (s *fsmSnapshot) write(w io.Writer) error {
	var head [16]byte
	copy(head[:], snapshotMagic[:])
	binary.BigEndian.PutUint64(head[8:], s.index)
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	_, err := s.state.WriteTo(w)
	return err
}

func (*fsmSnapshot) Release() {}

// snapshotTaken notes that a snapshot was written.
func (f *fsm) snapshotTaken(index uint64, took time.Duration, bytes int64) {
	f.snapshotBytes.Store(bytes)
	f.took(index)
	f.observe.SnapshotTaken(took, bytes)
}

type countingWriter struct {
	io.Writer
	bytes int64
}

func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.bytes += int64(n)
	return n, err
}

func (f *fsm) Restore(r io.ReadCloser) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	r = countedReader{r, &f.moved}
	index, err := readSnapshotHead(r)
	if err == nil {
		err = f.machine.Restore(r)
	}
	f.restoreErr = err
	if err != nil {
		return err
	}
	f.handed, f.ahead = index, index
	f.origins.Add(1)
	f.points.forget()
	f.note(index)
	f.applied.reset(index)
	f.members.load()
	f.changed()
	return nil
}

func readSnapshotHead(r io.Reader) (uint64, error) {
	var head [16]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, fmt.Errorf("%w: snapshot header: %w", ErrCorrupt, err)
	}
	if [8]byte(head[:8]) != snapshotMagic {
		return 0, fmt.Errorf("%w: not a snapshot of this software", ErrCorrupt)
	}
	return binary.BigEndian.Uint64(head[8:]), nil
}

// progress is an index that grows and can be waited for. Only the goroutine of the state
// machine moves it.
type progress struct {
	moved wait.Broadcast
	mu    sync.Mutex
	at    uint64
}

func (p *progress) index() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at
}

// advance moves the index forward.
func (p *progress) advance(to uint64) {
	if p.index() < to {
		p.reset(to)
	}
}

// reset moves the index, also back.
func (p *progress) reset(to uint64) {
	p.mu.Lock()
	p.at = to
	p.mu.Unlock()
	p.moved.Notify()
}

// wait returns nil once the index is at least want.
func (p *progress) wait(ctx context.Context, want uint64) error {
	for {
		moved := p.moved.Changed()
		if p.index() >= want {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
