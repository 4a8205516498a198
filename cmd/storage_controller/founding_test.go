package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// alone starts a process that founds a cluster of one, and makes writes to it.
func (c *trio) alone(i, nodes int) *host {
	c.t.Helper()
	h := c.hosts[i]
	h.start()
	c.ready(i)
	for id := 1; id <= nodes; id++ {
		c.register(h, id)
	}
	return h
}

// says waits until a process has said something.
func (c *trio) says(i int, text string) {
	c.t.Helper()
	c.eventually(c.hosts[i].id+" says "+text, func() error {
		if !strings.Contains(c.hosts[i].log(), text) {
			return errors.New("it does not")
		}
		return nil
	})
}

// members runs a command about members on the machine of a process.
func (h *host) members(args ...string) (text string, code int) {
	h.t.Helper()
	out, errs, code := run(h.t, "", append(append([]string{"members"}, args...), "--data-dir",
		h.dir)...)
	return out + errs, code
}

// Two members with wiped disks found nothing, whether the third one is away or there. It
// keeps the state, and can be rescued.
func TestWipedProcessesFoundNothing(t *testing.T) {
	c := newTrio(t)
	c.start(0, 1, 2)
	c.ready(0, 1, 2)
	for id := 1; id <= 5; id++ {
		c.register(c.hosts[2], id)
	}
	if n := c.hosts[2].nodes(); n != 5 { // it has what the others acknowledged
		t.Fatalf("%d of 5 pageservers", n)
	}
	for _, h := range c.hosts {
		h.end(syscall.SIGKILL)
	}
	for _, h := range c.hosts[:2] {
		if err := os.RemoveAll(h.dir); err != nil {
			t.Fatal(err)
		}
	}
	c.start(0, 1)
	c.says(0, "c3 at "+c.hosts[2].raft+" cannot be asked")
	c.says(1, "c3 at "+c.hosts[2].raft+" cannot be asked")
	c.start(2)
	c.says(0, "with another disk")
	c.says(1, "with another disk")
	// They had elected each other within half a second.
	<-time.After(2 * time.Second)
	for _, h := range c.hosts[:2] {
		if status, text := h.get("/ready"); status == http.StatusOK {
			t.Errorf("%s is ready without a state: %s", h.id, text)
		}
		if _, err := os.Stat(filepath.Join(h.dir, "cluster_id")); err == nil {
			t.Errorf("%s is of a cluster", h.id)
		}
		h.end(syscall.SIGKILL)
	}
	third := c.hosts[2]
	third.end(syscall.SIGKILL)
	if _, text, code := run(t, "", "rescue", "--data-dir", third.dir, "--yes"); code != 0 {
		t.Fatalf("rescue: %d %s", code, text)
	}
	c.start(2)
	c.ready(2)
	if n := third.nodes(); n != 5 {
		t.Errorf("%d of 5 pageservers are left", n)
	}
}

// A process with the state of a cluster of one is restarted with the flags of three. It says
// that it ignores them, goes on as it was, and the others wait until they are added.
func TestFlagsThatContradictTheDiskAreSaidToBeIgnored(t *testing.T) {
	c := newTrio(t)
	h := c.alone(0, 5)
	restart := func(flag, line, reason string, args ...string) {
		t.Helper()
		h.end(syscall.SIGTERM)
		before := len(h.log())
		h.start(args...)
		c.ready(0)
		var said []string
		for text := range strings.Lines(h.log()[before:]) {
			if strings.Contains(text, line) {
				said = append(said, text)
			}
		}
		if len(said) != 1 || !strings.Contains(said[0], "WARN") ||
			!strings.Contains(said[0], reason) || !strings.Contains(said[0], "way_out") {
			t.Errorf("%s: it says %q", flag, said)
		}
		if n := h.nodes(); n != 5 {
			t.Errorf("%s: %d of 5 pageservers", flag, n)
		}
	}
	const ignored = "has state already: --members and --bootstrap-expect are ignored"
	restart("--bootstrap-expect", ignored, "3 are expected", "--bootstrap-expect", "3",
		"--gossip-listen", "127.0.0.1:0")
	restart("--join", "has state already: --join is ignored", c.hosts[1].raft, "--join",
		c.hosts[1].raft)
	restart("--members", ignored, "c2 is no member; c3 is no member", "--members", c.members())

	c.start(1, 2)
	for _, i := range []int{1, 2} {
		c.says(i, "c1 has state of cluster")
		if status, _ := c.hosts[i].get("/ready"); status == http.StatusOK {
			t.Errorf("%s is ready", c.hosts[i].id)
		}
	}
	c.register(h, 6)
	for _, i := range []int{1, 2} {
		if text, code := h.members("add", c.hosts[i].id, c.hosts[i].raft); code != 0 {
			t.Fatal(text)
		}
		c.ready(i)
		if n := c.hosts[i].nodes(); n != 6 {
			t.Errorf("%s has %d of 6 pageservers", c.hosts[i].id, n)
		}
	}
	// Now the flags are right.
	h.end(syscall.SIGTERM)
	before := len(h.log())
	c.start(0)
	c.ready(0)
	if log := h.log()[before:]; strings.Contains(log, ignored) {
		t.Errorf("it still says:\n%s", log)
	}
}

