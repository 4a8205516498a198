package cluster

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/hashicorp/raft"
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
}

// snapshots saves this server's state.
type snapshots struct {
	node *raftNode
	self *identity
}

// saveTo is SnapshotTo.
func (s snapshots) saveTo(ctx context.Context, w io.Writer) error {
	meta, state, err := s.open()
	if err != nil {
		return fmt.Errorf("cluster: take a snapshot: %w", err)
	}
	defer func() { _ = state.Close() }()
	info := SnapshotInfo{
		ClusterID: s.self.cluster(), Index: meta.Index, Term: meta.Term, Created: time.Now().UTC(),
		StateSize: meta.Size,
	}
	for _, s := range meta.Configuration.Servers {
		info.Members = append(info.Members, Member{ID: string(s.ID), RaftAddr: string(s.Address)})
	}
	head, err := json.Marshal(info)
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
	n, err := io.Copy(both, contextReader{ctx, state})
	if err != nil {
		return fmt.Errorf("cluster: save the snapshot: %w", err)
	}
	if n != meta.Size {
		return fmt.Errorf("%w: snapshot %s has %d bytes of %d", ErrCorrupt, meta.ID, n, meta.Size)
	}
	if _, err := out.Write(binary.BigEndian.AppendUint32(nil, sum.Sum32())); err != nil {
		return err
	}
	return out.Flush()
}

// open opens a snapshot of all that is applied. If nothing came after the newest
// snapshot, it is that one: raft names a snapshot by index and millisecond, so a second
// one could not even be told from the first. Else open takes a snapshot.
func (s snapshots) open() (*raft.SnapshotMeta, io.ReadCloser, error) {
	kept := s.node.store.Snapshots()
	list, err := kept.List()
	if err != nil {
		return nil, nil, err
	}
	if len(list) > 0 && list[0].Index == s.node.raft().AppliedIndex() {
		return kept.Open(list[0].ID)
	}
	future := s.node.raft().Snapshot()
	if err := s.node.await(future); err != nil {
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
