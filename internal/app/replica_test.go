package app

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"fmt"
	"quorate/api"
	"quorate/api/neon"
	"quorate/cluster"
	"quorate/fsm"
	"testing/synctest"
	"time"
)

// entry is an entry of the log with one command.
func entry(t *testing.T, index uint64, c fsm.Command) cluster.Entry {
	t.Helper()
	data, err := fsm.Encode(fsm.RequestID{}, c)
	if err != nil {
		t.Fatal(err)
	}
	return cluster.Entry{Index: index, Data: data}
}

// aMachine is a machine whose failures go to the channel.
func aMachine() (*machine, chan error) {
	failed := make(chan error, 1)
	return &machine{
		store: fsm.NewStore(), fail: func(err error) { failed <- err },
		halted: make(chan struct{}),
	}, failed
}

// TestMachineStopsAtAnEntryThatItCannotApply: what comes before it is applied. It and what
// comes after it never seem to be, and the state is neither read nor saved any more.
func TestMachineStopsAtAnEntryThatItCannotApply(t *testing.T) {
	m, failed := aMachine()
	results := make(chan []any)
	go func() {
		results <- m.Apply([]cluster.Entry{
			entry(t, 1, registration(1)), entry(t, 2, fsm.SetLevel{Level: fsm.Level + 1}),
			entry(t, 3, registration(3)),
		})
	}()
	if err := <-failed; !errors.Is(err, fsm.ErrNewerState) {
		t.Errorf("the process is ended because of %v", err)
	}
	select {
	case r := <-results:
		t.Errorf("Apply returns %v while the process may go on", r)
	default:
	}
	m.release()
	out := <-results
	if len(out) != 3 || out[0].(fsm.Result).Err != nil ||
		!errors.Is(out[1].(fsm.Result).Err, errOutdated) ||
		!errors.Is(out[2].(fsm.Result).Err, errOutdated) {
		t.Errorf("results %+v", out)
	}
	if _, ok := m.store.State().Node(1); !ok {
		t.Error("the entry before was not applied")
	}
	if _, ok := m.store.State().Node(3); ok {
		t.Error("the entry after it was applied")
	}
	if _, err := m.Snapshot(); !errors.Is(err, errOutdated) {
		t.Errorf("a state that is too old is saved: %v", err)
	}
	r := &Replica{
		leaderTimeout: time.Second, log: &answering{}, store: m.store,
		outdated: m.outdate.Load,
	}
	if _, err := r.ReadState(t.Context()); !errors.Is(err, errOutdated) {
		t.Errorf("a state that is too old is read: %v", err)
	}
}

func TestDamagedSnapshotChangesNothingAndEndsNothing(t *testing.T) {
	m, failed := aMachine()
	m.Apply([]cluster.Entry{entry(t, 1, registration(1))})
	w, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var saved bytes.Buffer
	if _, err := w.WriteTo(&saved); err != nil {
		t.Fatal(err)
	}
	other, _ := aMachine()
	if err := other.Restore(bytes.NewReader(saved.Bytes())); err != nil {
		t.Fatal(err)
	}
	if _, ok := other.store.State().Node(1); !ok {
		t.Error("a restored machine does not know the node")
	}
	if err := m.Restore(bytes.NewReader(saved.Bytes()[:saved.Len()/2])); err == nil {
		t.Error("half a snapshot is restored")
	}
	if _, ok := m.store.State().Node(1); !ok || len(failed) > 0 {
		t.Errorf("the node is still known: %v, failures: %d", ok, len(failed))
	}
}

// answering is a log that answers everything in one way.
type answering struct {
	result     any
	err        error
	leaderless string
	hang       bool // ReadBarrier waits for its context
}

func (l *answering) Propose(context.Context, []byte) (any, error) {
	return l.result, l.err
}

func (l *answering) Leaderless() string { return l.leaderless }

func (l *answering) ReadBarrier(ctx context.Context) error {
	if l.hang {
		<-ctx.Done()
		return fmt.Errorf("%w: %w", cluster.ErrNotLeader, ctx.Err())
	}
	return l.err
}

func (l *answering) ReadNow(context.Context) error {
	if l.hang {
		return cluster.ErrNotLeader
	}
	return l.err
}

func (l *answering) AppliedIndex() uint64 { return 0 }

// A read is given up after the time for finding a leader, with what is known of the
// reason, and then it is not tried again. If a leader is known, the request goes there.
func TestAReadDoesNotWaitForLongWithoutALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, why := range []string{"No leader for 9s; missing: c2", ""} {
			r := &Replica{
				log: &answering{hang: true, leaderless: why}, store: fsm.NewStore(),
				leaderTimeout: 5 * time.Second,
			}
			begun := time.Now()
			_, err := r.ReadState(t.Context())
			if took := time.Since(begun); took != 5*time.Second ||
				neon.CodeOf(err) != neon.NotLeader || errors.Is(err, api.ErrLeaderless) != (why != "") {
				t.Errorf("%v after %s", err, took)
			}
		}
	})
}

func TestReadWithoutALeaderFails(t *testing.T) {
	r := &Replica{
		leaderTimeout: time.Second, log: &answering{err: cluster.ErrNotLeader},
		store: fsm.NewStore(),
	}
	if _, err := r.ReadState(t.Context()); neon.CodeOf(err) != neon.NotLeader {
		t.Errorf("read: %v", err)
	}
	_, err := r.Propose(t.Context(), fsm.RequestID{}, registration(1))
	if neon.CodeOf(err) != neon.NotLeader {
		t.Errorf("propose: %v", err)
	}
}

func TestStateChangesAreTold(t *testing.T) {
	a, _ := running(t, Config{})
	changed := a.Replica().Changed()
	register(t, a, 5)
	<-changed
}
