package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"quorate/cluster/internal/datadir"
)

// guard stands between raft and its stores. Raft writes its log on the loop that
// also leads. So a write that hangs would leave a leader that sends heartbeats for
// ever and does nothing. And raft panics when a term cannot be written.
//
//   - A leader's log write that takes longer than the deadline fails, so that raft
//     steps down, if another server could lead (see Hooks.MajorityWrites). If the write
//     then succeeds after all, its entries are removed before anything else is
//     written. Raft was told that they do not exist, and a later leader's shorter log
//     would otherwise keep them as its tail.
//   - Every other write waits. A follower that fails to write may have cut its log
//     already, and raft does not recover from that. A follower that is silent is just
//     slow.
//   - A full disk is tried again. After any other error nothing is written any more,
//     the server stays silent, and Health reports it as fatal.
type guard struct {
	log      raft.LogStore
	stable   raft.StableStore
	kept     raft.SnapshotStore
	health   *Health
	deadline time.Duration

	jobs     chan *job
	done     chan struct{}
	stopOnce sync.Once
	wg       sync.WaitGroup
	cache    logCache
	*logSize
	heldTerm []byte // the vote's term, held back until the candidate is known

	marked atomic.Uint64 // an entry that is known to be committed; see Mark
}

// job is one write, run by the only goroutine that writes.
type job struct {
	write func() error
	undo  func() error // for a write that its caller gave up
	fate  atomic.Int32 // pending, finished or disowned
	size  int          // bytes
	done  chan error   // buffered
}

func newJob(write func() error, size int) *job {
	return &job{write: write, size: size, done: make(chan error, 1)}
}

const (
	pending int32 = iota
	finished
	disowned
)

// slowestDisk is the bandwidth in bytes a second below which a disk counts as
// hanging: a large write gets that much more time.
const slowestDisk = 20 << 20

// noSpaceRetry is the pause between two tries to write to a full disk.
const noSpaceRetry = 200 * time.Millisecond

func newGuard(s Stores, h *Health, sizes *logSize) *guard {
	g := &guard{
		log: s.Log, stable: s.Stable, kept: s.Snapshots, health: h, deadline: h.limits.Write,
		jobs: make(chan *job), done: make(chan struct{}), logSize: sizes,
	}
	g.wg.Go(g.run)
	return g
}

func (g *guard) run() {
	for {
		select {
		case j := <-g.jobs:
			err := j.write()
			if j.fate.CompareAndSwap(pending, finished) {
				j.done <- err
				continue
			}
			if err != nil {
				g.health.failed(err)
			} else if !g.retract(j) {
				return
			}
			g.health.stallEnded()
		case <-g.done:
			return
		}
	}
}

// retract removes what a disowned write has written. It reports false when the
// guard was stopped before that succeeded.
func (g *guard) retract(j *job) bool {
	for j.undo != nil {
		err := j.undo()
		if err == nil {
			break
		}
		g.health.failed(err)
		select {
		case <-time.After(noSpaceRetry):
		case <-g.done:
			return false
		}
	}
	return true
}

// stop fails all writes from now on. A write that hangs in the kernel is left behind.
func (g *guard) stop() {
	g.stopOnce.Do(func() {
		close(g.done)
		joined := make(chan struct{})
		go func() { g.wg.Wait(); close(joined) }()
		select {
		case <-joined:
		case <-time.After(g.deadline):
			g.health.log.Info("closing while a write hangs", "err", ErrDisk)
		}
	})
}

// test runs write after the writes under way, and gives up when ctx ends. A write
// that hangs then is left to the goroutine that writes. The next test waits behind it.
func (g *guard) test(ctx context.Context, write testWrite) error {
	j := newJob(write, 0)
	select {
	case g.jobs <- j:
	case <-ctx.Done():
		return ctx.Err()
	case <-g.done:
		return ErrClosed
	}
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-g.done:
		return ErrClosed
	}
}

// try runs one write. A limited one is disowned when it counts as hanging.
func (g *guard) try(j *job, limited bool) error {
	if err := g.health.condemned(); err != nil {
		return err
	}
	deadline := g.deadline + time.Duration(j.size)*time.Second/slowestDisk
	timer := time.NewTimer(deadline)
	defer timer.Stop()
	began := time.Now()
	jobs := g.jobs
	late := false
	asking, stop := context.WithCancel(context.Background())
	defer stop()
	var hangs <-chan struct{}
	end := func(err error) error {
		if late {
			g.health.stallEnded()
		}
		g.health.wrote(time.Since(began), err)
		if err == nil {
			g.health.wroteLog()
		}
		return err
	}
	for {
		select {
		case jobs <- j:
			jobs = nil
		case err := <-j.done:
			return end(err)
		case <-timer.C:
			hangs = g.health.overdue(asking, limited, g.health.limits.Grace)
		case <-hangs:
			hangs = nil
			err := fmt.Errorf("%w: a write takes longer than %v", ErrDisk,
				time.Since(began).Round(time.Millisecond))
			g.health.stallBegan(err)
			late = true
			switch {
			case !limited:
			case jobs != nil: // still behind another write that hangs
				g.health.stallEnded()
				return err
			case j.fate.CompareAndSwap(pending, disowned):
				return err
			default:
				return end(<-j.done)
			}
		case <-g.done:
			if jobs == nil && !j.fate.CompareAndSwap(pending, disowned) {
				return <-j.done
			}
			return ErrClosed
		}
	}
}

