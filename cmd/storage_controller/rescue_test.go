package main

import (
	"encoding/json"
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

// lostMajority is a cluster of three with 20 pageservers and a shard, whose second and
// third member were killed after the first one was restarted with all of it.
func lostMajority(t *testing.T) (c *trio, generation int) {
	c = newTrio(t)
	c.start(0, 1, 2)
	c.ready(0, 1, 2)
	for id := 1; id <= 20; id++ {
		c.register(c.hosts[0], id)
	}
	generation = c.issue(c.hosts[0], 1)
	c.hosts[1].end(syscall.SIGKILL)
	c.hosts[2].end(syscall.SIGKILL)
	return c, generation
}

// The state of a survivor becomes a cluster of one, of its whole log, and what is left of
// the old cluster does it no harm.
func TestASurvivorIsRescued(t *testing.T) {
	c, generation := lostMajority(t)
	h := c.hosts[0]
	if _, text, code := run(t, "", "rescue", "--data-dir", h.dir, "--yes"); code == 0 ||
		!strings.Contains(text, "in use") {
		t.Fatalf("rescued while it runs: %d %s", code, text)
	}
	h.end(syscall.SIGKILL)
	if _, text, code := run(t, "yes\n", "rescue", "--data-dir", h.dir); code == 0 ||
		!strings.Contains(text, "nothing was changed") || !strings.Contains(text, "LOST") {
		t.Fatalf("rescued without the id: %d %s", code, text)
	}
	old, err := os.ReadFile(filepath.Join(h.dir, "cluster_id"))
	if err != nil {
		t.Fatal(err)
	}
	out, text, code := run(t, string(old), "rescue", "--data-dir", h.dir, "-o", "json")
	var done struct {
		NewClusterID string `json:"new_cluster_id"`
		Nodes        int
		Aside        string
		LastIndex    int `json:"last_index"`
	}
	if err := json.Unmarshal([]byte(out), &done); err != nil || code != 0 || done.Nodes != 20 ||
		done.LastIndex < 21 {
		t.Fatalf("rescue: %d %v\n%s\n%s", code, err, out, text)
	}
	if kept, err := os.ReadFile(filepath.Join(done.Aside, "cluster_id")); err != nil ||
		string(kept) != string(old) {
		t.Errorf("the old content is not kept: %q, %v", kept, err)
	}
	c.start(0)
	c.ready(0)
	if n := h.nodes(); n != 20 {
		t.Errorf("%d pageservers after the rescue", n)
	}
	if g := c.issue(h, 1); g <= generation+1<<16 {
		t.Errorf("generation %d was issued after %d", g, generation)
	}

	// The others return, with their disks: they are a majority of the old cluster.
	c.start(1, 2)
	for _, i := range []int{1, 2} {
		c.hosts[i].ended()
		if log := c.hosts[i].log(); !strings.Contains(log, "was ended by a rescue") {
			t.Errorf("%s ended and does not say why:\n%s", c.hosts[i].id, log)
		}
	}
	// Emptied, they join.
	for _, i := range []int{1, 2} {
		other := c.hosts[i]
		if err := os.RemoveAll(other.dir); err != nil {
			t.Fatal(err)
		}
		c.start(i)
		c.eventually("join", func() error {
			if _, text, code := run(t, "", "members", "add", other.id, other.raft, "--data-dir",
				h.dir); code != 0 {
				return fmt.Errorf("%d %s", code, text)
			}
			return nil
		})
		c.ready(i)
		if n := other.nodes(); n != 20 {
			t.Errorf("%s has %d pageservers", other.id, n)
		}
	}
	h.end(syscall.SIGKILL)
	c.register(c.hosts[1], 21)
}

// A cluster that has a majority is not rescued away.
func TestALivingClusterIsNotRescued(t *testing.T) {
	c := newTrio(t)
	c.start(0, 1, 2)
	c.ready(0, 1, 2)
	c.register(c.hosts[0], 1)
	c.hosts[0].end(syscall.SIGTERM)
	_, text, code := run(t, "", "rescue", "--data-dir", c.hosts[0].dir, "--yes")
	if code == 0 || !strings.Contains(text, "other members answer") {
		t.Fatalf("%d %s", code, text)
	}
	c.start(0)
	c.ready(0)
	c.register(c.hosts[0], 2)
}

func TestRescueNeedsAState(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Join(dir, "missing")} {
		if _, text, code := run(t, "", "rescue", "--data-dir", d, "--yes"); code != 1 {
			t.Errorf("%s: %d %s", d, code, text)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "missing")); err == nil {
		t.Error("the directory was made")
	}
	if _, text, code := run(t, "", "rescue", "--data-dir", dir, "-o", "yaml"); code != 2 {
		t.Errorf("yaml: %d %s", code, text)
	}
}

