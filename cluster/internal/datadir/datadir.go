// Package datadir is the identity of a server, as its data directory holds it: the
// lock, the server's id, the cluster's id, the id of the disk, and the disks that
// the other members had.
//
// It knows nothing of Raft and does not open the log or the snapshots.
package datadir

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"quorate/internal/atomicfile"
)

var (
	// ErrInUse: another process holds the data directory.
	ErrInUse = errors.New("cluster: data directory in use")
	// ErrCorrupt: a file of the data directory cannot be trusted. The text names the
	// file and the way out.
	ErrCorrupt = errors.New("cluster: corrupt data")
	// ErrGoneBack: a disk has less than it had before, as an older copy of it has.
	ErrGoneBack = errors.New("cluster: the disk has gone back")
	// ErrClusterMismatch: the peer, or the data directory, belongs to another cluster.
	ErrClusterMismatch = errors.New("cluster: belongs to another cluster")
)

// The files of a data directory, next to the log and the snapshots.
const (
	lockFile      = "lock"
	serverIDFile  = "server_id"
	clusterIDFile = "cluster_id"
	diskIDFile    = "incarnation"
	// logMadeFile says that the log exists, and has the id of the disk if the log has it
	// too. A log that is missing beside it was lost.
	logMadeFile = "log_made"
	// endedFile names the clusters that ended when this one was made of a survivor.
	endedFile = "ended_clusters"
	// madeFile has the id of the cluster, if this server has made it. An id that came from
	// others, by a promise or an invitation, is not this server's to found a cluster under.
	madeFile = "made_cluster"
	// predecessorsFile has the members of the cluster that this one was made of a survivor of.
	predecessorsFile = "predecessors.json"

	// formerFile has the cluster of which the server was a member before it lost its disk.
	formerFile = "former_cluster.json"
)

// maxEnded bounds the clusters that are remembered as ended.
const maxEnded = 5

// Dir is a locked data directory.
type Dir struct {
	path string
	lock *os.File
}

// Lock creates the directory if it does not exist and takes its lock. The kernel
// drops the lock when the process ends. A replacement of the content that was cut off
// is finished.
func Lock(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("cluster: data directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(path, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cluster: data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s is held by another process", ErrInUse, path)
		}
		return nil, fmt.Errorf("cluster: lock %s: %w", path, err)
	}
	if err := (mover{path, os.Rename}).finish(); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("cluster: finish replacing the content of %s: %w", path, err)
	}
	return &Dir{path: path, lock: f}, nil
}

// Path is the directory.
func (d *Dir) Path() string { return d.path }

// Close drops the lock.
func (d *Dir) Close() { _ = d.lock.Close() }

// read returns the id in a small file, and "" if there is none.
func (d *Dir) read(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(d.path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cluster: %w", err)
	}
	s := strings.TrimSuffix(string(b), "\n")
	if !isID(s) {
		return "", Corrupt(filepath.Join(d.path, name),
			fmt.Errorf("%d bytes that are no id", len(b)))
	}
	return s, nil
}

