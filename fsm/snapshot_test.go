package fsm

import (
	"bytes"
	"errors"
	"testing"

	"github.com/klauspost/compress/zstd"

	"quorate/api/neon"
)

// TestDamagedSnapshotsAreRefused flips every bit and cuts at every byte. A flipped
// bit that decodes to the very same state (there are spare ones in a zstd header)
// is no damage.
func TestDamagedSnapshotsAreRefused(t *testing.T) {
	s := small(t)
	data := snapshotOf(t, s)
	try := func(what string, damaged []byte) {
		t.Helper()
		got, err := ReadSnapshot(bytes.NewReader(damaged))
		switch {
		case err == nil && got.Hash() != s.Hash():
			t.Fatalf("%s goes unnoticed:\n%s", what, dump(got))
		case err != nil && !errors.Is(err, ErrBadSnapshot):
			t.Fatalf("%s: %v", what, err)
		}
	}
	for i := range data {
		for bit := range 8 {
			damaged := bytes.Clone(data)
			damaged[i] ^= 1 << bit
			try("a flipped bit", damaged)
		}
		if _, err := ReadSnapshot(bytes.NewReader(data[:i])); !errors.Is(err, ErrBadSnapshot) {
			t.Fatalf("cut to %d of %d bytes: %v", i, len(data), err)
		}
	}
	if _, err := ReadSnapshot(bytes.NewReader(append(bytes.Clone(data),
		"garbage"...))); !errors.Is(err, ErrBadSnapshot) {
		t.Fatalf("with garbage at the end: %v", err)
	}
}

// TestNewerSnapshotFormatIsRefused: with words that tell it from damage.
func TestNewerSnapshotFormatIsRefused(t *testing.T) {
	data := snapshotOf(t, NewState())
	data[len(snapshotMagic)]++
	if _, err := ReadSnapshot(bytes.NewReader(data)); !errors.Is(err, ErrBadSnapshot) {
		t.Fatal(err)
	}
}

// TestSoundChecksumOverUnsoundRecordsIsRefused: a snapshot is held against the
// invariants, not only against its checksum.
func TestSoundChecksumOverUnsoundRecordsIsRefused(t *testing.T) {
	s := small(t)
	broken := begin(s)
	sh, _ := s.Shard(shard0)
	sh.Secondary = []neon.NodeID{sh.Attached}
	broken.shards.Set(sh)
	if _, err := ReadSnapshot(bytes.NewReader(snapshotOf(t, broken.snapshot()))); !errors.Is(err,
		ErrBadSnapshot) {
		t.Fatal(err)
	}
	// A record more than the header says.
	if _, err := ReadSnapshot(bytes.NewReader(packed(append(unpacked(t, snapshotOf(t, s)),
		0)))); !errors.Is(err, ErrBadSnapshot) {
		t.Fatal(err)
	}
}

// TestCheckFindsDrift: each derived structure and each rule is really verified.
func TestCheckFindsDrift(t *testing.T) {
	for name, damage := range map[string]func(*txn){
		"counts":           func(w *txn) { w.own(); w.counts[0].Shards++ },
		"totals":           func(w *txn) { w.totals.Placed++ },
		"owed":             func(w *txn) { w.owed = append(w.owed, 1) },
		"index entry lost": func(w *txn) { w.byNode.PopMin() },
		"index entry too many": func(
			w *txn,
		) {
			w.byNode.Set(nodeShard{node: 3, shard: shard0, roles: roleAttached})
		},
		"index roles": func(
			w *txn,
		) {
			w.byNode.Set(nodeShard{node: 1, shard: shard0, roles: roleSecondary})
		},
		"shard lost":         func(w *txn) { w.shards.tree.PopMin() },
		"shard of no tenant": func(w *txn) { w.tenants.tree.PopMin() },
		"unknown node":       func(w *txn) { w.setShard(Shard{ID: shard0, Attached: 77}) },
		"owner, no number":   func(w *txn) { w.setShard(Shard{ID: shard0, GenNode: 1}) },
		"told, no owner": func(
			w *txn,
		) {
			w.setShard(Shard{ID: shard0, ComputeAcknowledged: true})
		},
		"attached, Detached": func(
			w *txn,
		) {
			w.setTenant(Tenant{ID: modelTenant(1), Count: 2, Scheduling: neon.ShardActive})
		},
		"nodes out of order": func(
			w *txn,
		) {
			w.own()
			w.nodes[0], w.nodes[1] = w.nodes[1], w.nodes[0]
		},
	} {
		w := begin(small(t))
		damage(w)
		if err := Check(w.snapshot()); err == nil {
			t.Errorf("%s: nothing found", name)
		}
	}
}

func packed(payload []byte) []byte {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(true))
	if err != nil {
		panic(err)
	}
	return z.EncodeAll(payload, append([]byte(snapshotMagic), snapshotFormat))
}

func unpacked(t failer, snapshot []byte) []byte {
	t.Helper()
	z, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer z.Close()
	payload, err := z.DecodeAll(snapshot[len(snapshotMagic)+1:], nil)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return payload
}
