package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"strings"
	"testing"
)

func savedSnapshot(t testing.TB, rows ...string) []byte {
	t.Helper()
	tr := startTCP(t, 1, Timeouts{})
	lead := tr.leader()
	for _, r := range rows {
		lead.mustPropose(t, r)
	}
	var b bytes.Buffer
	if err := lead.SnapshotTo(context.Background(), &b); err != nil {
		t.Fatal(err)
	}
	b.Reset()
	if err := lead.SnapshotTo(context.Background(), &b); err != nil { // nothing new since
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSavedSnapshotIsInspectedAndRestored(t *testing.T) {
	saved := savedSnapshot(t, "a", "b")
	var state bytes.Buffer
	info, err := InspectSnapshot(bytes.NewReader(saved), &state)
	if err != nil || len(info.ClusterID) != 32 || info.Index == 0 || len(info.Members) != 1 {
		t.Fatalf("%+v, %v", info, err)
	}
	var m ledger
	if err := m.Restore(&state); err != nil || len(m.all()) != 2 {
		t.Fatalf("state %v, %v", m.all(), err)
	}
	dir := t.TempDir()
	to := Restore{DataDir: dir, ID: "r", Members: []Member{{ID: "r", RaftAddr: "127.0.0.1:0"}}}
	if _, err := RestoreDataDir(context.Background(), bytes.NewReader(saved), to); err != nil {
		t.Fatal(err)
	}
	if _, err := RestoreDataDir(context.Background(), bytes.NewReader(saved), to); err == nil {
		t.Fatal("restored over existing state")
	}
	machine := &ledger{}
	c, err := Open(context.Background(), Config{DataDir: dir, RaftListen: "127.0.0.1:0"}, machine)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	eventually(t, "leads", c.IsLeader)
	if _, err := c.Propose(context.Background(), []byte("c")); err != nil {
		t.Fatal(err)
	}
	if got := machine.all(); len(got) != 3 || got[2] != "c" || c.ClusterID() != info.ClusterID ||
		c.Status().Term <= info.Term-1 {
		t.Fatalf("restored %v of cluster %q", got, c.ClusterID())
	}
}

// A survivor that was restarted does not know what was committed. What it saves is old, so
// it says so and saves that only on demand.
func TestASurvivorThatWasRestartedSavesNoOldState(t *testing.T) {
	for name, snapshot := range map[string]bool{"snapshot": true, "no snapshot": false} {
		t.Run(name, func(t *testing.T) {
			tr := startTCP(t, 3, Timeouts{})
			lead := tr.leader()
			for i := range 10 {
				lead.mustPropose(t, seqRow(0, i))
				if i == 4 && snapshot {
					if err := lead.node.raft().Snapshot().Error(); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, nd := range tr.nodes {
				_ = nd.kill()
			}
			tr.start(int(lead.cfg.ID[1] - '0'))
			var b bytes.Buffer
			err := lead.SnapshotTo(context.Background(), &b)
			if !errors.Is(err, ErrStale) || !strings.Contains(err.Error(), "no leader") ||
				b.Len() > 0 {
				t.Fatalf("saved %d bytes: %v", b.Len(), err)
			}
			saved, err := lead.OpenSnapshot(context.Background(), SaveStale)
			if !snapshot {
				if !errors.Is(err, ErrStale) || !strings.Contains(err.Error(), "no earlier snapshot") {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer saved.Close()
			if err := saved.Write(context.Background(), &b); err != nil {
				t.Fatal(err)
			}
			info, err := InspectSnapshot(&b, nil)
			if err != nil || info.Missing != 5 || info.LastIndex < info.Index+5 ||
				info.Leader != "" {
				t.Errorf("%+v, %v", info, err)
			}
		})
	}
}

func TestDamagedSavedSnapshotsAreRefused(t *testing.T) {
	saved := savedSnapshot(t, "a", "b")
	for at := 0; at < len(saved); at += 1 + len(saved)/97 {
		if _, err := InspectSnapshot(bytes.NewReader(saved[:at]),
			nil); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut at %d: %v", at, err)
		}
		bad := bytes.Clone(saved)
		bad[at] ^= 0x20
		if _, err := InspectSnapshot(bytes.NewReader(bad), nil); !errors.Is(err, ErrCorrupt) {
			t.Errorf("flipped at %d: %v", at, err)
		}
	}
}

// A saved snapshot whose numbers are near their end would leave a cluster without room.
func TestSavedSnapshotsNearTheEndOfTheirNumbersAreRefused(t *testing.T) {
	saved := savedSnapshot(t, "a")
	size := binary.BigEndian.Uint32(saved[8:])
	rest := saved[12+size : len(saved)-4]
	for name, spoil := range map[string]func(*SnapshotInfo){
		"index": func(i *SnapshotInfo) { i.Index = math.MaxUint64 - 1 },
		"term":  func(i *SnapshotInfo) { i.Term = math.MaxUint64 - 1 },
		"none":  func(*SnapshotInfo) {},
	} {
		var info SnapshotInfo
		if err := json.Unmarshal(saved[12:12+size], &info); err != nil {
			t.Fatal(err)
		}
		spoil(&info)
		head, err := json.Marshal(info)
		if err != nil {
			t.Fatal(err)
		}
		b := binary.BigEndian.AppendUint32(bytes.Clone(saved[:8]), uint32(len(head)))
		b = append(append(b, head...), rest...)
		b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
		if _, err := InspectSnapshot(bytes.NewReader(b), nil); errors.Is(err, ErrCorrupt) != (name != "none") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAFollowerFarBehindGetsASnapshot(t *testing.T) {
	tr := startTCP(t, 3, Timeouts{})
	_ = tr.follower() // all are up
	for i := range tr.nodes {
		_ = tr.nodes[i].kill()
		tr.nodes[i].cfg.SnapshotThreshold, tr.nodes[i].cfg.TrailingLogs = 1, 4
		tr.start(i)
	}
	behind := tr.follower()
	i := int(behind.ID()[1] - '0')
	_ = behind.kill()
	lead := tr.leader()
	for k := range 40 {
		lead.mustPropose(t, seqRow(0, k))
	}
	if err := lead.node.raft().Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	tr.start(i)
	if err := tr.nodes[i].ReadBarrier(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := len(tr.nodes[i].machine.all()); n != 40 {
		t.Fatalf("it has %d rows", n)
	}
}

func TestRestartKeepsEverything(t *testing.T) {
	tr := startTCP(t, 1, Timeouts{})
	tr.leader().mustPropose(t, "a")
	for i := range 3 {
		_ = tr.nodes[0].kill()
		tr.start(0)
		lead := tr.leader()
		lead.mustPropose(t, seqRow(0, i))
		if lead.machine.count("a") != 1 || len(lead.machine.all()) != 2+i {
			t.Fatalf("after restart %d: %v", i, lead.machine.all())
		}
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(encodeFrame(nil))
	f.Add(encodeFrame([][]byte{[]byte("a"), {}, []byte("bc")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		commands, err := decodeFrame(b)
		if err != nil {
			return
		}
		again, err := decodeFrame(encodeFrame(commands))
		if err != nil || len(again) != len(commands) {
			t.Fatalf("%v: %d commands became %d", err, len(commands), len(again))
		}
		for i := range again {
			if !bytes.Equal(again[i], commands[i]) {
				t.Fatalf("command %d changed", i)
			}
		}
	})
}

func FuzzPeerFrame(f *testing.F) {
	f.Add(appendPeerFrame(nil, peerFrame{kind: callStatus, id: 7, body: []byte("x")}))
	f.Add([]byte{0, 0, 0, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readPeerFrame(bytes.NewReader(b))
		if err != nil {
			return
		}
		if again := appendPeerFrame(nil, got); !bytes.Equal(again, b[:len(again)]) {
			t.Fatal("a frame changed")
		}
		_ = refusalError(got.body)
		_, _, _ = twoUint64(got.body)
		_, _ = oneUint64(got.body)
	})
}

func FuzzPreamble(f *testing.F) {
	var b bytes.Buffer
	_ = writeGreeting(&b, []byte("QC1P"), greeting{ID: "a", Cluster: "c"})
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		tag, g, err := acceptPreamble(r)
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := writeGreeting(&b, append([]byte(preambleMagic), tag), g); err != nil {
			t.Fatal(err)
		}
		if _, again, err := acceptPreamble(&b); err != nil || again != g {
			t.Fatalf("%+v became %+v (%v)", g, again, err)
		}
	})
}

func FuzzSavedSnapshot(f *testing.F) {
	f.Add([]byte("CLSAVE01\x00\x00\x00\x02{}"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = InspectSnapshot(bytes.NewReader(b), io.Discard)
	})
}
