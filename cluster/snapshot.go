package cluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"quorate/internal/wait"
)

// A saved snapshot is a magic, a JSON head with its length (4 bytes), the state,
// and the CRC-32C (4 bytes) of all before it.
var savedMagic = [8]byte{'C', 'L', 'S', 'A', 'V', 'E', '0', '1'}

const maxSavedHead = 1 << 20

// snapshotHead is the size of the head of a snapshot, before the machine's bytes.
const snapshotHead = 16

// SnapshotInfo describes a saved snapshot.
type SnapshotInfo struct {
	ClusterID string    `json:"cluster_id"`
	Index     uint64    `json:"index"` // of the last entry in it
	Term      uint64    `json:"term"`
	Created   time.Time `json:"created"`
	Members   []Member  `json:"members"`
	StateSize int64     `json:"state_size"` // bytes

	// What the server knew when it saved the snapshot: the newest entry on its disk, how
	// many entries with commands on its disk are not in the snapshot, the leader ("" if none
	// was known), and when it last heard of one.
	LastIndex   uint64    `json:"last_index,omitempty"`
	Missing     uint64    `json:"missing,omitempty"`
	Leader      string    `json:"leader,omitempty"`
	LastContact time.Time `json:"last_contact,omitzero"`
}

// SaveMode says which states may be saved.
type SaveMode uint8

// The modes.
const (
	SaveNewest SaveMode = iota // all that is on the disk, else ErrStale
	SaveStale                  // what was applied
)

// How long saving waits for entries on the disk to be applied, while there is a leader and
// while there is none.
const (
	saveWait         = 5 * time.Second
	saveLeaderless   = 1500 * time.Millisecond
	savePollInterval = 10 * time.Millisecond
)

// SavedState is a snapshot that is about to be saved.
type SavedState struct {
	info  SnapshotInfo
	state io.ReadCloser
}

// snapshots saves this server's state.
type snapshots struct {
	node   *raftNode
	self   *identity
	former func() string // why the state here is not that of the cluster, or ""
}

// saveTo is SnapshotTo.
func (s snapshots) saveTo(ctx context.Context, w io.Writer) error {
	saved, err := s.open(ctx, SaveNewest)
	if err != nil {
		return err
	}
	defer saved.Close()
	return saved.Write(ctx, w)
}

// open is OpenSnapshot.
func (s snapshots) open(ctx context.Context, mode SaveMode) (*SavedState, error) {
	if why := s.former(); why != "" && mode == SaveNewest {
		return nil, fmt.Errorf("%w: %s", ErrFormerMember, why)
	}
	r := s.node.raft()
	last := r.LastIndex()
	missing, err := s.awaitApplied(ctx, last, mode)
	if err != nil {
		return nil, err
	}
	meta, state, err := s.take()
	if err != nil {
		return nil, fmt.Errorf("cluster: take a snapshot: %w", err)
	}
	info := SnapshotInfo{
		ClusterID: s.self.cluster(), Index: meta.Index, Term: meta.Term, Created: time.Now().UTC(),
		StateSize: meta.Size, LastIndex: max(last, meta.Index), Missing: missing,
		Leader: s.node.leader(), LastContact: s.lastContact(),
	}
	for _, s := range meta.Configuration.Servers {
		info.Members = append(info.Members, Member{ID: string(s.ID), RaftAddr: string(s.Address)})
	}
	return &SavedState{info, state}, nil
}

// lastContact is when this server last heard of a leader; zero if it never did.
func (s snapshots) lastContact() time.Time {
	if s.node.leads() {
		return time.Now().UTC()
	}
	return s.node.raft().LastContact().UTC()
}

// awaitApplied waits until the entries up to last are applied. It returns how many
// commands are not; only SaveStale makes that no error.
func (s snapshots) awaitApplied(
	ctx context.Context, last uint64, mode SaveMode,
) (missing uint64, err error) {
	begun := time.Now()
	for mode == SaveNewest && s.node.raft().AppliedIndex() < last {
		limit := saveWait
		if s.node.leader() == "" {
			limit = saveLeaderless
		}
		if time.Since(begun) > limit {
			break
		}
		if err := wait.Sleep(ctx, savePollInterval); err != nil {
			return 0, err
		}
	}
	missing, err = s.commandsBetween(s.node.raft().AppliedIndex(), last)
	if err != nil || missing == 0 || mode == SaveStale {
		return missing, err
	}
	return 0, s.stale(last, missing)
}

