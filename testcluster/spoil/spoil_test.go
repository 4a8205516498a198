package spoil

import (
	"bytes"
	"io"
	"testing"

	"quorate/api/neon"
	"quorate/cluster"
	"quorate/fsm"
)

// machine is the smallest one on a Store.
type machine struct{ *fsm.Store }

func (m machine) Apply(batch []cluster.Entry) (out []any) {
	for _, e := range batch {
		for _, r := range m.Store.Apply([]fsm.Entry{{Index: e.Index, Data: e.Data}}) {
			out = append(out, r)
		}
	}
	return out
}

func (m machine) Snapshot() (io.WriterTo, error) { return m.Store.Snapshot(), nil }

func (m machine) Digest() (scheme, hash uint64) { return 1, m.State().Digest() }

func TestSpoilChangesTheStateAndNothingElse(t *testing.T) {
	store := fsm.NewStore()
	m := New(machine{store})
	register := func(index uint64, id neon.NodeID) {
		t.Helper()
		data, err := fsm.Encode(fsm.RequestID{}, fsm.RegisterNode{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		r := m.Apply([]cluster.Entry{{Index: index, Data: data}})
		if len(r) != 1 || r[0].(fsm.Result).Err != nil {
			t.Fatalf("%+v", r)
		}
	}
	register(7, 1)
	_, before := m.Digest()
	sound, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.Spoil(); err != nil {
			t.Fatal(err)
		}
	}
	_, after := m.Digest()
	if _, there := store.State().Node(Node); !there || after == before ||
		store.State().Index != 7 {
		t.Errorf("the node is there: %v, hashes %x and %x, index %d", there, before, after,
			store.State().Index)
	}
	if err := fsm.Check(store.State()); err != nil {
		t.Error(err)
	}
	register(8, 2) // it goes on as if nothing were wrong
	var b bytes.Buffer
	if _, err := sound.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	if err := m.Restore(&b); err != nil {
		t.Fatal(err)
	}
	if _, again := m.Digest(); again != before {
		t.Errorf("restored it has the hash %x, not %x", again, before)
	}
}

func TestAMachineWithoutADigestIsComparedWithNone(t *testing.T) {
	if scheme, _ := New(struct{ cluster.Machine }{}).Digest(); scheme != 0 {
		t.Errorf("scheme %d", scheme)
	}
}