// Flags that would make another server of a disk, or of another cluster, are refused.
func TestFlagsThatContradictTheDiskAreRefused(t *testing.T) {
	c := newTrio(t)
	h := c.alone(0, 1)
	c.alone(1, 2)
	h.end(syscall.SIGTERM)
	for want, args := range map[string][]string{
		"--join":       {"--join", c.hosts[1].raft},
		"cluster":      {"--cluster-id", "another"},
		"of server":    {"--server-id", "c9"},
		"give one of ": {"--join", c.hosts[1].raft, "--members", c.members()},
	} {
		before := len(h.log())
		h.start(args...)
		h.ended()
		if code := h.cmd.ProcessState.ExitCode(); code == 0 {
			t.Errorf("%q: it ended with %d", args, code)
		}
		if log := h.log()[before:]; !strings.Contains(log, want) {
			t.Errorf("%q: it says\n%s", args, log)
		}
	}
	h.start()
	c.ready(0)
	if n := h.nodes(); n != 1 {
		t.Errorf("%d of 1 pageservers", n)
	}
}

// A process with a cluster of its own is not taken for an empty one, nor is one that runs
// under another id, and nothing is left of the attempt.
func TestAProcessWithAClusterOfItsOwnIsNotAdded(t *testing.T) {
	c := newTrio(t)
	h := c.alone(0, 3)
	c.alone(1, 1)
	c.hosts[2].start("--join", h.raft)
	c.says(2, "waiting for an invitation")
	for want, args := range map[string][]string{
		"of another cluster":       {"c2", c.hosts[1].raft},
		"another server answers":   {"c4", c.hosts[2].raft},
		"start it on an empty":     {"c2", c.hosts[1].raft},
		"--server-id c9 --raft-li": {"c9", "127.0.0.1:1"},
	} {
		begun := time.Now()
		if text, code := h.members(append([]string{"add"}, args...)...); code == 0 ||
			!strings.Contains(text, want) {
			t.Errorf("%q: %d %s", args, code, text)
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("%q: %s", args, took)
		}
	}
	if text, _ := h.members("list", "-o", "json"); strings.Count(text, `"role"`) != 1 {
		t.Errorf("the members are %s", text)
	}
	c.register(h, 4)
	if a, b := h.nodes(), c.hosts[1].nodes(); a != 4 || b != 1 {
		t.Errorf("they have %d of 4 and %d of 1 pageservers", a, b)
	}
}

// Leadership is handed over and said so, also to programs.
func TestLeadershipIsHandedOver(t *testing.T) {
	c := newTrio(t)
	h := c.alone(0, 1)
	c.hosts[1].start("--join", h.raft)
	c.eventually("c2 is added", func() error {
		if text, code := h.members("add", "c2", c.hosts[1].raft); code != 0 {
			return errors.New(text)
		}
		return nil
	})
	out, text, code := run(t, "", "transfer-leader", "--to", "c2", "-o", "json", "--data-dir", h.dir)
	if code != 0 || strings.Join(strings.Fields(out), "") != `{"to":"c2"}` {
		t.Fatalf("%d %s %s", code, out, text)
	}
	c.eventually("c2 leads", func() error {
		if _, text := c.hosts[1].get("/healthz?role=leader"); !strings.Contains(text, `"leader"`) {
			return errors.New(text)
		}
		return nil
	})
	if out, text, code := run(t, "", "transfer-leader", "-o", "xml", "--data-dir",
		h.dir); code != 2 {
		t.Errorf("%d %s%s", code, out, text)
	}
	out, text, code = run(t, "", "transfer-leader", "--data-dir", c.hosts[1].dir)
	if code != 0 || out != "Leadership was handed over\n" {
		t.Error(fmt.Sprint(code, out, text))
	}
}
