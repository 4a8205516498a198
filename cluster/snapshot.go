package cluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
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

// SnapshotTo takes a snapshot of this server's state and saves it to w.
func (c *Cluster) SnapshotTo(ctx context.Context, w io.Writer) error {
	meta, state, err := c.openSnapshot()
	if err != nil {
		return fmt.Errorf("cluster: take a snapshot: %w", err)
	}
	defer func() { _ = state.Close() }()
	info := SnapshotInfo{
		ClusterID: c.ClusterID(), Index: meta.Index, Term: meta.Term, Created: time.Now().UTC(),
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

// openSnapshot opens a snapshot of all that is applied: the newest one if nothing
// came after it (raft names a snapshot by index and millisecond, so a second one
// could not even be told from the first), else one that it takes.
func (c *Cluster) openSnapshot() (*raft.SnapshotMeta, io.ReadCloser, error) {
	list, err := c.stores.snaps.List()
	if err != nil {
		return nil, nil, err
	}
	if len(list) > 0 && list[0].Index == c.raft.AppliedIndex() {
		return c.stores.snaps.Open(list[0].ID)
	}
	future := c.raft.Snapshot()
	if err := c.await(future); err != nil {
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

// savedReader reads a saved snapshot and checks it on the way.
type savedReader struct {
	r    *bufio.Reader
	sum  hash.Hash32
	info SnapshotInfo
	left int64
}

func openSaved(r io.Reader) (*savedReader, error) {
	s := &savedReader{r: bufio.NewReader(r), sum: crc32.New(crc32.MakeTable(crc32.Castagnoli))}
	in := io.TeeReader(s.r, s.sum)
	var b [12]byte
	if _, err := io.ReadFull(in, b[:]); err != nil {
		return nil, fmt.Errorf("%w: saved snapshot: %w", ErrCorrupt, err)
	}
	size := binary.BigEndian.Uint32(b[8:])
	if [8]byte(b[:8]) != savedMagic || size > maxSavedHead {
		return nil, fmt.Errorf("%w: not a saved snapshot", ErrCorrupt)
	}
	head := make([]byte, size)
	if _, err := io.ReadFull(in, head); err != nil {
		return nil, fmt.Errorf("%w: saved snapshot: %w", ErrCorrupt, err)
	}
	if err := json.Unmarshal(head, &s.info); err != nil {
		return nil, fmt.Errorf("%w: saved snapshot: %w", ErrCorrupt, err)
	}
	if s.info.Index == 0 || s.info.Term == 0 || s.info.StateSize < 0 {
		return nil, fmt.Errorf("%w: saved snapshot: impossible head", ErrCorrupt)
	}
	s.left = s.info.StateSize
	return s, nil
}

// copyTo writes the state to w and fails if the file is not whole.
func (s *savedReader) copyTo(w io.Writer) error {
	n, err := io.Copy(io.MultiWriter(w, s.sum), io.LimitReader(s.r, s.left))
	if err != nil {
		return err
	}
	if n != s.left {
		return fmt.Errorf("%w: saved snapshot is cut off: %d bytes of state, not %d", ErrCorrupt, n,
			s.left)
	}
	var sum [4]byte
	if _, err := io.ReadFull(s.r, sum[:]); err != nil {
		return fmt.Errorf("%w: saved snapshot is cut off: %w", ErrCorrupt, err)
	}
	if binary.BigEndian.Uint32(sum[:]) != s.sum.Sum32() {
		return fmt.Errorf("%w: saved snapshot: checksum mismatch", ErrCorrupt)
	}
	return nil
}

// InspectSnapshot reads a saved snapshot to its end, checks it, and describes it.
// state, if not nil, gets the bytes that Machine.Restore would get.
func InspectSnapshot(r io.Reader, state io.Writer) (SnapshotInfo, error) {
	s, err := openSaved(r)
	if err != nil {
		return SnapshotInfo{}, err
	}
	if state == nil {
		state = io.Discard
	}
	return s.info, s.copyTo(&skipWriter{w: state, skip: snapshotHead})
}

// skipWriter drops the head that precedes the machine's own bytes.
type skipWriter struct {
	w    io.Writer
	skip int
}

func (s *skipWriter) Write(b []byte) (int, error) {
	n := min(s.skip, len(b))
	s.skip -= n
	m, err := s.w.Write(b[n:])
	return n + m, err
}

// Restore says where a saved snapshot is restored to.
type Restore struct {
	DataDir string   // must not hold any state
	ID      string   // the server id; empty makes a new one
	Members []Member // the membership that replaces the saved one; it must contain ID

	// Rewrite, if not nil, replaces the machine's state on the way: it gets what
	// Machine.Restore would get, and returns what is installed in its stead and
	// the id of the cluster that begins with it.
	Rewrite func(state io.Reader) (rewritten io.WriterTo, clusterID string, err error)
}

// RestoreDataDir fills an empty data directory from a saved snapshot, for a
// cluster that lost its majority or is to be set up again. Restored on one
// server, its Members should be that server alone and the others join it; or it
// is restored on all of them with the same Members. It returns the server id.
func RestoreDataDir(ctx context.Context, r io.Reader, to Restore) (id string, err error) {
	dir, err := lockDataDir(to.DataDir)
	if err != nil {
		return "", err
	}
	defer dir.close()
	for _, name := range []string{logFile, snapshotDir} {
		if _, err := os.Stat(filepath.Join(to.DataDir, name)); !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf(
				"cluster: %s already holds state (%s); restore into an empty directory", to.DataDir,
				name)
		}
	}
	saved, err := openSaved(contextReader{ctx, r})
	if err != nil {
		return "", err
	}
	if id, err = dir.serverID(to.ID); err != nil {
		return "", err
	}
	write := saved.copyTo
	if to.Rewrite != nil {
		if write, err = saved.rewrite(to.Rewrite); err != nil {
			return "", err
		}
	}
	if _, err := dir.claimCluster(saved.info.ClusterID); err != nil {
		return "", err
	}
	conf := configuration(to.Members)
	self := false
	for _, s := range conf.Servers {
		self = self || string(s.ID) == id
	}
	if !self {
		return "", fmt.Errorf("%w: the new membership does not contain this server, %q",
			ErrUnknownMember, id)
	}
	return id, saved.info.install(to.DataDir, conf, write)
}

// rewrite reads the whole state, checks it, and has it replaced.
func (s *savedReader) rewrite(
	f func(io.Reader) (io.WriterTo, string, error),
) (write func(io.Writer) error, err error) {
	var state bytes.Buffer
	if err := s.copyTo(&state); err != nil {
		return nil, err
	}
	head := bytes.Clone(state.Next(snapshotHead))
	rewritten, clusterID, err := f(&state)
	if err != nil {
		return nil, err
	}
	s.info.ClusterID = clusterID
	return func(w io.Writer) error {
		if _, err := w.Write(head); err != nil {
			return err
		}
		_, err := rewritten.WriteTo(w)
		return err
	}, nil
}

func (i *SnapshotInfo) install(
	dir string, conf raft.Configuration, write func(io.Writer) error,
) (err error) {
	_, stable, snaps, closer, err := boltStores(slog.New(slog.DiscardHandler))(dir)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	_, trans := raft.NewInmemTransport("")
	defer func() { _ = trans.Close() }()
	sink, err := snaps.Create(raft.SnapshotVersionMax, i.Index, i.Term, conf, 1, trans)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	if err := write(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	// The term first: with the snapshot and without the term the server would
	// begin again in an older term than its newest entry.
	if err := stable.SetUint64([]byte("CurrentTerm"), i.Term); err != nil {
		return errors.Join(fmt.Errorf("cluster: %w", err), sink.Cancel())
	}
	return sink.Close()
}
