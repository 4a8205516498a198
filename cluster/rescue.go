package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"quorate/cluster/internal/datadir"
	"quorate/cluster/internal/store"
)

// ErrMembersAnswer: other members answer, so the cluster may need no rescue, or had one.
var ErrMembersAnswer = errors.New("cluster: other members answer")

// SurvivorInfo describes what a server that survived its cluster has on its disk.
type SurvivorInfo struct {
	ServerID  string `json:"server_id"`
	ClusterID string `json:"cluster_id"`
	// Members is the newest membership on the disk.
	Members []Member `json:"members"`
	Term    uint64   `json:"term"`
	// SnapshotIndex is the last entry in the newest snapshot, 0 without one.
	SnapshotIndex uint64 `json:"snapshot_index"`
	// LastIndex is the newest entry on the disk, which need not have been committed, and
	// LastEntry when a leader made it, if that is known.
	LastIndex uint64    `json:"last_index"`
	LastEntry time.Time `json:"last_entry,omitzero"`
	// The rest is what the server noted a few seconds before its end: an entry that was
	// committed and applied, the leader, and when it was last heard of.
	AppliedIndex uint64    `json:"applied_index,omitempty"`
	Leader       string    `json:"leader,omitempty"`
	LastContact  time.Time `json:"last_contact,omitzero"`
	// GoneBack: the disk has less than it had then.
	GoneBack bool `json:"gone_back,omitempty"`
	// TakenFor says of which other cluster the server was a member before it lost its disk,
	// as a member of that one says; "" if none does.
	TakenFor string `json:"taken_for,omitempty"`
}

// Survivor is the data directory of a server whose cluster lost its majority. The
// directory is locked.
type Survivor struct {
	dir     *datadir.Dir
	content *store.Content
	info    SurvivorInfo
}

