package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"quorate/api/neon"
)

// later is a command of a later version.
type later struct{ SetCluster }

func (later) Level() uint64 { return Level + 1 }

func TestCommandsAboveTheAgreedLevelAreRefused(t *testing.T) {
	s := small(t)
	err := Admit(s, later{})
	want := fmt.Sprintf("later needs feature level %d and the cluster is at 1", Level+1)
	if neon.CodeOf(err) != neon.PreconditionFailed || !strings.Contains(err.Error(), want) {
		t.Errorf("admitted with %v", err)
	}
	if next, r := Apply(s, s.Index+1, RequestID{}, later{
		SetCluster{ID: s.ClusterID},
	}); neon.CodeOf(r.Err) != neon.PreconditionFailed || !sameRecords(next, s) {
		t.Errorf("applied: %+v", r)
	}
	raised := *s
	raised.level = Level + 1
	if err := Admit(&raised, later{}); err != nil {
		t.Errorf("refused at its level: %v", err)
	}
	for _, level := range []uint64{0, 1} {
		if _, r := Apply(s, s.Index+1, RequestID{},
			SetLevel{Level: level}); neon.CodeOf(r.Err) != neon.Conflict {
			t.Errorf("level %d: %+v", level, r)
		}
	}
}

// A version stops at the entry that raises the level beyond it, before it meets
// anything that it does not know.
func TestAVersionStopsWhereItIsTooOld(t *testing.T) {
	entry := func(c Command) []byte {
		b, err := Encode(RequestID{}, c)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []Command{SetCluster{ID: "c"}, SetLevel{Level: Level}} {
		if err := Readable(entry(c)); err != nil {
			t.Errorf("%#v: %v", c, err)
		}
	}
	newer := entry(SetLevel{Level: Level + 1})
	if err := Readable(newer); !errors.Is(err, ErrNewerState) ||
		!strings.Contains(err.Error(), "install the version of the other members") {
		t.Errorf("goes on: %v", err)
	}
	if err := Readable(newer[:len(newer)-1]); err == nil {
		t.Error("goes on after garbage")
	}
	s := *small(t)
	s.level = Level + 1
	data := snapshotOf(t, &s)
	if _, err := ReadSnapshot(bytes.NewReader(data)); !errors.Is(err, ErrNewerState) {
		t.Errorf("the snapshot is read: %v", err)
	}
	payload := unpacked(t, data)
	if _, err := ReadSnapshot(bytes.NewReader(packed(payload)[:len(data)/2])); !errors.Is(err,
		ErrBadSnapshot) {
		t.Errorf("half of the snapshot: %v", err)
	}
}

// A field that a later version added means something: a version that would pass
// over it does not take the command.
func TestUnknownFieldsAreRefused(t *testing.T) {
	b, err := Encode(RequestID{}, SetCluster{ID: "c"})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := cbor.Marshal(map[int]any{1: "c", 99: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Decode(append(b[:frameHeader:frameHeader], payload...)); !errors.Is(err,
		ErrUnknownCommand) {
		t.Errorf("decoded: %v", err)
	}
}
