package servicemanager

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// heard is what a service manager in memory was told.
type heard struct {
	mu    sync.Mutex
	lines []string
}

func (h *heard) send(state string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, strings.Split(state, "\n")...)
	return nil
}

func (h *heard) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() { h.lines = nil }()
	return h.lines
}

// token is a mutex.
type token chan struct{}

func (t token) Lock()   { t <- struct{}{} }
func (t token) Unlock() { <-t }

func count(lines []string, line string) (n int) {
	for _, l := range lines {
		if l == line {
			n++
		}
	}
	return n
}

// TestOnlyProgressFeedsTheWatchdog: a process that says that it stands still, or whose
// check hangs, is not fed; when it goes on, it is.
func TestOnlyProgressFeedsTheWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h heard
		mu := make(token, 1) // a bubble waits for channels, not for mutexes
		var stands error
		status := "follower"
		m := &Manager{watchdog: 30 * time.Second, send: h.send, log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			m.Watch(ctx, Watched{
				Check: func(limit time.Duration) error {
					if limit != 10*time.Second {
						t.Errorf("a limit of %v", limit)
					}
					mu.Lock() // held: a check that hangs
					defer mu.Unlock()
					return stands
				},
				Status: func() string {
					mu.Lock()
					defer mu.Unlock()
					return status
				},
			})
		}()
		time.Sleep(61 * time.Second)
		got := h.take()
		if count(got, "WATCHDOG=1") != 6 || count(got, "STATUS=follower") != 1 {
			t.Errorf("a minute of progress: %q", got)
		}
		mu.Lock()
		time.Sleep(time.Minute)
		if got := h.take(); len(got) != 0 {
			t.Errorf("while the check hangs: %q", got)
		}
		stands, status = errors.New("it stands\nstill"), "leader"
		mu.Unlock()
		time.Sleep(time.Minute)
		got = h.take()
		if count(got, "WATCHDOG=1") != 0 || count(got, "STATUS=it stands still") == 0 {
			t.Errorf("without progress: %q", got)
		}
		mu.Lock()
		stands = nil
		mu.Unlock()
		time.Sleep(time.Minute)
		got = h.take()
		if count(got, "WATCHDOG=1") < 5 || count(got, "STATUS=leader") != 1 {
			t.Errorf("with progress again: %q", got)
		}
		mu.Lock()
		time.Sleep(20 * time.Second)
		cancel()
		<-ended // although the check hangs
		mu.Unlock()
	})
}

func TestWithoutAWatchdogTheStatusIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h heard
		m := &Manager{send: h.send, log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		m.Watch(ctx, Watched{
			Check:  func(time.Duration) error { return nil },
			Status: func() string { return strings.Repeat("ä", maxStatus) },
		})
		want := "STATUS=" + strings.Repeat("ä", maxStatus/2)
		if got := h.take(); !slices.Equal(got, []string{want}) {
			t.Errorf("told %q", got)
		}
	})
}

// environment is that of a process whose service manager listens.
func environment(t *testing.T, more ...string) (func(string) string, *net.UnixConn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	vars := map[string]string{"NOTIFY_SOCKET": path}
	for i := 0; i < len(more); i += 2 {
		vars[more[i]] = more[i+1]
	}
	return func(name string) string { return vars[name] }, conn
}

func receive(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	buf := make([]byte, 4096)
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestTheSocketHearsWhatHappens(t *testing.T) {
	env, conn := environment(t, "WATCHDOG_USEC", "30000000", "WATCHDOG_PID",
		strconv.Itoa(os.Getpid()))
	m, err := FromEnvironment(env, slog.New(slog.DiscardHandler))
	if err != nil || m.watchdog != 30*time.Second {
		t.Fatalf("%+v, %v", m, err)
	}
	m.Ready()
	if got := receive(t, conn); got != "READY=1" {
		t.Errorf("ready: %q", got)
	}
	worked := false
	m.Reload(func() {
		worked = true
		got := receive(t, conn)
		if !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") || strings.HasSuffix(got, "=0") {
			t.Errorf("reloading: %q", got)
		}
	})
	if got := receive(t, conn); got != "READY=1" || !worked {
		t.Errorf("reloaded: %q, %v", got, worked)
	}
	m.Stopping()
	if got := receive(t, conn); !strings.HasPrefix(got, "STOPPING=1\n") {
		t.Errorf("stopping: %q", got)
	}
}

// TestASilentServiceManagerHoldsNothingUp fills the queue of a socket that nobody reads.
func TestASilentServiceManagerHoldsNothingUp(t *testing.T) {
	env, _ := environment(t)
	var log bytes.Buffer
	m, err := FromEnvironment(env, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for range 10_000 {
		if m.Ready(); log.Len() > 0 {
			return
		}
	}
	t.Error("a socket that nobody reads takes everything")
}

func TestWithoutAServiceManagerNothingIsTold(t *testing.T) {
	m, err := FromEnvironment(func(string) string { return "" }, nil)
	if m != nil || err != nil {
		t.Fatalf("%v, %v", m, err)
	}
	worked := false
	m.Ready()
	m.Reload(func() { worked = true })
	m.Stopping()
	m.Watch(t.Context(), Watched{})
	if !worked {
		t.Error("the work of a reload is not done")
	}
}

func TestAnotherProcessesWatchdogIsNotOurs(t *testing.T) {
	env, _ := environment(t, "WATCHDOG_USEC", "1000", "WATCHDOG_PID", "1")
	if m, err := FromEnvironment(env, nil); err != nil || m.watchdog != 0 {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestAnAbsurdEnvironmentIsRefused(t *testing.T) {
	for _, bad := range []string{"0", "-1", "x", "99999999999999999999", "86400000001"} {
		env, _ := environment(t, "WATCHDOG_USEC", bad)
		if m, err := FromEnvironment(env, nil); err == nil {
			t.Errorf("%q gives %+v", bad, m)
		}
	}
	relative := func(name string) string { return map[string]string{"NOTIFY_SOCKET": "a"}[name] }
	if m, err := FromEnvironment(relative, nil); err == nil {
		t.Errorf("a relative path gives %+v", m)
	}
}

func FuzzEnvironment(f *testing.F) {
	f.Add("/run/notify", "30000000", "")
	f.Add("@name", "0", "1")
	f.Fuzz(func(t *testing.T, socket, usec, pid string) {
		m, err := FromEnvironment(func(name string) string {
			return map[string]string{
				"NOTIFY_SOCKET": socket, "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid,
			}[name]
		}, nil)
		if m != nil && (err != nil || m.watchdog < 0 || m.watchdog > 24*time.Hour) {
			t.Errorf("%+v, %v", m, err)
		}
	})
}
