package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// series waits until a process shows this line among its metrics.
func (c *trio) series(h *host, line string) {
	c.t.Helper()
	c.eventually(h.id+" shows "+line, func() error {
		if _, text := h.get("/metrics"); !strings.Contains(text, "\nstorage_controller_"+line+"\n") {
			return errors.New("it does not")
		}
		return nil
	})
}

// A dead voter and a lost majority are in the metrics and the log. While one voter is dead
// no healthy one can be removed, and the dead one can. One that was removed is not ready.
func TestADeadVoterIsSeenAndNoHealthyOneIsRemoved(t *testing.T) {
	c := newTrio(t)
	c.start(0, 1, 2)
	c.ready(0, 1, 2)
	lead, other := 0, 1
	c.eventually("one leads", func() error {
		for i := range c.hosts {
			if _, text := c.hosts[i].get("/healthz?role=leader"); strings.Contains(text, `"leader"`) {
				lead, other = i, (i+1)%3
				return nil
			}
		}
		return errors.New("none")
	})
	h, healthy, dead := c.hosts[lead], c.hosts[other], c.hosts[3-lead-other]
	connected := fmt.Sprintf(`raft_member_connected{member=%q} `, dead.id)
	c.series(h, connected+"1")
	dead.end(syscall.SIGKILL)
	c.series(h, connected+"0")
	c.says(lead, "WARN a member is gone")
	if text, code := h.members("remove", healthy.id); code == 0 ||
		!strings.Contains(text, "majority") || !strings.Contains(text, dead.id) {
		t.Errorf("a healthy voter beside a dead one: %d %s", code, text)
	}
	c.register(h, 1)

	if err := healthy.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	c.series(h, "raft_majority_connected 0")
	if err := healthy.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	c.series(h, "raft_majority_connected 1")
	for _, x := range []*host{dead, healthy} {
		c.eventually("remove "+x.id, func() error {
			for _, at := range []*host{h, healthy} {
				if _, code := at.members("remove", x.id); code == 0 {
					return nil
				}
			}
			return errors.New("refused")
		})
		if x == dead {
			continue
		}
		c.eventually("one that was removed is not ready", func() error {
			if status, text := x.get("/ready"); status != http.StatusServiceUnavailable ||
				!strings.Contains(text, "removed") {
				return fmt.Errorf("%d %s", status, text)
			}
			return nil
		})
	}
	c.register(h, 2)
}

// Bodies that never come hold nobody up. Sixteen had stopped every request with a body.
func TestIdleBodiesHoldNoRequestUp(t *testing.T) {
	c := newTrio(t)
	h := c.alone(0, 1)
	for range 64 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := fmt.Fprintf(conn, "POST /upcall/v1/validate HTTP/1.1\r\nHost: x\r\n"+
			"Transfer-Encoding: chunked\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	if status, text := h.send(http.MethodPost, "/upcall/v1/re-attach",
		`{"node_id":1}`); status != http.StatusOK {
		t.Errorf("after %s: %d %s", time.Since(begun), status, text)
	}
}

// Probes take HEAD, and a data directory with a long path has a control socket.
func TestALongDataDirectoryAndHead(t *testing.T) {
	c := newTrio(t)
	h := c.hosts[0]
	h.dir = filepath.Join(h.dir, strings.Repeat("long", 44))
	c.alone(0, 1)
	if text, code := h.members("list", "-o", "json"); code != 0 ||
		!strings.Contains(text, `"role": "leader"`) {
		t.Errorf("%d %s", code, text)
	}
	for _, path := range []string{"/status", "/live", "/ready", "/healthz"} {
		if status, _ := h.send(http.MethodHead, path, ""); status != http.StatusOK {
			t.Errorf("HEAD %s: %d", path, status)
		}
	}
}
