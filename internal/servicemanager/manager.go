// Package servicemanager tells the service manager that has started this process
// (systemd, with Type=notify) how it is: ready, reloading, stopping, and alive while it
// makes progress. It may not know what progress is.
package servicemanager

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"quorate/internal/wait"
)

const (
	// sendLimit bounds the wait for a service manager that does not read.
	sendLimit = 500 * time.Millisecond

	// statusEvery is the pause between two looks at the status where no watchdog is
	// asked for.
	statusEvery = 5 * time.Second

	// looks is how many there are within the time of the watchdog, so that one that is
	// late does not end the process.
	looks = 3

	maxStatus = 500 // bytes
)

// Manager is the service manager. A nil one is told nothing.
type Manager struct {
	watchdog time.Duration // 0: none is asked for
	send     func(state string) error
	log      *slog.Logger
}

// FromEnvironment returns the service manager that NOTIFY_SOCKET names, and nil without
// one.
func FromEnvironment(getenv func(string) string, log *slog.Logger) (*Manager, error) {
	path := getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil, nil
	}
	if !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "@") {
		return nil, fmt.Errorf("NOTIFY_SOCKET is %q, which is neither a path nor begins with @",
			path)
	}
	m := &Manager{log: log, send: func(state string) error { return send(path, state) }}
	text, pid := getenv("WATCHDOG_USEC"), getenv("WATCHDOG_PID")
	if text == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return m, nil
	}
	usec, err := strconv.ParseInt(text, 10, 64)
	if err != nil || usec <= 0 || usec > int64(24*time.Hour/time.Microsecond) {
		return nil, fmt.Errorf("WATCHDOG_USEC is %q, no number of microseconds within a day", text)
	}
	m.watchdog = time.Duration(usec) * time.Microsecond
	return m, nil
}

// send sends one datagram. A name that begins with @ is one without a file.
func send(path, state string) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetWriteDeadline(time.Now().Add(sendLimit)); err != nil {
		return err
	}
	_, err = conn.Write([]byte(state))
	return err
}

func (m *Manager) tell(states ...string) {
	if err := m.send(strings.Join(states, "\n")); err != nil {
		m.log.Warn("The service manager cannot be told", "what", states[0], "err", err)
	}
}

// Ready tells that requests are answered.
func (m *Manager) Ready() {
	if m != nil {
		m.tell("READY=1")
	}
}

// Stopping tells that the process ends.
func (m *Manager) Stopping() {
	if m != nil {
		m.tell("STOPPING=1", "STATUS=stopping")
	}
}

// Reload tells that files are read again while work runs.
func (m *Manager) Reload(work func()) {
	if m == nil {
		work()
		return
	}
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	m.tell("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
	defer m.tell("READY=1")
	work()
}

// Watched is a process that is watched.
type Watched struct {
	// Check returns an error if the process has made no progress since the last call, or
	// makes none within the limit.
	Check func(limit time.Duration) error
	// Status is one line about the process.
	Status func() string
}

// Watch tells the status when it has changed, and feeds the watchdog as long as the
// process makes progress, until ctx ends. One that stands still is not fed, and ended and
// started again by the service manager. A check that never returns is not waited for.
func (m *Manager) Watch(ctx context.Context, w Watched) {
	if m == nil {
		return
	}
	every := statusEvery
	if m.watchdog > 0 {
		every = m.watchdog / looks
	}
	said := ""
	for wait.Sleep(ctx, every) == nil {
		checked := make(chan report, 1)
		go func() { checked <- w.look(every) }() // ends with the process if it hangs
		select {
		case r := <-checked:
			said = m.pass(r, said)
		case <-ctx.Done():
			return
		}
	}
}

type report struct {
	err    error
	status string
}

func (w Watched) look(limit time.Duration) (r report) {
	if r.err = w.Check(limit); r.err == nil {
		r.status = line(w.Status())
	}
	return r
}

// pass tells one report, and returns the status that was told last.
func (m *Manager) pass(r report, said string) string {
	if r.err != nil {
		m.log.Error("No progress: the watchdog is not fed", "err", r.err)
		m.tell("STATUS=" + line(r.err.Error()))
		return ""
	}
	var states []string
	if m.watchdog > 0 {
		states = append(states, "WATCHDOG=1")
	}
	if r.status != said {
		states = append(states, "STATUS="+r.status)
	}
	if len(states) > 0 {
		m.tell(states...)
	}
	return r.status
}

// line makes one short line of a text.
func line(text string) string {
	text = strings.ReplaceAll(text, "\n", " ")
	return strings.ToValidUTF8(text[:min(len(text), maxStatus)], "")
}
