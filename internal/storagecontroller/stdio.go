package storagecontroller

import (
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"quorate/internal/tracelog"
)

// lastLines is how long a process that ends waits for those who read its output.
const lastLines = 2 * time.Second

// openLog makes standard output the log of a replica, which no reader can hold up:
// neither one that hangs, nor one that has ended, nor one that hangs while the
// process crashes.
func openLog() *tracelog.Queue {
	// The runtime ends a process whose standard output has no reader any more.
	signal.Ignore(syscall.SIGPIPE)
	looseStderr()
	return tracelog.NewQueue(os.Stdout, tracelog.QueueSize)
}

// looseStderr makes writes to standard error fail where they would wait for the reader
// of a pipe. What the runtime writes there when the process crashes is the last that
// it does: if that hung, the process would neither work nor end. The pipe is opened
// anew, since how an open file waits is shared with other processes that have it.
func looseStderr() {
	const stderr = 2
	var is unix.Stat_t
	if unix.Fstat(stderr, &is) != nil || is.Mode&unix.S_IFMT != unix.S_IFIFO {
		return
	}
	anew, err := unix.Open("/proc/self/fd/2", unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return // it stays as it was given
	}
	_ = unix.Dup3(anew, stderr, 0)
	_ = unix.Close(anew)
}

// complain writes the last words of a command to standard error.
func complain(text string) {
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = io.WriteString(os.Stderr, text)
	}()
	select {
	case <-written:
	case <-time.After(lastLines):
	}
}