// stale says what would be missing, and why.
func (s snapshots) stale(last, missing uint64) error {
	leader := "the leader is " + s.node.leader()
	if s.node.leader() == "" {
		leader = "no leader is known"
	}
	heard := "this server has not heard of one since its start"
	if at := s.node.raft().LastContact(); !at.IsZero() {
		heard = "it was last heard of " + time.Since(at).Round(time.Second).String() + " ago"
	}
	return fmt.Errorf("%w: applied %d, last entry %d on the disk, so %d changes would be missing; "+
		"%s, %s", ErrStale, s.node.raft().AppliedIndex(), last, missing, leader, heard)
}

// commandsBetween counts the entries after one index up to another that hold commands.
func (s snapshots) commandsBetween(after, last uint64) (n uint64, err error) {
	for i := after + 1; i <= last; i++ {
		var l raft.Log
		switch err := s.node.store.GetLog(i, &l); {
		case errors.Is(err, raft.ErrLogNotFound): // removed meanwhile: a snapshot has it
		case err != nil:
			return 0, fmt.Errorf("cluster: entry %d: %w", i, err)
		case l.Type == raft.LogCommand:
			n++
		}
	}
	return n, nil
}

// Info describes the snapshot.
func (s *SavedState) Info() SnapshotInfo { return s.info }

// Close ends the use of the snapshot.
func (s *SavedState) Close() { _ = s.state.Close() }

// Write writes the snapshot. It can be called once.
func (s *SavedState) Write(ctx context.Context, w io.Writer) error {
	head, err := json.Marshal(s.info)
	if err != nil {
		return err
	}
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	out := bufio.NewWriter(w)
	both := io.MultiWriter(out, sum)
	b := binary.BigEndian.AppendUint32(savedMagic[:], uint32(len(head)))
	if _, err := both.Write(append(b, head...)); err != nil {
		return err
	}
	n, err := io.Copy(both, contextReader{ctx, s.state})
	if err != nil {
		return fmt.Errorf("cluster: save the snapshot: %w", err)
	}
	if n != s.info.StateSize {
		return fmt.Errorf("%w: the snapshot of entry %d has %d bytes of %d", ErrCorrupt,
			s.info.Index, n, s.info.StateSize)
	}
	if _, err := out.Write(binary.BigEndian.AppendUint32(nil, sum.Sum32())); err != nil {
		return err
	}
	return out.Flush()
}

// take opens a snapshot of all that is applied. If nothing came after the newest
// snapshot, it is that one: raft names a snapshot by index and millisecond, so a second
// one could not even be told from the first. Else take makes a snapshot.
func (s snapshots) take() (*raft.SnapshotMeta, io.ReadCloser, error) {
	kept := s.node.store.Snapshots()
	list, err := kept.List()
	if err != nil {
		return nil, nil, err
	}
	if len(list) > 0 && list[0].Index == s.node.raft().AppliedIndex() {
		return kept.Open(list[0].ID)
	}
	future := s.node.raft().Snapshot()
	switch err := s.node.await(future); {
	case errors.Is(err, raft.ErrNothingNewToSnapshot):
		return nil, nil, fmt.Errorf("%w: nothing has been applied since the start, and there is no "+
			"earlier snapshot", ErrStale)
	case err != nil:
		return nil, nil, err
	}
	return future.Open()
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

// WriteSaved writes a state that comes from no cluster as a saved snapshot, which a cluster
// is founded from by RestoreDataDir. Equal arguments make equal bytes.
func WriteSaved(
	ctx context.Context, w io.Writer, origin string, created time.Time, state io.WriterTo,
) error {
	var content bytes.Buffer
	if err := (&fsmSnapshot{index: 1, state: state}).write(&content); err != nil {
		return err
	}
	saved := SavedState{SnapshotInfo{
		ClusterID: origin, Index: 1, Term: 1, Created: created.UTC(),
		StateSize: int64(content.Len()), Members: []Member{},
	}, io.NopCloser(&content)}
	return saved.Write(ctx, w)
}
