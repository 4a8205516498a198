package main

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAProcessUnderAServiceManager: it tells when it serves, a hang-up is a reload, and a
// stop is told before the process ends.
func TestAProcessUnderAServiceManager(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	hears := func(want string) {
		t.Helper()
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		for buf := make([]byte, 4096); ; {
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatalf("%q is not told: %v", want, err)
			}
			if strings.HasPrefix(string(buf[:n]), want) {
				return
			}
		}
	}
	p := launch(t, []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=600000"}, devFlags...)
	hears("READY=1")
	hears("WATCHDOG=1")
	_ = p.cmd.Process.Signal(syscall.SIGHUP)
	hears("RELOADING=1")
	hears("READY=1")
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	hears("STOPPING=1")
	if code := p.exits(); code != "0" {
		t.Errorf("exits with %s\n%s", code, p.output())
	}
}

func TestAnAbsurdServiceManagerIsRefused(t *testing.T) {
	p := launch(t, []string{"NOTIFY_SOCKET=relative"}, devFlags...)
	if code := p.exits(); code != "1" || !strings.Contains(p.output(), "NOTIFY_SOCKET") {
		t.Errorf("exits with %s\n%s", code, p.output())
	}
}
