package cluster

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// Entry is one proposed command as it stands in the log. Several commands may
// share an index, because concurrent proposals share log entries.
type Entry struct {
	Index uint64
	Term  uint64
	Data  []byte
}

// Machine is the replicated state machine. Its methods are called from one
// goroutine, never at once. It must be deterministic.
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
	machine Machine
	applied progress
	changed func() // called after a membership entry was applied

	restoreErr error // why the last Restore failed; read before raft runs
}

func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch hands the commands of all entries to the machine at once. The
// result for an entry is the []any of its commands.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	var batch []Entry
	counts := make([]int, len(logs))
	for i, l := range logs {
		if l.Type != raft.LogCommand {
			f.changed()
			continue
		}
		commands, err := decodeFrame(l.Data)
		if err != nil {
			// The entry was checked when it was written and when the log was opened.
			panic(fmt.Sprintf("cluster: log entry %d of term %d: %v", l.Index, l.Term, err))
		}
		counts[i] = len(commands)
		for _, c := range commands {
			batch = append(batch, Entry{Index: l.Index, Term: l.Term, Data: c})
		}
	}
	var results []any
	if len(batch) > 0 {
		results = f.machine.Apply(batch)
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

// snapshotMagic opens every snapshot; the applied index follows, so that a
// restored replica knows how far it is without asking raft.
var snapshotMagic = [8]byte{'C', 'L', 'S', 'N', 'A', 'P', '0', '1'}

type fsmSnapshot struct {
	index uint64
	state io.WriterTo
}

func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	state, err := f.machine.Snapshot()
	if err != nil {
		return nil, err
	}
	return &fsmSnapshot{index: f.applied.index(), state: state}, nil
}

func (s *fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.write(sink); err != nil {
		_ = sink.Cancel()
		return err
	}
	return sink.Close()
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

func (f *fsm) Restore(r io.ReadCloser) error {
	index, err := readSnapshotHead(r)
	if err == nil {
		err = f.machine.Restore(r)
	}
	f.restoreErr = err
	if err != nil {
		return err
	}
	f.applied.reset(index)
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

// progress is an index that grows and can be waited for.
type progress struct {
	mu    sync.Mutex
	at    uint64
	moved chan struct{} // closed at the next change; nil while nobody waits
}

func (p *progress) index() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at
}

func (p *progress) advance(to uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if to > p.at {
		p.set(to)
	}
}

func (p *progress) reset(to uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set(to)
}

func (p *progress) set(to uint64) {
	p.at = to
	if p.moved != nil {
		close(p.moved)
		p.moved = nil
	}
}

// wait returns nil once the index is at least want.
func (p *progress) wait(ctx context.Context, want uint64) error {
	for {
		p.mu.Lock()
		if p.at >= want {
			p.mu.Unlock()
			return nil
		}
		if p.moved == nil {
			p.moved = make(chan struct{})
		}
		moved := p.moved
		p.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
