package fsm

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"

	"quorate/api/neon"
)

func entry(t failer, index uint64, id RequestID, c Command) Entry {
	t.Helper()
	data, err := Encode(id, c)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return Entry{Index: index, Data: data}
}

// TestStoreDoesWhatApplyDoes: in batches, with entries of one index, and through
// the codec, the same states and results come out.
func TestStoreDoesWhatApplyDoes(t *testing.T) {
	store := NewStore()
	s := NewState()
	var published []kept
	var touched Touched
	store.Subscribe(func(
		s *State, t Touched,
	) {
		published = append(published, kept{s, s.Hash()})
		touched = t
	})
	var batch []Entry
	for i, c := range history() {
		index := uint64(i/2 + 1)
		batch = append(batch, entry(t, index, RequestID{}, c))
		s, _ = Apply(s, index, RequestID{}, c)
		if len(batch) == 5 {
			store.Apply(batch)
			batch = nil
			if store.State().Hash() != s.Hash() {
				t.Fatalf("after %T:\n%s\nnot\n%s", c, dump(store.State()), dump(s))
			}
		}
	}
	if len(batch) > 0 {
		store.Apply(batch)
	}
	if store.State().Hash() != s.Hash() || published[len(published)-1].s != store.State() {
		t.Fatal("the last state differs or was not published")
	}
	for i, k := range published {
		if k.s.Hash() != k.hash {
			t.Fatalf("the state published after batch %d has changed since", i)
		}
	}
	if len(touched.Shards)+len(touched.Tenants)+len(touched.Nodes)+len(touched.Safekeepers) == 0 &&
		!touched.Timelines {
		t.Fatal("the last batch touched nothing")
	}
	if err := Check(store.State()); err != nil {
		t.Fatal(err)
	}
}

// TestRestoreReplacesTheState, and a bad snapshot replaces nothing.
func TestRestoreReplacesTheState(t *testing.T) {
	store := NewStore()
	store.Apply([]Entry{entry(t, 1, RequestID{}, SetCluster{ID: "old"})})
	before := store.State()
	if err := store.Restore(strings.NewReader("QUORATE?")); !errors.Is(err, ErrBadSnapshot) ||
		store.State() != before {
		t.Fatal(err)
	}
	want := small(t)
	if err := store.Restore(bytes.NewReader(snapshotOf(t, want))); err != nil {
		t.Fatal(err)
	}
	if store.State().Hash() != want.Hash() {
		t.Fatal("restored something else")
	}
	// What was restored can be built on.
	store.Apply([]Entry{entry(t, want.Index+1, RequestID{}, ReAttach{Node: 1})})
	if err := Check(store.State()); err != nil || store.State().Hash() == want.Hash() {
		t.Fatal(err)
	}
}

// TestUndecodableEntryStopsTheReplica: going on would make its state another one.
func TestUndecodableEntryStopsTheReplica(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Fatal("it went on")
		}
	}()
	NewStore().Apply([]Entry{{Index: 1, Data: []byte("garbage, garbage, garbage")}})
}

// TestUnknownCommandIsToldFromGarbage: a replica must know that it is too old.
func TestUnknownCommandIsToldFromGarbage(t *testing.T) {
	data, err := Encode(RequestID{}, ReAttach{Node: 1})
	if err != nil {
		t.Fatal(err)
	}
	newer := bytes.Clone(data)
	newer[1] = 0x7f
	if _, _, err := Decode(newer); !errors.Is(err, ErrUnknownCommand) {
		t.Fatal(err)
	}
	if _, _, err := Decode(data[:len(data)-1]); err == nil || errors.Is(err, ErrUnknownCommand) {
		t.Fatal(err)
	}
}

// TestReadersNeedNoLock: states, snapshots and checks are read while batches are
// applied. The race detector is the judge.
func TestReadersNeedNoLock(t *testing.T) {
	store := NewStore()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				s := store.State()
				if err := Check(s); err != nil {
					t.Error(err)
					return
				}
				h := s.Hash()
				for range s.AttachedOn(1, neon.ShardID{}) {
				}
				if s.Hash() != h {
					t.Error("a published state changed")
					return
				}
			}
		})
	}
	for i, c := range history() {
		store.Apply([]Entry{entry(t, uint64(i+1), RequestID{byte(i), 1}, c)})
	}
	for i := range 300 {
		store.Apply([]Entry{entry(t, uint64(1000+i), RequestID{byte(i), byte(i >> 8), 2},
			ReAttach{Node: neon.NodeID(i%3 + 1)})})
	}
	close(stop)
	wg.Wait()
}
