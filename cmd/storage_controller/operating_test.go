package main

import (
	"context"
	"encoding/json"
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

	"quorate/api/neon"
)

// stages are what the sections of docs/operating.md begin with: a cluster, and what has
// happened to it. The result checks what the commands have led to. Every section with
// commands has one.
var stages = map[string]func(*stage) (check func()){
	"Found": func(s *stage) func() {
		return func() {
			s.register(s.hosts[1], 1)
			s.have(1, 0, 1, 2)
			if log := s.hosts[0].log(); strings.Count(log, "founded the cluster") != 1 {
				s.t.Errorf("c1 has not founded it once:\n%s", log)
			}
		}
	},
	"Watch": func(s *stage) func() {
		s.found(1)
		return func() { s.have(1, 0, 1, 2) }
	},
	"Grow": func(s *stage) func() {
		s.flags(s.hosts[0], "--server-id c1 --raft-listen "+s.hosts[0].raft)
		s.systemctl(s.hosts[0], "start")
		s.register(s.hosts[0], 1)
		return func() {
			s.have(1, 0, 1, 2, 3, 4)
			s.kill(0, 1) // five survive two deaths
			s.register(s.hosts[4], 2)
			s.systemctl(s.hosts[0], "start")
			s.systemctl(s.hosts[1], "start")
			s.have(2, 0, 1, 2, 3, 4)
		}
	},
	"Replace": func(s *stage) func() {
		s.found(3)
		s.kill(2)
		return func() {
			s.have(3, 0, 3, 4)
			s.register(s.hosts[3], 4)
			s.have(4, 0, 3, 4)
			// The one that was dead comes back with its disk, and stays out.
			s.systemctl(s.hosts[2], "start")
			s.eventually("c3 hears that it was removed", func() error {
				if _, text := s.hosts[2].get("/ready"); !strings.Contains(text, "removed") {
					return errors.New(text)
				}
				return nil
			})
			s.have(4, 0, 3, 4)
		}
	},
	"Shrink": func(s *stage) func() {
		s.found(3)
		return func() {
			s.register(s.hosts[0], 4)
			s.have(4, 0)
		}
	},
	"Upgrade": func(s *stage) func() {
		s.found(3)
		s.write("release/storage_controller",
			"#!/bin/bash\ntouch upgraded\nexec "+s.program+" \"$@\"\n")
		return func() {
			s.have(3, 0, 1, 2)
			for _, h := range s.hosts[:3] {
				if _, err := os.Stat(filepath.Join(s.dir, h.id, "upgraded")); err != nil {
					s.t.Errorf("%s runs the old version: %v", h.id, err)
				}
			}
		}
	},
	"Rotate certificates": func(s *stage) func() {
		s.runAll(s.guide["Found"])
		s.register(s.hosts[0], 1)
		return func() {
			s.have(1, 0, 1, 2)
			for _, h := range s.hosts[:3] {
				if log := h.log(); strings.Contains(log, "ERROR") {
					s.t.Errorf("%s:\n%s", h.id, log)
				}
			}
		}
	},
	"Lose a majority": func(s *stage) func() {
		s.found(5)
		s.kill(1, 2)
		for _, h := range s.hosts[1:] {
			if err := os.RemoveAll(h.dir); err != nil {
				s.t.Fatal(err)
			}
		}
		return func() { s.have(5, 0, 1, 2) }
	},
	"Save and restore": func(s *stage) func() {
		s.found(5)
		return func() { s.have(5, 0, 1, 2) }
	},
}

// block are commands, and the hosts on which they run.
type block struct {
	hosts    []string
	commands string
}

// sections reads the blocks of each section of a document: fenced ones of the language sh.
// In the guide the hosts stand behind it.
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
			t.Parallel() // they mostly wait
			setUp := stages[title]
			if setUp == nil {
				t.Fatal("the commands of this section have no stage")
			}
			s := newStage(t, guide)
			check := setUp(s)
			s.runAll(blocks)
			check()
		})
	}
}

// stage is a cluster whose processes are started and stopped by scripts, as units are.
type stage struct {
	*trio
	guide   map[string][]block
	dir     string            // with the home of each host
	program string            // storage_controller
	moved   map[string]string // to which address of its own a host can move, by its id
}

