// Package instance lets several instances of the program on one machine take turns at one
// data directory, as neon_local starts them: the one that holds its lock leads, and an
// instance whose turn is over goes on answering, by forwarding to the next.
//
// It knows an instance as something that is started, retired and closed, and nothing of
// what is in the data directory.
package instance

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"quorate/internal/atomicfile"
)

// The files through which instances take turns at one data directory.
const (
	candidateFile = "candidate" // locked by the instance that wants the next turn
	holderFile    = "holder"    // who had the last turn, in JSON
)

// turns are the files by which instances on one machine agree whose turn it is to
// use a data directory. The right to use it is the lock that package cluster takes
// on it. These files only say who has it and who wants it. Both locks are the
// kernel's, which releases them when a process dies.
type turns struct {
	dir  string
	self holder
	mine *os.File // the locked candidate file; nil: no candidate
}

// holder is an instance that has had a turn.
type holder struct {
	Name      string `json:"name"` // of this run of the process
	Address   string `json:"address"`
	PID       int    `json:"pid"`
	StartedAt int64  `json:"started_at"` // Unix time in milliseconds
}

// newTurns makes the data directory when it is not there.
func newTurns(dir, address string) (*turns, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	var name [16]byte
	_, _ = rand.Read(name[:]) // never fails
	return &turns{dir: dir, self: holder{
		Name: hex.EncodeToString(name[:]), Address: address, PID: os.Getpid(),
		StartedAt: time.Now().UnixMilli(),
	}}, nil
}

func (t *turns) lock(how int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(t.dir, candidateFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	_ = f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, fmt.Errorf("data directory: lock %s: %w", candidateFile, err)
}

// candidate reports whether this instance asks for the next turn.
func (t *turns) candidate() bool { return t.mine != nil }

// ask asks for the next turn. It reports false while another instance does.
func (t *turns) ask() (bool, error) {
	f, err := t.lock(unix.LOCK_EX)
	t.mine = f
	return f != nil, err
}

// withdraw takes back that this instance asks for the next turn.
func (t *turns) withdraw() {
	if t.mine != nil {
		_ = t.mine.Close()
		t.mine = nil
	}
}

// wanted reports whether a living instance, not this one, asks for the next turn. After
// an error that is not known, and it reports false.
func (t *turns) wanted() bool {
	if t.mine != nil {
		return false
	}
	f, err := t.lock(unix.LOCK_SH)
	if f != nil {
		_ = f.Close()
	}
	return f == nil && err == nil
}

// last is who had the last turn; the zero holder when that is not known. Only the
// address of forwarded requests depends on it.
func (t *turns) last() holder {
	var h holder
	b, err := os.ReadFile(filepath.Join(t.dir, holderFile))
	if err != nil || json.Unmarshal(b, &h) != nil {
		return holder{}
	}
	return h
}

// take records that this is our turn. Only the holder of the lock on the data directory
// may call it.
func (t *turns) take() error {
	b, err := json.Marshal(t.self)
	if err != nil {
		return err
	}
	name := filepath.Join(t.dir, holderFile)
	if err := atomicfile.Write(name, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	}); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	return nil
}
