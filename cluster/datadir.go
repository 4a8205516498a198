package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// The files of a data directory, next to the log and the snapshots.
const (
	lockFile        = "lock"
	serverIDFile    = "server_id"
	clusterIDFile   = "cluster_id"
	incarnationFile = "incarnation"
	canaryFile      = "canary"
)

// dataDir is a locked data directory.
type dataDir struct {
	path string
	lock *os.File
}

// lockDataDir creates the directory if need be and takes its lock, which the
// kernel drops when the process ends.
func lockDataDir(path string) (*dataDir, error) {
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
			return nil, fmt.Errorf("%w: %s is held by another process", ErrDataDirInUse, path)
		}
		return nil, fmt.Errorf("cluster: lock %s: %w", path, err)
	}
	return &dataDir{path: path, lock: f}, nil
}

func (d *dataDir) close() { _ = d.lock.Close() }

// read returns the content of a small file, and "" if there is none.
func (d *dataDir) read(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(d.path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cluster: %w", err)
	}
	s := strings.TrimSuffix(string(b), "\n")
	if s == "" || len(s) > 200 ||
		strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", corrupt(filepath.Join(d.path, name),
			fmt.Errorf("%d bytes that are no id", len(b)))
	}
	return s, nil
}

// write replaces a small file so that after a crash it is the old or the new one.
func (d *dataDir) write(name, content string) error {
	tmp := filepath.Join(d.path, name+".tmp")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	_, err = f.WriteString(content + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, filepath.Join(d.path, name))
	}
	if err != nil {
		return fmt.Errorf("cluster: write %s: %w", name, err)
	}
	dir, err := os.Open(d.path)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// serverID returns the id on disk; an empty directory gets want, or a new one.
func (d *dataDir) serverID(want string) (string, error) {
	id, err := d.read(serverIDFile)
	if err != nil {
		return "", err
	}
	if id != "" {
		if want != "" && want != id {
			return "", fmt.Errorf("cluster: data directory %s is of server %q, not %q", d.path, id,
				want)
		}
		return id, nil
	}
	if _, err := os.Stat(filepath.Join(d.path, logFile)); err == nil {
		return "", corrupt(filepath.Join(d.path, serverIDFile),
			errors.New("missing beside an existing log"))
	}
	if want == "" {
		want = newID()
	}
	return want, d.write(serverIDFile, want)
}

// incarnation names this very disk: it is made with the directory.
func (d *dataDir) incarnation() (string, error) {
	have, err := d.read(incarnationFile)
	if err != nil || have != "" {
		return have, err
	}
	made := newID()
	return made, d.write(incarnationFile, made)
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// claimCluster checks the directory's cluster id against want and returns the
// one that holds. Either may be empty.
func (d *dataDir) claimCluster(want string) (string, error) {
	have, err := d.read(clusterIDFile)
	if err != nil {
		return "", err
	}
	switch {
	case want == "" || want == have:
		return have, nil
	case have != "":
		return "", fmt.Errorf("%w: data directory %s is of cluster %q, not %q", ErrClusterMismatch,
			d.path, have, want)
	default:
		return want, d.write(clusterIDFile, want)
	}
}

// corrupt says which file is bad and what an operator can do about it.
func corrupt(file string, err error) error {
	return fmt.Errorf("%w: %s: %w; restore it from a copy of this server's disk, or move the data directory away "+
		"and let the server join again as a new member (the other members hold the data; "+
		"without any, restore a saved snapshot)", ErrCorrupt, file, err)
}
