package app

import (
	"errors"
	"testing"

	"quorate/api/neon"
	"quorate/cluster"
	"quorate/fsm"
)

func TestStatesAreComparedOnlyWithThoseOfEqualVersions(t *testing.T) {
	var d cluster.Digester = &machine{store: fsm.NewStore()}
	scheme, empty := d.Digest()
	if scheme == 0 || scheme == digestScheme(fsm.DigestScheme+1, fsm.Level) ||
		scheme == digestScheme(fsm.DigestScheme, fsm.Level+1) {
		t.Errorf("scheme %#x", scheme)
	}
	m := d.(*machine)
	data, err := fsm.Encode(fsm.RequestID{}, fsm.SetCluster{ID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	m.Apply([]cluster.Entry{{Index: 1, Data: data}})
	if again, hash := m.Digest(); again != scheme || hash == empty {
		t.Errorf("a change: scheme %#x, hash %x, empty it was %x", again, hash, empty)
	}
	m.outdate.Store(true)
	if scheme, _ := m.Digest(); scheme != 0 {
		t.Errorf("one that stopped at a newer entry: scheme %#x", scheme)
	}
}

func TestAReadOfAWrongStateIsTheLeaders(t *testing.T) {
	err := readError(cluster.ErrDiverged)
	if neon.Classify(err) != neon.NotLeader || !errors.Is(err, cluster.ErrDiverged) {
		t.Errorf("%v", err)
	}
}
