package fsm

import (
	"bytes"
	"errors"
	"testing"

	"quorate/api/neon"
)

func seedCommands(f *testing.F) {
	for i, c := range append(history(), secondHistory()...) {
		f.Add(entry(f, 1, RequestID{byte(i)}, c).Data)
	}
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, frameHeader+1))
}

// FuzzDecode: whatever is in the log, decoding says so or gives a command that
// encodes to a stable form.
func FuzzDecode(f *testing.F) {
	seedCommands(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		id, c, err := Decode(data)
		if err != nil {
			return
		}
		once, err := Encode(id, c)
		if err != nil {
			t.Fatal(err)
		}
		id2, again, err := Decode(once)
		if err != nil || id2 != id {
			t.Fatalf("%#v: %v", c, err)
		}
		if twice, err := Encode(id2, again); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%x, then %x: %v", once, twice, err)
		}
	})
}

// FuzzApply: whatever decodes is applied without a panic, leaves a sound state
// that survives a snapshot, and changes nothing when it is refused.
func FuzzApply(f *testing.F) {
	seedCommands(f)
	first := withSafekeepers(f)
	second, _ := Apply(first, first.Index+1, RequestID{}, SetLevel{Level: Level})
	for _, c := range travelHistory(neon.TenantID{9, 15: 9}, 0) {
		second, _ = Apply(second, second.Index+1, RequestID{}, c)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		id, c, err := Decode(data)
		if err != nil {
			return
		}
		for _, s := range []*State{first, second} {
			next, r := Apply(s, s.Index+1, id, c)
			if err := Check(next); err != nil {
				t.Fatalf("%#v: %v", c, err)
			}
			if r.Err != nil && !sameRecords(s, next) {
				t.Fatalf("%#v was refused and changed something", c)
			}
			restored(t, next)
		}
	})
}

// FuzzReadSnapshot: any bytes are refused or are a sound state.
func FuzzReadSnapshot(f *testing.F) {
	data := snapshotOf(f, withSafekeepers(f))
	f.Add(data)
	f.Add(snapshotOf(f, travelling(f)))
	f.Add(data[:len(data)/2])
	f.Add(snapshotOf(f, NewState()))
	f.Add([]byte(snapshotMagic))
	f.Fuzz(func(t *testing.T, data []byte) { readSnapshot(t, data) })
}

// FuzzSnapshotRecords is FuzzReadSnapshot behind the checksum.
func FuzzSnapshotRecords(f *testing.F) {
	f.Add(unpacked(f, snapshotOf(f, withSafekeepers(f))))
	f.Add(unpacked(f, snapshotOf(f, travelling(f))))
	f.Add(unpacked(f, snapshotOf(f, NewState())))
	f.Fuzz(func(t *testing.T, payload []byte) { readSnapshot(t, packed(payload)) })
}

func readSnapshot(t *testing.T, data []byte) {
	s, err := ReadSnapshot(bytes.NewReader(data))
	if err != nil {
		if s != nil || !errors.Is(err, ErrBadSnapshot) && !errors.Is(err, ErrNewerState) {
			t.Fatalf("%v, %v", s, err)
		}
		return
	}
	restored(t, s)
}