// OpenSurvivor locks a data directory and reads what is in it. It changes nothing. It
// fails with ErrDataDirInUse while a server runs on the directory.
func OpenSurvivor(dataDir string) (_ *Survivor, err error) {
	if _, err := os.Stat(dataDir); err != nil {
		return nil, fmt.Errorf("cluster: data directory: %w", err)
	}
	s := &Survivor{}
	if s.dir, err = datadir.Lock(dataDir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if _, err := os.Stat(filepath.Join(dataDir, store.LogFile)); err != nil {
		return nil, fmt.Errorf("cluster: %s holds no state of a server: %w", dataDir, err)
	}
	if s.info.ServerID, err = s.dir.ServerID("", store.LogFile); err != nil {
		return nil, err
	}
	if s.info.ClusterID, err = s.dir.ClaimCluster(""); err != nil {
		return nil, err
	}
	of, err := s.dir.FormerCluster()
	if err != nil {
		return nil, err
	}
	if of != nil && of.Own == s.info.ClusterID {
		s.info.TakenFor = fmt.Sprintf("%s at %s of cluster %s takes this server for its member %s",
			of.Server, of.RaftAddr, of.Cluster, of.Member)
	}
	if s.content, err = store.Read(dataDir, checkFrame); err != nil {
		return nil, err
	}
	c := s.content
	if c.Last == 0 {
		return nil, fmt.Errorf("cluster: %s holds no entry and no snapshot: there is nothing to "+
			"rescue", dataDir)
	}
	s.info.Term, s.info.SnapshotIndex = c.Term, c.Snapshot.Index
	s.info.LastIndex, s.info.LastEntry = c.Last, c.LastAt
	mark, err := store.ReadMark(dataDir)
	if err != nil {
		return nil, err
	}
	s.info.AppliedIndex = max(mark.Index, c.Snapshot.Index)
	s.info.Leader, s.info.LastContact = mark.Leader, mark.Contact
	s.info.GoneBack = mark.Index > c.Last || mark.Term > c.Term
	for _, m := range c.Members.Servers {
		s.info.Members = append(s.info.Members,
			Member{ID: string(m.ID), RaftAddr: string(m.Address)})
	}
	return s, nil
}

func checkFrame(entry []byte) error {
	_, err := decodeFrame(entry)
	return err
}

// Info describes the survivor.
func (s *Survivor) Info() SurvivorInfo { return s.info }

// Close unlocks the directory.
func (s *Survivor) Close() {
	if s.content != nil {
		s.content.Close()
	}
	s.dir.Close()
}

// dialLimit bounds the question whether a member is there.
const dialLimit = 2 * time.Second

// Answering returns the other members at whose addresses connections are accepted.
func (s *Survivor) Answering(ctx context.Context) (ids []string) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	answers := make([]bool, len(s.info.Members))
	var wg sync.WaitGroup
	for i, m := range s.info.Members {
		if m.ID == s.info.ServerID {
			continue
		}
		wg.Go(func() {
			var d net.Dialer
			if c, err := d.DialContext(ctx, "tcp", m.RaftAddr); err == nil {
				answers[i] = true
				_ = c.Close()
			}
		})
	}
	wg.Wait()
	for i, m := range s.info.Members {
		if answers[i] {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// CheckOthersGone fails with ErrMembersAnswer if other members answer. If they and this
// server are a majority, it only has to be started. Otherwise an earlier rescue may have
// made one of them the successor already: two would issue the same generations. It fails
// too if the server was a member of another cluster before, which has the state then.
func (s *Survivor) CheckOthersGone(answering []string) error {
	if s.info.TakenFor != "" {
		return fmt.Errorf("%w: %s; if that one has the state, empty this data directory and add "+
			"the server there under a new id", ErrMembersAnswer, s.info.TakenFor)
	}
	voters, alive := 0, 0
	for _, m := range s.content.Members.Servers {
		if m.Suffrage != raft.Voter {
			continue
		}
		voters++
		if id := string(m.ID); id == s.info.ServerID || slices.Contains(answering, id) {
			alive++
		}
	}
	if len(answering) == 0 {
		return nil
	}
	if alive <= voters/2 {
		return fmt.Errorf("%w: %v; of all survivors only one may be rescued, and this may be done "+
			"already: then empty this data directory and add the server there. Otherwise stop "+
			"them first", ErrMembersAnswer, answering)
	}
	return fmt.Errorf("%w: with %v this server is a majority of the %d voters, so start it "+
		"instead; stop those first if their disks are lost", ErrMembersAnswer, answering, voters)
}

// Replay brings a new machine to the state after the newest entry on the disk, whether or
// not that was known to be committed.
func (s *Survivor) Replay(ctx context.Context, m Machine) error {
	if s.content.Snapshot.Index > 0 {
		if err := s.restoreTo(m); err != nil {
			return fmt.Errorf("cluster: snapshot of entry %d: %w", s.content.Snapshot.Index, err)
		}
	}
	for i := s.content.Next; i <= s.content.Last; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		l, err := s.content.Entry(i)
		if err != nil {
			return fmt.Errorf("cluster: entry %d: %w", i, err)
		}
		if l.Type != raft.LogCommand {
			continue
		}
		commands, err := decodeFrame(l.Data)
		if err != nil {
			return fmt.Errorf("cluster: entry %d: %w", i, err)
		}
		batch := make([]Entry, len(commands))
		for k, c := range commands {
			batch[k] = Entry{Index: i, Data: c}
		}
		if len(batch) > 0 {
			m.Apply(batch)
		}
	}
	return nil
}

func (s *Survivor) restoreTo(m Machine) error {
	state, err := s.content.State()
	if err != nil {
		return err
	}
	defer func() { _ = state.Close() }()
	if _, err := readSnapshotHead(state); err != nil {
		return err
	}
	return m.Restore(state)
}

// NewCluster is the cluster of one that a survivor begins.
type NewCluster struct {
	ClusterID string
	ServerID  string      // empty: the survivor's
	RaftAddr  string      // empty: the survivor's
	State     io.WriterTo // the machine's state, as Machine.Snapshot gives it
}

// Found replaces the content of the directory by that of the only member of a new cluster
// and returns the directory with the old content. The disk gets a new id, and the members
// of the old cluster are strangers to it. A crash leaves the old content or, as soon as the
// directory is used again, the new one.
func (s *Survivor) Found(n NewCluster) (aside string, err error) {
	id, addr := n.ServerID, n.RaftAddr
	if id == "" {
		id = s.info.ServerID
	}
	for _, m := range s.info.Members {
		if addr == "" && m.ID == s.info.ServerID {
			addr = m.RaftAddr
		}
	}
	if addr == "" {
		return "", fmt.Errorf("%w: the membership on the disk does not have %q; name the "+
			"address of the new one", ErrUnknownMember, s.info.ServerID)
	}
	ended, err := s.dir.EndedClusters()
	if err != nil {
		return "", err
	}
	if s.info.ClusterID != "" {
		ended = append(ended, s.info.ClusterID)
	}
	before, err := s.predecessors(addr)
	if err != nil {
		return "", err
	}
	var head bytes.Buffer
	if err := (&fsmSnapshot{index: s.content.Last, state: nothing{}}).write(&head); err != nil {
		return "", err
	}
	aside = "before-rescue-" + time.Now().UTC().Format("20060102T150405.000Z")
	return filepath.Join(s.dir.Path(), aside), s.dir.Replace(datadir.Replacement{
		Aside: aside, Others: []string{store.LogFile, store.MarkFile, store.SnapshotDir},
		Build: func(made *datadir.Dir) error {
			if err := errors.Join(made.SetEndedClusters(ended),
				made.SetPredecessors(before)); err != nil {
				return err
			}
			return beginWithSnapshot(made, id, n.ClusterID, raft.SnapshotMeta{
				Index: s.content.Last, Term: s.content.Term,
				Configuration: configuration([]Member{{ID: id, RaftAddr: addr}}),
			}, func(w io.Writer) error {
				if _, err := w.Write(head.Bytes()); err != nil {
					return err
				}
				_, err := n.State.WriteTo(w)
				return err
			})
		},
	})
}

// predecessors are the members that the new cluster leaves behind, also those of an earlier
// rescue. One that is at the address of the new cluster's only member is gone.
func (s *Survivor) predecessors(own string) ([]datadir.Predecessor, error) {
	before, err := s.dir.Predecessors()
	if err != nil {
		return nil, err
	}
	for _, m := range s.info.Members {
		before = append(before, datadir.Predecessor(m))
	}
	var all []datadir.Predecessor
	for i, p := range before {
		later := slices.ContainsFunc(before[i+1:],
			func(o datadir.Predecessor) bool { return o.RaftAddr == p.RaftAddr })
		if p.RaftAddr != own && p.ID != s.info.ServerID && !later {
			all = append(all, p)
		}
	}
	return all[max(0, len(all)-maxServers):], nil
}

// nothing is an empty state.
type nothing struct{}

func (nothing) WriteTo(io.Writer) (int64, error) { return 0, nil }

// beginWithSnapshot fills an empty data directory: its identity, and a log that begins
// with a snapshot.
func beginWithSnapshot(
	dir *datadir.Dir, id, clusterID string, meta raft.SnapshotMeta,
	write func(io.Writer) error,
) error {
	if _, err := dir.ServerID(id, store.LogFile); err != nil {
		return err
	}
	if _, err := dir.ClaimCluster(clusterID); err != nil {
		return err
	}
	disk, err := dir.DiskID(store.LogFile)
	if err != nil {
		return err
	}
	if err := store.InstallSnapshot(dir.Path(), meta, write); err != nil {
		return err
	}
	return dir.Vouch(store.LogFile, id, disk, clusterID, store.InDir(dir.Path()))
}