// One of the dead ones that comes back alone does not serve, and learns why.
func TestOneThatReturnsAfterARescueStops(t *testing.T) {
	c, _ := lostMajority(t)
	c.hosts[0].end(syscall.SIGKILL)
	if _, text, code := run(t, "", "rescue", "--data-dir", c.hosts[0].dir, "--yes"); code != 0 {
		t.Fatalf("%d %s", code, text)
	}
	c.start(0, 2)
	c.hosts[2].ended()
	c.ready(0)
	if status, _ := c.hosts[2].get("/ready"); status == http.StatusOK {
		t.Error("the returning one serves")
	}
}

// A snapshot says how old it is, and is not saved from a survivor that was restarted.
func TestASavedSnapshotSaysHowOldItIs(t *testing.T) {
	c := newTrio(t)
	c.start(0, 1, 2)
	c.ready(0, 1, 2)
	for id := 1; id <= 20; id++ {
		c.register(c.hosts[0], id)
	}
	h := c.hosts[0]
	file := filepath.Join(t.TempDir(), "saved")
	out, text, code := run(t, "", "snapshot", "save", file, "--data-dir", h.dir)
	if code != 0 || !strings.Contains(out, "saved "+file) ||
		!strings.Contains(out, "the leader is c") || !strings.Contains(out, "on the disk") {
		t.Fatalf("%d %s%s", code, out, text)
	}
	if out, text, code := run(t, "", "snapshot", "inspect", file); code != 0 ||
		!strings.Contains(out, "pageservers  20") {
		t.Errorf("%d %s%s", code, out, text)
	}
	for id := 21; id <= 25; id++ {
		c.register(h, id)
	}
	for _, x := range c.hosts {
		x.end(syscall.SIGKILL)
	}
	c.start(0)
	c.eventually("the control socket", func() error {
		_, text, code := run(t, "", "members", "list", "--data-dir", h.dir)
		if code != 0 {
			return errors.New(text)
		}
		return nil
	})
	second := file + "2"
	if _, text, code := run(t, "", "snapshot", "save", second, "--data-dir", h.dir); code != 1 ||
		!strings.Contains(text, "no leader is known") || !strings.Contains(text, "would be missing") {
		t.Errorf("%d %s", code, text)
	}
	if _, err := os.Stat(second); err == nil {
		t.Error("an old state was saved")
	}
	out, text, code = run(t, "", "snapshot", "save", second, "--data-dir", h.dir, "--stale", "-o",
		"json")
	var info struct{ Missing int }
	if err := json.Unmarshal([]byte(out), &info); err != nil || code != 0 || info.Missing == 0 {
		t.Errorf("%d %s%s", code, out, text)
	}
}

// restored is c1 with the state of five pageservers from a snapshot, as a cluster of one.
func (c *trio) restored() *host {
	c.t.Helper()
	h := c.alone(0, 5)
	file := filepath.Join(c.t.TempDir(), "saved")
	if _, text, code := run(c.t, "", "snapshot", "save", file, "--data-dir", h.dir); code != 0 {
		c.t.Fatal(text)
	}
	h.end(syscall.SIGTERM)
	if err := os.RemoveAll(h.dir); err != nil {
		c.t.Fatal(err)
	}
	if _, text, code := run(c.t, "", "snapshot", "restore", file, "--data-dir", h.dir,
		"--server-id", h.id, "--raft-listen", h.raft); code != 0 {
		c.t.Fatal(text)
	}
	return h
}

// A replica that was restored from a snapshot does not follow its former neighbours, which
// are empty and are told to found a cluster with it. They found none.
func TestARestoredProcessIsNotCaptured(t *testing.T) {
	c := newTrio(t)
	h := c.restored()
	c.start(1, 2, 0)
	c.ready(0)
	<-time.After(2 * time.Second) // they had founded one within half a second
	c.register(h, 6)
	if n := h.nodes(); n != 6 {
		t.Errorf("%d of 6 pageservers", n)
	}
	for _, other := range c.hosts[1:] {
		if status, _ := other.get("/ready"); status == http.StatusOK {
			t.Errorf("%s is ready", other.id)
		}
	}
	h.end(syscall.SIGTERM)
	c.start(0)
	c.ready(0)
	if n := h.nodes(); n != 6 {
		t.Errorf("%d of 6 pageservers after a restart", n)
	}
}

// Nor does it follow them when they have founded an empty cluster of the same names before.
func TestARestoredProcessStaysOutOfANewCluster(t *testing.T) {
	c := newTrio(t)
	h := c.restored()
	aside := h.dir + ".aside"
	if err := os.Rename(h.dir, aside); err != nil {
		t.Fatal(err)
	}
	c.start(0, 1, 2)
	c.ready(0, 1, 2)
	h.end(syscall.SIGTERM)
	c.register(c.hosts[1], 1)
	if err := errors.Join(os.RemoveAll(h.dir), os.Rename(aside, h.dir)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // also after a restart
		c.start(0)
		c.ready(0)
		c.register(h, 6)
		c.register(c.hosts[1], 2)
		if a, b := h.nodes(), c.hosts[2].nodes(); a != 6 || b != 2 {
			t.Errorf("%d of 6 pageservers, and %d of 2 in the other cluster", a, b)
		}
		h.end(syscall.SIGTERM)
	}
}
