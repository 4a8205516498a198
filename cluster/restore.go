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
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"quorate/cluster/internal/datadir"
	"quorate/cluster/internal/store"
)

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
	if s.info.Index == 0 || s.info.Term == 0 || s.info.StateSize < 0 ||
		s.info.Index > maxIndex || s.info.Term > maxTerm {
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
	dir, err := datadir.Lock(to.DataDir)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	for _, name := range []string{store.LogFile, store.SnapshotDir} {
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
	if id, err = dir.ServerID(to.ID, store.LogFile); err != nil {
		return "", err
	}
	write := saved.copyTo
	if to.Rewrite != nil {
		if write, err = saved.rewrite(to.Rewrite); err != nil {
			return "", err
		}
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
	return id, beginWithSnapshot(dir, id, saved.info.ClusterID, raft.SnapshotMeta{
		Index: saved.info.Index, Term: saved.info.Term, Configuration: conf,
	}, write)
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
