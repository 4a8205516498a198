package controlsocket

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

const (
	// fileName is the socket's name in the data directory.
	fileName = "control.sock"

	// longestPath is what the address of a socket holds on every system, in bytes.
	longestPath = 100
)

// errPathTooLong: no address of a socket can name this directory.
var errPathTooLong = errors.New("the path of the data directory is too long for a socket " +
	"on this system; use a shorter one, or `storcon_cli cluster`, which goes by HTTP")

// openDirs is where the kernel shows the open files of this process. A directory is
// reached through it whatever the length of its own path.
var openDirs = "/proc/self/fd"

// address is the socket of a data directory as a system call takes it. release is called
// when the address is not used any more.
func address(dir string) (path string, release func(), err error) {
	path = filepath.Join(dir, fileName)
	if len(path) <= longestPath {
		return path, func() {}, nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	short := filepath.Join(openDirs, fmt.Sprint(d.Fd()))
	if _, err := os.Stat(short); err != nil {
		_ = d.Close()
		return "", nil, errPathTooLong
	}
	return filepath.Join(short, fileName), func() { _ = d.Close() }, nil
}

// unreachable says why there was no connection to the socket of a directory. It says that
// no replica runs only if no process can be listening.
func unreachable(dir string, err error) error {
	path := filepath.Join(dir, fileName)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no replica runs on this data directory: %s: %w", path, err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s belongs to another user; run the command as the one that the "+
			"replica runs as: %w", path, err)
	}
	return fmt.Errorf("no connection to the replica's control socket %s: %w", path, err)
}
