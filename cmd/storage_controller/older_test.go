package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"quorate/api/neon"
)

// copyOf copies the directory of a process that does not run.
func (h *host) copyOf() string {
	h.t.Helper()
	to := filepath.Join(h.t.TempDir(), "copy")
	_ = os.Remove(filepath.Join(h.dir, "control.sock"))
	if err := os.CopyFS(to, os.DirFS(h.dir)); err != nil {
		h.t.Fatal(err)
	}
	return to
}

func (h *host) putBack(copied string) {
	h.t.Helper()
	if err := errors.Join(os.RemoveAll(h.dir), os.CopyFS(h.dir, os.DirFS(copied))); err != nil {
		h.t.Fatal(err)
	}
}

// aheadOfC3 is a cluster whose c2 was copied, whose c3 was killed then, and whose c1 and c2
// acknowledged 20 pageservers after both. All are down.
func aheadOfC3(t *testing.T) (c *trio, copied string) {
	c = newTrio(t)
	c.start(0, 1, 2)
	c.ready(0, 1, 2)
	c.register(c.hosts[0], 1)
	c.ready(1)
	c.hosts[1].end(syscall.SIGTERM)
	copied = c.hosts[1].copyOf()
	c.start(1)
	c.ready(1)
	c.hosts[2].end(syscall.SIGKILL)
	for id := 2; id <= 21; id++ {
		c.register(c.hosts[1], id)
	}
	c.eventually("c1 knows how far c2 is", func() error { // once a second
		_, text := c.hosts[0].get("/debug/v1/cluster")
		var known neon.Cluster
		if err := json.Unmarshal([]byte(text), &known); err != nil {
			return err
		}
		for _, m := range known.Members {
			if m.ID == c.hosts[1].id && m.Applied >= 26 {
				return nil
			}
		}
		return errors.New(text)
	})
	c.hosts[1].end(syscall.SIGTERM)
	c.hosts[0].end(syscall.SIGTERM)
	return c, copied
}

// A directory without its log is refused, so that the other two found no lead on it.
func TestALostLogIsRefusedByAProcess(t *testing.T) {
	c, _ := aheadOfC3(t)
	if err := os.Remove(filepath.Join(c.hosts[1].dir, "raft.db")); err != nil {
		t.Fatal(err)
	}
	c.start(1, 2)
	c.hosts[1].ended()
	if log := c.hosts[1].log(); !strings.Contains(log, "raft.db") ||
		!strings.Contains(log, "Never put an older copy") {
		t.Errorf("it says:\n%s", log)
	}
	c.start(0)
	c.ready(0)
	if n := c.hosts[0].nodes(); n != 21 {
		t.Errorf("%d of 21 pageservers", n)
	}
}

// A log that is empty or has a damaged part is refused: it was begun anew, or the last
// change was passed over.
func TestADamagedLogIsRefusedByAProcess(t *testing.T) {
	c := newTrio(t)
	h := c.alone(0, 30)
	h.end(syscall.SIGTERM)
	name := filepath.Join(h.dir, "raft.db")
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	// Each meta page has its transaction id at byte 64 of the page; one of them is newer.
	newest := 0
	if binary.NativeEndian.Uint64(whole[page+64:]) > binary.NativeEndian.Uint64(whole[64:]) {
		newest = page
	}
	spoiled := bytes.Clone(whole)
	spoiled[newest+40] ^= 0xff
	for what, content := range map[string][]byte{"empty": nil, "a damaged meta page": spoiled} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		before := len(h.log())
		h.start()
		h.ended()
		if log := h.log()[before:]; !strings.Contains(log, "raft.db") ||
			!strings.Contains(log, "Never put an older copy") {
			t.Errorf("%s: it says\n%s", what, log)
		}
	}
	if err := os.WriteFile(name, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	h.start()
	c.ready(0)
	if n := h.nodes(); n != 30 {
		t.Errorf("%d of 30 pageservers", n)
	}
}

// An older copy of a disk stops as soon as a member is there that has seen it further.
func TestAnOlderCopyStopsBesideWhoKnowsBetter(t *testing.T) {
	c, copied := aheadOfC3(t)
	c.hosts[1].putBack(copied)
	c.start(0, 1)
	c.hosts[1].ended()
	if log := c.hosts[1].log(); !strings.Contains(log, "gone back") ||
		!strings.Contains(log, "new id") {
		t.Errorf("it says:\n%s", log)
	}
	c.start(2)
	c.ready(0, 2)
	if n := c.hosts[2].nodes(); n != 21 {
		t.Errorf("%d of 21 pageservers", n)
	}
}

// Two members, one of them with an older copy of its disk, elect each other while nobody
// is there who knows better. The third one, when it returns, does not give up what was
// committed on it, and it can be rescued.
func TestWhatWasCommittedIsNotOverwrittenByAnOlderCopy(t *testing.T) {
	c, copied := aheadOfC3(t)
	c.hosts[1].putBack(copied)
	c.start(1, 2)
	c.ready(2)
	for id := 100; id < 130; id++ {
		c.register(c.hosts[2], id)
	}
	c.start(0)
	c.eventually("the older copy or c1 stops", func() error {
		select {
		case <-c.hosts[0].done:
			return nil
		default:
			return errors.New("c1 runs")
		}
	})
	log := c.hosts[0].log()
	if !strings.Contains(log, "Nothing was removed") {
		t.Errorf("c1 says:\n%s", log)
	}
	for _, i := range []int{1, 2} {
		_ = c.hosts[i].cmd.Process.Kill()
		c.hosts[i].ended()
	}
	out, text, code := run(t, "", "rescue", "--data-dir", c.hosts[0].dir, "--yes", "-o", "json")
	var done struct{ Nodes int }
	if err := json.Unmarshal([]byte(out), &done); err != nil || code != 0 || done.Nodes != 21 {
		t.Error(fmt.Sprint(code, " ", out, text))
	}
}