// unit is systemctl for the unit of a host: HOME has what it reads, its log and its pid.
const unit = `#!/bin/bash
cd "$HOME"
running() { [ -f pid ] && kill -0 "$(cat pid)" 2>/dev/null; }
read_in() { [ ! -f "etc/quorate/$1" ] || sed -n 's/^[A-Z]*=//p' "etc/quorate/$1"; }
start() { running && return
	setsid storage_controller --data-dir "$HOME/quorate" $(read_in serving) $(read_in cluster) \
		$(read_in peers) >>log 2>&1 </dev/null &
	echo $! >pid; }
stop() { running || return
	kill -TERM "$(cat pid)"
	while running; do sleep 0.02; done; }
case "$1" in
start) start ;;
stop) stop ;;
restart) stop; start ;;
*) echo "systemctl $1 is not known"; exit 1 ;;
esac
exit 0
`

// journal is journalctl for this unit.
const journal = "#!/bin/bash\ncat \"$HOME/log\"\n"

// scp copies files to another host. The paths have been made those of this one.
const scp = `#!/bin/bash
to="${!#}"
path="${to#*:}"
cp "${@:1:$#-1}" "$(dirname "$HOME")/${to%%:*}${path#"$HOME"}"
`

func newStage(t *testing.T, guide map[string][]block) *stage {
	s := &stage{
		trio: newHosts(t, 5), guide: guide, dir: t.TempDir(), moved: make(map[string]string),
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.program = filepath.Join(s.dir, "bin/storage_controller")
	s.write("bin/storage_controller", "#!/bin/bash\n"+asController+"=1 exec "+self+" \"$@\"\n")
	s.write("bin/storcon_cli", "#!/bin/bash\n"+asClient+"=1 exec "+self+" \"$@\"\n")
	s.write("bin/systemctl", unit)
	s.write("bin/journalctl", journal)
	s.write("bin/scp", scp)
	for _, dir := range []string{"admin", "backup"} {
		if err := os.Mkdir(filepath.Join(s.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range s.hosts {
		home := filepath.Join(s.dir, h.id)
		h.dir, h.out = filepath.Join(home, "quorate"), filepath.Join(home, "log")
		s.moved[h.id] = "127.0.0.1:" + strconv.Itoa(freePort(t))
		s.write(h.id+"/etc/quorate/serving", "SERVING=--dev --ssl-cert-reload-period 100ms --listen "+
			strings.TrimPrefix(h.url, "http://")+"\n")
		if err := os.MkdirAll(filepath.Join(home, "bin"), 0o700); err != nil {
			t.Fatal(err)
		}
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

// flags are those of a host about its cluster.
func (s *stage) flags(h *host, flags string) {
	s.t.Helper()
	s.write(h.id+"/etc/quorate/cluster", "CLUSTER="+flags+"\n")
}

func (s *stage) systemctl(h *host, what string) {
	s.t.Helper()
	s.run(h.id, "systemctl "+what+" storage_controller\n")
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

// here makes the names of hosts and directories in commands those of this machine.
func (s *stage) here(host, commands string) string {
	home := filepath.Join(s.dir, host)
	replace := []string{
		"/var/lib/", home + "/", "/etc/", home + "/etc/", "/usr/local/", home + "/",
		"/mnt/", s.dir + "/", "/backup/", filepath.Join(s.dir, "backup") + "/",
	}
	for _, h := range s.hosts {
		address := strings.TrimPrefix(h.url, "http://")
		replace = append(replace, h.id+":7000", h.raft, h.id+":7001", s.moved[h.id],
			h.id+":1234", address)
		if h.id == host {
			replace = append(replace, "localhost:1234", address, "$HOSTNAME:7000", h.raft)
		}
	}
	return strings.NewReplacer(replace...).Replace(commands)
}

// README's "Three" are commands for one machine. The ports are other ones here.
func TestReadmeRunsThree(t *testing.T) {
	blocks := sections(t, "../../README.md")["Run it"]
	if len(blocks) != 1 || !strings.Contains(blocks[0].commands, "--members") {
		t.Fatalf("the commands of README's Three are %q", blocks)
	}
	s := newStage(t, nil)
	ports := func(of func(h *host) string) (out []string) {
		for _, h := range s.hosts[:3] {
			_, port, _ := strings.Cut(of(h), ":")
			out = append(out, port)
		}
		return out
	}
	http := ports(func(h *host) string { return strings.TrimPrefix(h.url, "http://") })
	raft := ports(func(h *host) string { return h.raft })
	replace := []string{
		"123$i", "${http[i]}", "123$other", "${http[other]}", "223$i", "${raft[i]}",
	}
	for i := range 3 {
		replace = append(replace, fmt.Sprint(1231+i), http[i], fmt.Sprint(2231+i), raft[i])
	}
	commands := fmt.Sprintf("http=(0 %s) raft=(0 %s)\n%s\njobs -p\n", strings.Join(http, " "),
		strings.Join(raft, " "), strings.NewReplacer(replace...).Replace(blocks[0].commands))
	name := filepath.Join(s.dir, "out")
	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", commands)
	// What runs in the background goes on, in a process group.
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	if err == nil {
		t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		err = cmd.Wait()
	}
	said, _ := os.ReadFile(name)
	if err != nil || strings.Count(string(said), `"address":`) != 2 ||
		!strings.Contains(string(said), "founded the cluster") {
		t.Fatalf("%v\n%s\n%s", err, commands, said)
	}
	var alive []int
	for i, h := range s.hosts[:3] {
		if h.out = name; h.answers() {
			alive = append(alive, i)
		}
	}
	if len(alive) != 2 {
		t.Fatalf("after the leader was killed, %v are alive\n%s", alive, said)
	}
	s.ready(alive...)
	s.register(s.hosts[alive[0]], 1)
}

func (h *host) answers() bool {
	status, _ := h.get("/status")
	return status != 0
}

// run runs commands on a host.
func (s *stage) run(host, commands string) {
	s.t.Helper()
	home := filepath.Join(s.dir, host)
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", s.here(host, commands))
	cmd.Dir = home
	cmd.Env = append(os.Environ(), "HOME="+home, "HOSTNAME="+host,
		"PATH="+filepath.Join(home, "bin")+":"+filepath.Join(s.dir, "bin")+":"+os.Getenv("PATH"))
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

// runAll runs the blocks of a section, each on its hosts.
func (s *stage) runAll(blocks []block) {
	s.t.Helper()
	for _, b := range blocks {
		if len(b.hosts) == 0 {
			s.t.Errorf("on which host?\n%s", b.commands)
		}
		for _, host := range b.hosts {
			s.run(host, b.commands)
		}
	}
}

// found starts a cluster of three that knows so many pageservers.
func (s *stage) found(nodes int) {
	s.t.Helper()
	for _, h := range s.hosts[:3] {
		s.flags(h, "--server-id "+h.id+" --members "+s.members())
		s.systemctl(h, "start")
	}
	s.ready(0, 1, 2)
	for id := 1; id <= nodes; id++ {
		s.register(s.hosts[0], id)
	}
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

// have checks that these hosts, and no others, are the voters, that they are ready, and
// that they know so many pageservers.
func (s *stage) have(nodes int, which ...int) {
	s.t.Helper()
	s.ready(which...)
	for _, i := range which {
		if n := s.hosts[i].nodes(); n != nodes {
			s.t.Errorf("%s has %d of %d pageservers", s.hosts[i].id, n, nodes)
		}
		status, text := s.hosts[i].get("/control/v1/cluster/members")
		var view neon.Cluster
		if err := json.Unmarshal([]byte(text), &view); status != http.StatusOK || err != nil {
			s.t.Fatalf("the members are %d %s", status, text)
		}
		voters := 0
		for _, m := range view.Members {
			for _, i := range which {
				if m.ID == s.hosts[i].id && m.Role != neon.RoleLearner {
					voters++
				}
			}
		}
		if voters != len(which) || len(view.Members) != len(which) {
			s.t.Errorf("the members are %s", text)
		}
	}
}