// insist runs a write until it succeeds. It fails only when the guard is stopped.
func (g *guard) insist(write func() error, size int) error {
	for {
		err := g.try(newJob(write, size), false)
		if err == nil || errors.Is(err, ErrClosed) {
			return err
		}
		var again <-chan time.Time
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			again = time.After(noSpaceRetry)
		}
		select {
		case <-again:
		case <-g.done:
			return ErrClosed
		}
	}
}

// StoreLog and the methods below make guard raft's LogStore and StableStore.
func (g *guard) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

func (g *guard) StoreLogs(logs []*raft.Log) error {
	write := func() error { return g.log.StoreLogs(logs) }
	size := 0
	for _, l := range logs {
		size += len(l.Data)
	}
	began := time.Now()
	if !g.health.hooks.Leads() {
		if err := g.insist(write, size); err != nil {
			return err
		}
		g.appended(logs, time.Since(began), size)
		return nil
	}
	first, last := logs[0].Index, logs[len(logs)-1].Index
	j := newJob(write, size)
	j.undo = func() error { return g.log.DeleteRange(first, last) }
	if err := g.try(j, true); err != nil {
		return fmt.Errorf("%w: write the log: %w", ErrDisk, err)
	}
	g.appended(logs, time.Since(began), size)
	return nil
}

func (g *guard) appended(logs []*raft.Log, took time.Duration, size int) {
	g.cache.add(logs)
	for _, l := range logs {
		g.logSize.add(l.Index, len(l.Data))
	}
	if f := g.health.hooks.Appended; f != nil {
		f(took, size)
	}
}

// IsMonotonic makes raft remove the whole log when it installs a snapshot that ends
// beyond the log. Otherwise a part of the log would stay. It would have a gap up to
// the entries that follow the snapshot, and could hold entries that were never
// committed.
func (g *guard) IsMonotonic() bool { return true }

// deleteBytes is what a deletion counts as: 290,000 entries take bolt half a second.
const deleteBytes = 40 << 20

// DeleteRange removes the end of the log when a leader has other entries there, or its
// beginning. Entries that were committed are never others elsewhere, unless a server with
// an older disk has voted. Then they may be nowhere else, so this server keeps them.
func (g *guard) DeleteRange(low, high uint64) error {
	if err := g.checkEnd(low, high); err != nil {
		g.health.Condemn(err)
		return err
	}
	g.cache.clear()
	err := g.insist(func() error { return g.log.DeleteRange(low, high) }, deleteBytes)
	if err == nil {
		g.logSize.remove(low, high)
	}
	return err
}

func (g *guard) checkEnd(low, high uint64) error {
	committed := max(g.marked.Load(), g.health.hooks.Applied())
	if low > committed {
		return nil
	}
	last, err := g.log.LastIndex()
	if err != nil || high < last {
		return err
	}
	// All of the log goes when a snapshot has come that has all that was committed here.
	list, err := g.kept.List()
	if err != nil || len(list) > 0 && list[0].Index >= committed {
		return err
	}
	return fmt.Errorf("%w: the leader has other entries from %d on, and those up to %d were "+
		"committed here: a server with an older copy of its disk has voted. Nothing was removed "+
		"here; stop the cluster, and compare the members, before anything else",
		datadir.ErrGoneBack, low, committed)
}

func (g *guard) GetLog(index uint64, l *raft.Log) error {
	if g.cache.load(index, l) {
		return nil
	}
	return g.log.GetLog(index, l)
}

func (g *guard) FirstIndex() (uint64, error) { return g.log.FirstIndex() }
func (g *guard) LastIndex() (uint64, error)  { return g.log.LastIndex() }

// The keys under which raft keeps its vote.
var (
	keyVoteTerm      = []byte("LastVoteTerm")
	keyVoteCandidate = []byte("LastVoteCand")
)

// Set writes a vote's candidate before its term. Raft asks for the other order. A
// crash in between would then leave the new term with an older candidate, and raft
// would grant that candidate its vote again without looking at its log.
func (g *guard) Set(key, value []byte) error {
	if err := g.mustWrite(func() error { return g.stable.Set(key, value) }); err != nil {
		return err
	}
	if !bytes.Equal(key, keyVoteCandidate) || g.heldTerm == nil {
		return nil
	}
	term := binary.BigEndian.Uint64(g.heldTerm)
	g.heldTerm = nil
	return g.mustWrite(func() error { return g.stable.SetUint64(keyVoteTerm, term) })
}

func (g *guard) SetUint64(key []byte, value uint64) error {
	if bytes.Equal(key, keyVoteTerm) {
		g.heldTerm = binary.BigEndian.AppendUint64(nil, value)
		return nil
	}
	return g.mustWrite(func() error { return g.stable.SetUint64(key, value) })
}

// mustWrite ends the calling goroutine, which is raft's, when the guard is stopped.
// Raft would panic on an error for its term, and must not go on without the term.
func (g *guard) mustWrite(write func() error) error {
	if err := g.insist(write, 0); err != nil {
		runtime.Goexit()
	}
	return nil
}

func (g *guard) Get(key []byte) ([]byte, error)       { return g.stable.Get(key) }
func (g *guard) GetUint64(key []byte) (uint64, error) { return g.stable.GetUint64(key) }
