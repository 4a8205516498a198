package fsmtest

import (
	"context"
	"sync"
	"testing"

	"quorate/fsm"
)

// Faulty is a log whose replica may lag behind what was acknowledged, lose answers
// and fail. Before and After are set before it is used by several goroutines, or from
// within themselves.
type Faulty struct {
	*Log

	Before func(fsm.Command)       // comes before each proposal: another one is faster
	After  func(fsm.Command) error // comes after each proposal: its error is the answer

	t testing.TB

	mu       sync.Mutex
	lag      *fsm.State // what State returns until this replica has caught up
	fail     error      // of ReadState
	lose     error      // of every proposal
	proposed []fsm.Command
}

// NewFaulty returns an empty log that works until it is told otherwise.
func NewFaulty(t testing.TB) *Faulty { return &Faulty{Log: NewLog(), t: t} }

// Must applies a command that the state may not refuse.
func (l *Faulty) Must(c fsm.Command) fsm.Result {
	l.t.Helper()
	return l.Log.Must(l.t, c)
}

// Propose applies a command, after which the replica has caught up.
func (l *Faulty) Propose(_ context.Context, id fsm.RequestID, c fsm.Command) (fsm.Result, error) {
	l.mu.Lock()
	l.proposed = append(l.proposed, c)
	l.lag = nil // what was proposed here was applied here
	lose := l.lose
	l.mu.Unlock()
	if lose != nil {
		return fsm.Result{}, lose
	}
	if l.Before != nil {
		l.Before(c)
	}
	r, err := l.Commit(id, c)
	if err == nil && l.After != nil {
		if lost := l.After(c); lost != nil {
			return fsm.Result{}, lost
		}
	}
	return r, err
}

// Proposed are the commands that were proposed here, also those that were lost.
func (l *Faulty) Proposed() []fsm.Command {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]fsm.Command(nil), l.proposed...)
}

// State is the state that this replica has applied.
func (l *Faulty) State() *fsm.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lag != nil {
		return l.lag
	}
	return l.Log.State()
}

// ReadState makes the replica catch up.
func (l *Faulty) ReadState(context.Context) (*fsm.State, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return nil, l.fail
	}
	l.lag = nil
	l.changed.Notify()
	return l.Log.State(), nil
}

// Lag keeps the replica at a state until it proposes or reads.
func (l *Faulty) Lag(s *fsm.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lag = s
}

// FailReads makes every linearizable read fail; nil ends that.
func (l *Faulty) FailReads(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
}

// LoseProposals makes every proposal fail without being applied; nil ends that.
func (l *Faulty) LoseProposals(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lose = err
}
