package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"quorate/testcluster"
)

// trio are three processes of one cluster, each with a directory and ports that stay.
type trio struct {
	t     *testing.T
	hosts []*host
}

type host struct {
	t                  *testing.T
	id, dir, raft, url string
	cmd                *exec.Cmd
	done               chan struct{}
	out                string // the file with its output
	extra              []string
}

func newTrio(t *testing.T, extra ...string) *trio { return newHosts(t, 3, extra...) }

// newHosts are places for n processes. The first three found a cluster.
func newHosts(t *testing.T, n int, extra ...string) *trio {
	c := &trio{t: t}
	for i := range n {
		dir := t.TempDir()
		c.hosts = append(c.hosts, &host{
			t: t, id: "c" + strconv.Itoa(i+1), dir: filepath.Join(dir, "data"),
			raft: "127.0.0.1:" + strconv.Itoa(freePort(t)),
			url:  "http://127.0.0.1:" + strconv.Itoa(freePort(t)), out: filepath.Join(dir, "log"),
			extra: extra,
		})
	}
	return c
}

// members are what --members says.
func (c *trio) members() string {
	var list []string
	for _, h := range c.hosts[:3] {
		list = append(list, h.id+"="+h.raft)
	}
	return strings.Join(list, ",")
}

// start starts these processes with the flags of a cluster of three.
func (c *trio) start(which ...int) {
	c.t.Helper()
	for _, i := range which {
		c.hosts[i].start("--members", c.members())
	}
}

func (c *trio) ready(which ...int) {
	c.t.Helper()
	for _, i := range which {
		h := c.hosts[i]
		c.eventually(h.id+" is ready", func() error {
			if status, body := h.get("/ready"); status != http.StatusOK {
				return fmt.Errorf("%d %s", status, body)
			}
			return nil
		})
	}
}

func (c *trio) eventually(what string, ok func() error) {
	c.t.Helper()
	deadline, tick := time.After(40*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			for _, h := range c.hosts {
				log := h.log()
				c.t.Logf("%s:\n%s", h.id, log[max(0, len(log)-4000):])
			}
			c.t.Fatalf("%s: %v", what, err)
		case <-tick.C:
		}
	}
}

// program is this test's binary, or another one, such as of an older version, to see what
// was wrong with it.
func program(t *testing.T) string {
	t.Helper()
	if other := os.Getenv(testcluster.ControllerVariable); other != "" {
		return other
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return self
}

func (h *host) start(args ...string) {
	h.t.Helper()
	log, err := os.OpenFile(h.out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	defer log.Close()
	args = append([]string{
		"--dev", "--listen", strings.TrimPrefix(h.url, "http://"), "--data-dir", h.dir,
		"--server-id", h.id, "--raft-listen", h.raft,
	}, append(args, h.extra...)...)
	cmd, done := exec.Command(program(h.t), args...), make(chan struct{})
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, filepath.Dir(h.out)
	cmd.Env = append(os.Environ(), asController+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() { _ = cmd.Wait(); close(done) }()
	h.cmd, h.done = cmd, done
	h.t.Cleanup(func() { _ = cmd.Process.Kill(); <-done })
}

// end sends a signal and waits for the end.
func (h *host) end(s syscall.Signal) {
	h.t.Helper()
	_ = h.cmd.Process.Signal(s)
	h.ended()
}

func (h *host) ended() {
	h.t.Helper()
	select {
	case <-h.done:
	case <-time.After(30 * time.Second):
		h.t.Fatalf("%s does not end\n%s", h.id, h.log())
	}
}

func (h *host) log() string {
	b, _ := os.ReadFile(h.out)
	return string(b)
}

func (h *host) get(path string) (int, string) { return h.send(http.MethodGet, path, "") }

func (h *host) send(method, path, body string) (int, string) {
	req, err := http.NewRequestWithContext(h.t.Context(), method, h.url+path,
		strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

// register makes an acknowledged write: a pageserver with this id.
func (c *trio) register(h *host, id int) {
	c.t.Helper()
	c.eventually("a write", func() error {
		status, text := h.send(http.MethodPost, "/control/v1/node", fmt.Sprintf(`{"node_id":%d,
			"listen_pg_addr":"127.0.0.1","listen_pg_port":1,"listen_http_addr":"127.0.0.1","listen_http_port":%d,
			"availability_zone_id":"a"}`, id, id))
		if status != http.StatusOK {
			return fmt.Errorf("%d %s", status, text)
		}
		return nil
	})
}

// nodes counts the pageservers that a process knows.
func (h *host) nodes() int {
	status, text := h.get("/control/v1/node")
	var list []json.RawMessage
	if status != http.StatusOK || json.Unmarshal([]byte(text), &list) != nil {
		return -1
	}
	return len(list)
}

const someShard = "00112233445566778899aabbccddeeff"

// issue issues the next generation of a shard.
func (c *trio) issue(h *host, node int) (generation int) {
	c.t.Helper()
	c.eventually("a generation", func() error {
		status, text := h.send(http.MethodPost, "/debug/v1/attach-hook",
			fmt.Sprintf(`{"tenant_shard_id":%q,"node_id":%d}`, someShard, node))
		var answer struct{ Gen int }
		if status != http.StatusOK || json.Unmarshal([]byte(text), &answer) != nil {
			return fmt.Errorf("%d %s", status, text)
		}
		generation = answer.Gen
		return nil
	})
	return generation
}

// run runs a command of the program and returns what it says.
func run(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program(t), args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	cmd.Env = append(os.Environ(), asController+"=1")
	_ = cmd.Run()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}
