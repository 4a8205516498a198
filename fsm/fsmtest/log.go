// Package fsmtest has the replicated log that tests use: what is proposed is
// applied at once, in memory, without consensus and without other replicas.
//
// A Log has the methods Propose, State, Changed and ReadState of the real log, so it can
// stand for the Log interface of any package:
//
//	log := fsmtest.NewLog()
//	log.Must(t, fsm.CreateTenant{…})
//	keeper := safekeeping.New(log, …)
//	log.Subscribe(keeper.Changed)
//
// A test whose log must fail, lag or lose answers embeds *Log in a type of its own,
// and overrides the method that misbehaves; Commit applies a command nevertheless.
//
// The package must not know more of the state than package fsm tells: it applies
// commands exactly as a replica does, and has no shortcut into the state.
package fsmtest

import (
	"context"
	"slices"
	"sync"
	"testing"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/wait"
)

// maxEntry is the size of the largest command, in bytes. The real log has the same
// bound.
const maxEntry = 1 << 20

// Log is a log that one process has for itself. All methods may be called at any
// time.
type Log struct {
	// Proposing, when set, is called before each proposal. It is set before the log is
	// used by several goroutines.
	Proposing func(fsm.Command)

	store   *fsm.Store
	changed wait.Broadcast // the state has changed

	mu       sync.Mutex
	commands []fsm.Command // Invariant: the command at i has the log index i+1.
}

// NewLog returns an empty log.
func NewLog() *Log {
	l := &Log{store: fsm.NewStore()}
	l.Subscribe(func(*fsm.State, fsm.Touched) { l.changed.Notify() })
	return l
}

// Propose applies a command unless ctx has ended. A refusal comes back as an error
// together with the Result.
func (l *Log) Propose(
	ctx context.Context, id fsm.RequestID, c fsm.Command,
) (fsm.Result, error) {
	if err := ctx.Err(); err != nil {
		return fsm.Result{}, err
	}
	if l.Proposing != nil {
		l.Proposing(c)
	}
	return l.Commit(id, c)
}

// Commit applies a command, as if another replica had proposed it.
func (l *Log) Commit(id fsm.RequestID, c fsm.Command) (fsm.Result, error) {
	data, err := fsm.Encode(id, c)
	if err != nil {
		return fsm.Result{}, neon.Errorf(neon.Internal, "propose: %w", err)
	}
	if len(data) > maxEntry {
		return fsm.Result{}, neon.Errorf(neon.BadRequest,
			"The change is too large for one log entry")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.commands = append(l.commands, c)
	r := l.store.Apply([]fsm.Entry{{Index: uint64(len(l.commands)), Data: data}})[0]
	if r.Err != nil {
		return r, r.Err
	}
	return r, nil
}

// Must applies a command that the state may not refuse.
func (l *Log) Must(t testing.TB, c fsm.Command) fsm.Result {
	t.Helper()
	r, err := l.Commit(fsm.RequestID{}, c)
	if err != nil {
		t.Fatalf("%T: %v", c, err)
	}
	return r
}

// Upgrade raises the level of the state to that of this version, as the leader does once
// all members run it.
func (l *Log) Upgrade(t testing.TB) {
	t.Helper()
	if l.State().AgreedLevel() < fsm.Level {
		l.Must(t, fsm.SetLevel{Level: fsm.Level})
	}
}

// AddNodes registers pageservers 1 to n in one zone, and finds them active.
func (l *Log) AddNodes(t testing.TB, n int, zone neon.AZ) {
	t.Helper()
	for i := 1; i <= n; i++ {
		l.Must(t, fsm.RegisterNode{ID: neon.NodeID(i), AZ: zone, Addr: fsm.NodeAddr{
			HTTPHost: "ps", HTTPPort: uint16(9000 + i), PGHost: "ps", PGPort: uint16(6400 + i),
		}})
		l.Must(t, fsm.SetNodeAvailability{
			Verdicts: []fsm.Verdict{{Node: neon.NodeID(i), To: neon.NodeActive}},
		})
	}
}

// State is the newest state.
func (l *Log) State() *fsm.State { return l.store.State() }

// Changed returns a channel that is closed when the state has changed.
func (l *Log) Changed() <-chan struct{} { return l.changed.Changed() }

// ReadState is the newest state too: there is no replica that could be behind.
func (l *Log) ReadState(context.Context) (*fsm.State, error) { return l.store.State(), nil }

// Subscribe registers f to be called after each command, while the log is locked: f
// must return at once, and may not propose.
func (l *Log) Subscribe(f func(*fsm.State, fsm.Touched)) { l.store.Subscribe(f) }

// Commands are all commands in the order of the log, also those that were refused.
func (l *Log) Commands() []fsm.Command {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.commands)
}

// Attach issues the next generation of each shard of a tenant to the node that it is
// wanted on.
func (l *Log) Attach(t testing.TB, id neon.TenantID) {
	t.Helper()
	for sh := range l.State().TenantShards(id) {
		l.Must(t, fsm.IssueGenerations{
			Items: []fsm.Issue{{Shard: sh.ID, Node: sh.Attached, Generation: sh.Generation}},
		})
	}
}
