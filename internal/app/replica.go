package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"quorate/api"
	"quorate/api/neon"
	"quorate/cluster"
	"quorate/fsm"
	"quorate/internal/decide"
	"quorate/internal/wait"
)

// machine is the state machine as package cluster wants it.
type machine struct {
	store   *fsm.Store
	granted func(fsm.Grant) // nil: not called

	foreseen func(*fsm.State) // nil: not called

	fail    func(error)   // ends the process
	halted  chan struct{} // closed by release
	halting sync.Once
	outdate atomic.Bool // the log goes on beyond what this version knows
}

func (m *machine) Apply(batch []cluster.Entry) []any {
	entries := make([]fsm.Entry, 0, len(batch))
	var newer error
	for _, e := range batch {
		if newer = fsm.Readable(e.Data); newer != nil || m.outdate.Load() {
			break
		}
		entries = append(entries, fsm.Entry{Index: e.Index, Data: e.Data})
	}
	if m.granted != nil || m.foreseen != nil {
		m.foresee(entries)
	}
	out := make([]any, 0, len(batch))
	for _, r := range m.store.Apply(entries) {
		out = append(out, r)
	}
	if newer != nil {
		m.halt(fmt.Errorf("entry %d of the log: %w", batch[len(out)].Index, newer))
	}
	for len(out) < len(batch) {
		out = append(out, fsm.Result{Err: errOutdated})
	}
	return out
}

var errOutdated = neon.Errorf(neon.Unavailable,
	"This replica runs a version that is too old for the cluster")

// halt ends the process at an entry that it can not apply. Until then nothing may
// seem to be applied that is not.
func (m *machine) halt(err error) {
	m.outdate.Store(true)
	m.fail(err)
	<-m.halted
}

// release lets Apply return after halt.
func (m *machine) release() { m.halting.Do(func() { close(m.halted) }) }

// foresee reports the states that a batch leads to and the generations it is going
// to issue, before the state that holds them is published. An entry of the log holds
// several commands under one index: what it leads to is the state after the last.
func (m *machine) foresee(batch []fsm.Entry) {
	s := m.store.State()
	for i, e := range batch {
		id, c, err := fsm.Decode(e.Data)
		if err != nil {
			return // Apply stops the process with a better text
		}
		var r fsm.Result
		s, r = fsm.Apply(s, e.Index, id, c)
		if m.foreseen != nil && (i+1 == len(batch) || batch[i+1].Index != e.Index) {
			m.foreseen(s)
		}
		if m.granted == nil {
			continue
		}
		for _, g := range r.Grants {
			m.granted(g)
		}
	}
}

// Digest makes the machine a cluster.Digester. A new DigestScheme computes another hash
// of an equal state, and a version with another level may keep other fields, so only
// replicas that agree in both are compared. One that has stopped at an entry of a newer
// version is like no other.
func (m *machine) Digest() (scheme, hash uint64) {
	if m.outdate.Load() {
		return 0, 0
	}
	return digestScheme(fsm.DigestScheme, fsm.Level), m.store.State().Digest()
}

// digestScheme is not 0.
func digestScheme(scheme, level uint64) uint64 { return scheme<<32 | level }

func (m *machine) Snapshot() (io.WriterTo, error) {
	if m.outdate.Load() {
		return nil, errOutdated
	}
	return m.store.Snapshot(), nil
}

func (m *machine) Restore(r io.Reader) error {
	err := m.store.Restore(r)
	if errors.Is(err, fsm.ErrNewerState) {
		err = fmt.Errorf("%w: %w", cluster.ErrTooOld, err)
		m.outdate.Store(true)
		m.fail(err)
	}
	return err
}

// log is the part of cluster.Cluster that a Replica stands on.
type log interface {
	Propose(ctx context.Context, data []byte) (any, error)
	ReadNow(ctx context.Context) error
	ReadBarrier(ctx context.Context) error
	AppliedIndex() uint64
	Leaderless() string
}

// Replica is the replicated state as the rest of the process sees it: the
// commands go in here and the states come out.
type Replica struct {
	log     log
	store   *fsm.Store
	changed wait.Broadcast // after each applied batch

	outdated func() bool // nil: never

	// leaderTimeout bounds how long a read waits while no leader is known.
	leaderTimeout time.Duration

	observe   func(fsm.Command, time.Duration, error) // of every command; nil: not called
	proposing func(context.Context, fsm.Command)      // before each; nil: not called
}

// State is the newest state this replica has applied. It may lag behind what
// other replicas have acknowledged; it never blocks.
func (r *Replica) State() *fsm.State { return r.store.State() }

