package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stages are what the sections of docs/operating.md begin with: a cluster, and what has
// happened to it. The result checks what the commands have led to. Every section with
// commands has one.
var stages = map[string]func(*stage) (check func()){
	"Watch": func(s *stage) func() {
		s.found()
		s.register(s.hosts[0], 1)
		return func() { s.have(1) }
	},
	"Lose a majority": func(s *stage) func() {
		s.found()
		for id := 1; id <= 5; id++ {
			s.register(s.hosts[0], id)
		}
		s.kill(1, 2)
		for _, h := range s.hosts[1:] {
			if err := os.RemoveAll(h.dir); err != nil {
				s.t.Fatal(err)
			}
		}
		return func() { s.have(5) }
	},
	"Save and restore": func(s *stage) func() {
		s.found()
		for id := 1; id <= 5; id++ {
			s.register(s.hosts[0], id)
		}
		return func() { s.have(5) }
	},
}

// block are commands, and the hosts on which they run.
type block struct {
	hosts    []string
	commands string
}

// sections reads the blocks of each section of a document: fenced ones of the language sh.
// The hosts stand behind it.
func sections(t *testing.T, file string) map[string][]block {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]block)
	title, in := "", false
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		blocks := all[title]
		switch {
		case in && strings.HasPrefix(line, "```"):
			in = false
		case in:
			blocks[len(blocks)-1].commands += line
		case strings.HasPrefix(line, "## "):
			title = strings.TrimSpace(line[3:])
		case strings.HasPrefix(line, "```sh"):
			in = true
			all[title] = append(blocks, block{hosts: words[1:]})
		}
	}
	return all
}

func TestOperatingGuide(t *testing.T) {
	guide := sections(t, "../../docs/operating.md")
	for title := range stages {
		if len(guide[title]) == 0 {
			t.Errorf("the guide has no commands for %q", title)
		}
	}
	for title, blocks := range guide {
		t.Run(title, func(t *testing.T) {
			setUp := stages[title]
			if setUp == nil {
				t.Fatal("the commands of this section have no stage")
			}
			s := newStage(t)
			check := setUp(s)
			for _, b := range blocks {
				if len(b.hosts) == 0 {
					t.Errorf("on which host?\n%s", b.commands)
				}
				for _, host := range b.hosts {
					s.run(host, b.commands)
				}
			}
			check()
		})
	}
}

// stage is a cluster whose processes are started and stopped by scripts, as units are.
type stage struct {
	*trio
	dir string
}

// unit is systemctl for the one unit of a host: HOME has its flags, its log and its pid.
const unit = `#!/bin/bash
cd "$HOME"
running() { [ -f pid ] && kill -0 "$(cat pid)" 2>/dev/null; }
case "$1" in
start) running && exit 0
	setsid storage_controller $(cat flags) >>log 2>&1 </dev/null &
	echo $! >pid ;;
stop) running || exit 0
	kill -TERM "$(cat pid)"
	while running; do sleep 0.02; done ;;
*) echo "systemctl $1 is not known"; exit 1 ;;
esac
`

func newStage(t *testing.T) *stage {
	s := &stage{trio: newTrio(t), dir: t.TempDir()}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.write("bin/storage_controller", "#!/bin/bash\n"+asController+"=1 exec "+self+" \"$@\"\n")
	s.write("bin/systemctl", unit)
	if err := os.Mkdir(filepath.Join(s.dir, "backup"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, h := range s.hosts {
		home := filepath.Join(s.dir, h.id)
		h.dir, h.out = filepath.Join(home, "quorate"), filepath.Join(home, "log")
		s.write(h.id+"/flags", strings.Join([]string{
			"--dev", "--listen", strings.TrimPrefix(h.url, "http://"), "--data-dir", h.dir,
			"--server-id", h.id, "--members", s.members(),
		}, " "))
		t.Cleanup(func() { s.signal(h, syscall.SIGKILL) })
	}
	return s
}

func (s *stage) write(name, text string) {
	s.t.Helper()
	name = filepath.Join(s.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700),
		os.WriteFile(name, []byte(text), 0o700)); err != nil {
		s.t.Fatal(err)
	}
}

// signal signals the process of a host, if there is one.
func (s *stage) signal(h *host, with syscall.Signal) (pid int) {
	text, err := os.ReadFile(filepath.Join(s.dir, h.id, "pid"))
	if err != nil {
		return 0
	}
	if pid, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil ||
		syscall.Kill(pid, with) != nil {
		return 0
	}
	return pid
}

// run runs commands on a host: the names of hosts and directories become those of here.
func (s *stage) run(host, commands string) {
	s.t.Helper()
	home := filepath.Join(s.dir, host)
	replace := []string{
		"/var/lib/", home + "/", "/backup/", filepath.Join(s.dir, "backup") + "/",
	}
	for _, h := range s.hosts {
		address := strings.TrimPrefix(h.url, "http://")
		replace = append(replace, h.id+":7000", h.raft, h.id+":1234", address)
		if h.id == host {
			replace = append(replace, "localhost:1234", address)
		}
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c",
		strings.NewReplacer(replace...).Replace(commands))
	cmd.Dir = home
	cmd.Env = append(os.Environ(), "HOME="+home, "PATH="+filepath.Join(s.dir, "bin")+":"+
		os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	s.t.Logf("%s$ %s%s", host, commands, out)
	if err != nil {
		for _, h := range s.hosts {
			log := h.log()
			s.t.Logf("%s:\n%s", h.id, log[max(0, len(log)-4000):])
		}
		s.t.Fatal(err)
	}
}

// found starts a cluster of three.
func (s *stage) found() {
	s.t.Helper()
	for _, h := range s.hosts {
		s.run(h.id, "systemctl start storage_controller\n")
	}
	s.ready(0, 1, 2)
}

// kill ends processes as a crash does.
func (s *stage) kill(which ...int) {
	s.t.Helper()
	for _, i := range which {
		pid := s.signal(s.hosts[i], syscall.SIGKILL)
		s.eventually("killed", func() error {
			if pid != 0 && syscall.Kill(pid, 0) == nil {
				return fmt.Errorf("%d is there", pid)
			}
			return nil
		})
	}
}

// have checks that all three are ready, and know so many pageservers.
func (s *stage) have(nodes int) {
	s.t.Helper()
	s.ready(0, 1, 2)
	for _, h := range s.hosts {
		if n := h.nodes(); n != nodes {
			s.t.Errorf("%s has %d of %d pageservers", h.id, n, nodes)
		}
	}
	if status, text := s.hosts[2].get("/debug/v1/cluster"); status != http.StatusOK ||
		strings.Count(text, `"voter"`)+strings.Count(text, `"leader"`) != 3 {
		s.t.Errorf("the members are %d %s", status, text)
	}
}