func isID(s string) bool {
	return s != "" && len(s) <= 200 &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// write replaces a small file.
func (d *Dir) write(name, content string) error {
	err := atomicfile.Write(filepath.Join(d.path, name), func(w io.Writer) error {
		_, err := io.WriteString(w, content+"\n")
		return err
	})
	if err != nil {
		return fmt.Errorf("cluster: write %s: %w", name, err)
	}
	return nil
}

// ServerID returns the id on disk. A fresh directory gets want, or a new id if want
// is empty. A directory is not fresh if logFile exists in it.
func (d *Dir) ServerID(want, logFile string) (string, error) {
	id, err := d.read(serverIDFile)
	if err != nil {
		return "", err
	}
	if id != "" {
		if want != "" && want != id {
			return "", fmt.Errorf("cluster: data directory %s is of server %q, not %q; correct "+
				"--server-id or --data-dir, or start %s on an empty directory", d.path, id, want,
				want)
		}
		return id, nil
	}
	if d.HasLog(logFile) {
		return "", Corrupt(filepath.Join(d.path, serverIDFile),
			errors.New("missing beside an existing log"))
	}
	if want == "" {
		want = NewID()
	}
	return want, d.write(serverIDFile, want)
}

// DiskID names this very disk: the id is made with the directory, before the log.
func (d *Dir) DiskID(logFile string) (string, error) {
	have, err := d.read(diskIDFile)
	if err != nil || have != "" {
		return have, err
	}
	if d.HasLog(logFile) {
		return "", Corrupt(filepath.Join(d.path, diskIDFile),
			errors.New("missing beside an existing log"))
	}
	made := NewID()
	return made, d.write(diskIDFile, made)
}

// CheckLog refuses a directory whose log is gone: the server would come back as its
// former self, with nothing of what it has acknowledged.
func (d *Dir) CheckLog(logFile string) error {
	if made, err := d.read(logMadeFile); err != nil || made == "" {
		return err
	}
	name := filepath.Join(d.path, logFile)
	info, err := os.Stat(name)
	if err == nil && info.Size() == 0 {
		err = errors.New("empty beside an existing identity")
	}
	if err != nil {
		return Corrupt(name, err)
	}
	return nil
}

// HasLog reports whether the log is in this directory. One in memory is not.
func (d *Dir) HasLog(logFile string) bool {
	_, err := os.Stat(filepath.Join(d.path, logFile))
	return err == nil
}

// log is what Vouch needs of the log.
type log interface {
	Identity() (string, error) // "" if there is none
	SetIdentity(string) error
	HasState() (bool, error)
}

// Vouch compares what the log says of itself with the rest of the directory: the parts of
// two directories, or a part without the rest, are refused. A log that says nothing yet gets
// its identity. A log that is elsewhere, as one in memory, is not looked at.
func (d *Dir) Vouch(logFile, server, disk, cluster string, l log) error {
	if !d.HasLog(logFile) {
		return nil
	}
	name := filepath.Join(d.path, logFile)
	want := server + " " + disk
	have, err := l.Identity()
	if err != nil {
		return Corrupt(name, err)
	}
	made, err := d.read(logMadeFile)
	if err != nil {
		return err
	}
	state, err := l.HasState()
	if err != nil {
		return Corrupt(name, err)
	}
	switch {
	case have != "" && have != want:
		return Corrupt(name, fmt.Errorf("is of server and disk %q in a directory of %q", have,
			want))
	case have == "" && made == disk:
		return Corrupt(name, fmt.Errorf("is another one than that of server and disk %q", want))
	case have != "" && state && cluster == "":
		return Corrupt(filepath.Join(d.path, clusterIDFile),
			errors.New("missing beside an existing log"))
	case have == "":
		if err := l.SetIdentity(want); err != nil {
			return fmt.Errorf("cluster: %w", err)
		}
	}
	if made == disk {
		return nil
	}
	return d.write(logMadeFile, disk)
}

// NewID returns a random id.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// ClaimCluster compares the directory's cluster id with want and returns the id that
// holds. Either may be empty.
func (d *Dir) ClaimCluster(want string) (string, error) {
	have, err := d.read(clusterIDFile)
	if err != nil {
		return "", err
	}
	switch {
	case want == "" || want == have:
		return have, nil
	case have != "":
		return "", fmt.Errorf("%w: data directory %s is of cluster %q, not %q; correct "+
			"--cluster-id or --data-dir, or join that cluster on an empty directory",
			ErrClusterMismatch, d.path, have, want)
	default:
		return want, d.write(clusterIDFile, want)
	}
}

// Corrupt says which file is bad and what an operator can do about it.
func Corrupt(file string, err error) error {
	return fmt.Errorf("%w: %s: %w; remove this server from the cluster, move the data directory "+
		"away, and add the server again under a new id (the other members hold the data; "+
		"without any, restore a saved snapshot). Never put an older copy in its place: "+
		"it has forgotten what this server acknowledged", ErrCorrupt, file, err)
}

// EndedClusters are the ids of the clusters that ended when this server's was made of a
// survivor, the newest last.
func (d *Dir) EndedClusters() ([]string, error) {
	text, err := d.read(endedFile)
	if err != nil || text == "" {
		return nil, err
	}
	return strings.Split(text, ","), nil
}

// SetEndedClusters remembers the newest of these ids.
func (d *Dir) SetEndedClusters(ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	return d.write(endedFile, strings.Join(ids[max(0, len(ids)-maxEnded):], ","))
}

// MadeCluster is the id that SetMadeCluster has written; "" if there is none.
func (d *Dir) MadeCluster() (string, error) { return d.read(madeFile) }

// SetMadeCluster remembers an id that this server has made. It comes before ClaimCluster.
func (d *Dir) SetMadeCluster(id string) error { return d.write(madeFile, id) }

// FormerCluster is the cluster of which a server was a member before it lost its disk.
type FormerCluster struct {
	Own      string `json:"own,omitempty"` // the cluster of the server since then, if any
	Cluster  string `json:"cluster"`
	Member   string `json:"member"` // its id there
	Server   string `json:"server"` // the member that says so
	RaftAddr string `json:"raft_addr"`
}

// Valid reports whether its parts are ids and an address. They come from other servers.
func (f FormerCluster) Valid() bool {
	return isID(f.Cluster) && isID(f.Member) && isID(f.Server) && isID(f.RaftAddr)
}

// FormerCluster is what SetFormerCluster has written; nil if there is nothing.
func (d *Dir) FormerCluster() (*FormerCluster, error) {
	name := filepath.Join(d.path, formerFile)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	var f FormerCluster
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, Corrupt(name, err)
	}
	return &f, nil
}

// SetFormerCluster remembers that the server of this directory was a member elsewhere.
func (d *Dir) SetFormerCluster(f FormerCluster) error {
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return d.write(formerFile, string(b))
}

// Predecessor is a member of the cluster from a survivor of which another one was made.
type Predecessor struct {
	ID       string `json:"id"`
	RaftAddr string `json:"raft_addr"`
}

// Predecessors are what SetPredecessors has written; none if there is nothing.
func (d *Dir) Predecessors() (all []Predecessor, err error) {
	name := filepath.Join(d.path, predecessorsFile)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, Corrupt(name, err)
	}
	return all, nil
}

// SetPredecessors remembers who was a member before.
func (d *Dir) SetPredecessors(all []Predecessor) error {
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return d.write(predecessorsFile, string(b))
}