// Changed returns a channel that is closed when State has changed. To miss nothing, take
// it before the state.
func (r *Replica) Changed() <-chan struct{} { return r.changed.Changed() }

// ReadState returns a state that holds everything acknowledged by any replica
// before the call. The errors are the classes NotLeader (there is no leader, or
// it could not prove that it leads), Unavailable and ShuttingDown.
func (r *Replica) ReadState(ctx context.Context) (*fsm.State, error) {
	if err := r.readBarrier(ctx); err != nil {
		return nil, err
	}
	if r.outdated != nil && r.outdated() {
		return nil, errOutdated
	}
	return r.store.State(), nil
}

// readBarrier gives up sooner than ctx when no leader answers.
func (r *Replica) readBarrier(ctx context.Context) error {
	if r.log.ReadNow(ctx) == nil {
		return nil // as nearly always, without a timer
	}
	limited, cancel := context.WithTimeout(ctx, r.leaderTimeout)
	defer cancel()
	err := r.log.ReadBarrier(limited)
	if err == nil {
		return nil
	}
	if ctx.Err() == nil && limited.Err() != nil {
		if why := r.log.Leaderless(); why != "" {
			return &neon.Error{Code: neon.NotLeader, Msg: why, Err: api.ErrLeaderless}
		}
	}
	return readError(err)
}

// Propose puts a command into the log and waits until this replica has applied
// it. A refusal comes back as the error together with its Result. The other
// errors are the classes NotLeader, Unavailable and ShuttingDown, after which
// nothing happened, and OutcomeUnknown, after which it may happen still: the
// same id again is recognised.
func (r *Replica) Propose(
	ctx context.Context, id fsm.RequestID, c fsm.Command,
) (fsm.Result, error) {
	if r.proposing != nil {
		r.proposing(ctx, c)
	}
	begun := time.Now()
	result, err := r.propose(ctx, id, c)
	if r.observe != nil {
		r.observe(c, time.Since(begun), err)
	}
	return result, err
}

func (r *Replica) propose(
	ctx context.Context, id fsm.RequestID, c fsm.Command,
) (fsm.Result, error) {
	if err := fsm.Admit(r.store.State(), c); err != nil {
		return fsm.Result{}, err
	}
	data, err := fsm.Encode(id, c)
	if err != nil {
		return fsm.Result{}, neon.Errorf(neon.Internal, "propose: %w", err)
	}
	answer, err := r.log.Propose(ctx, data)
	if errors.Is(err, cluster.ErrOutcomeUnknown) {
		decide.Acted(ctx)
	}
	if err != nil {
		return fsm.Result{}, proposeError(err)
	}
	result := answer.(fsm.Result)
	if result.Err != nil {
		return result, result.Err
	}
	decide.Acted(ctx)
	return result, nil
}

func proposeError(err error) error {
	switch {
	case errors.Is(err, cluster.ErrNotLeader):
		return &neon.Error{Code: neon.NotLeader, Msg: "This replica does not lead", Err: err}
	case errors.Is(err, cluster.ErrOutcomeUnknown):
		return &neon.Error{
			Code: neon.OutcomeUnknown, Msg: "The outcome of the write is unknown, please retry",
			Err: err,
		}
	case errors.Is(err, cluster.ErrClosed):
		return &neon.Error{Code: neon.ShuttingDown, Msg: "Shutting down", Err: err}
	case errors.Is(err, cluster.ErrTooLarge):
		return &neon.Error{
			Code: neon.BadRequest, Msg: "The change is too large for one log entry", Err: err,
		}
	case errors.Is(err, cluster.ErrOverloaded):
		return &neon.Error{
			Code: neon.Unavailable, Msg: "Too many writes are waiting, please retry", Err: err,
		}
	default:
		return &neon.Error{
			Code: neon.Unavailable, Msg: "The write was not accepted: " + err.Error(), Err: err,
		}
	}
}

func readError(err error) error {
	switch {
	case errors.Is(err, cluster.ErrClosed):
		return &neon.Error{Code: neon.ShuttingDown, Msg: "Shutting down", Err: err}
	case errors.Is(err, cluster.ErrNotLeader), errors.Is(err, cluster.ErrPeerUnreachable):
		return &neon.Error{Code: neon.NotLeader, Msg: "No leader confirms the read", Err: err}
	case errors.Is(err, cluster.ErrDiverged), // the leader answers instead
		errors.Is(err, cluster.ErrFormerMember):
		return &neon.Error{
			Code: neon.NotLeader, Msg: "This replica is out of service: " + err.Error(), Err: err,
		}
	default:
		return &neon.Error{
			Code: neon.Unavailable, Msg: "The read could not be confirmed: " + err.Error(),
			Err: err,
		}
	}
}
