package testcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/wait"
)

// process runs a controller as a process of its own.
type process struct {
	spec   replicaSpec
	args   []string
	binary string
	client *Client

	diskFaults bool   // the binary takes signals about its disk
	unread     bool   // its output is a pipe that is not read while it runs
	wires      *wires // nil without

	mu     sync.Mutex
	cmd    *exec.Cmd // nil while it does not run
	done   chan struct{}
	err    error // of the last run
	paused bool
}

// newProcess makes the controller of a spec.
func (c *Cluster) newProcess(spec replicaSpec) replica {
	b := &c.builder
	members := make([]string, 0, len(spec.members))
	entry := "--members"
	for _, m := range spec.members {
		if members = append(members, m.ID+"="+m.RaftAddr); spec.joins {
			entry, members[len(members)-1] = "--join", m.RaftAddr
		}
	}
	args := []string{
		"--dev", "--listen", spec.http, "--address-for-peers", "http://" + spec.peerHTTP + "/",
		"--raft-listen", spec.raftListen, "--raft-advertise", spec.raft,
		"--data-dir", spec.dataDir, "--server-id", spec.id, entry, strings.Join(members, ","),
		"--heartbeat-interval", neon.Duration(b.HeartbeatInterval).String(),
		"--max-offline-interval", neon.Duration(b.MaxOffline).String(),
		"--tenant-rate-limit", "1000000",
	}
	if b.Raft.Heartbeat > 0 {
		args = append(args, "--raft-heartbeat", neon.Duration(b.Raft.Heartbeat).String())
	}
	if b.Raft.Election > 0 {
		args = append(args, "--raft-election", neon.Duration(b.Raft.Election).String())
	}
	if c.controlPlane.url != "" {
		args = append(args, "--control-plane-url", c.controlPlane.url)
	}
	if b.DiskLoss {
		args = append(args, "--handle-ps-local-disk-loss")
	}
	if b.Safekeepers > 0 {
		args = append(args, "--timelines-onto-safekeepers", "--timeline-safekeeper-count",
			strconv.Itoa(b.perTimeline()))
	}
	if c.keys != nil {
		args = append(args, "--public-key", c.keys.pem, "--jwt-token", c.Token("pageserverapi"),
			"--safekeeper-jwt-token", c.Token("safekeeperdata"))
	}
	return &process{
		spec: spec, binary: b.Binary, args: append(args, b.Args...), wires: c.wires,
		client: c.client("http://" + spec.http), diskFaults: b.DiskFaults, unread: b.UnreadLogs,
	}
}

func (p *process) start(ctx context.Context) error {
	if err := p.spawn(); err != nil {
		return err
	}
	for p.client.Cluster().Status(ctx) != nil {
		if !p.running() {
			return fmt.Errorf("%s ended at once: %w\n%s", p.binary, p.err, p.logs())
		}
		if err := wait.Sleep(ctx, poll); err != nil {
			return err
		}
	}
	return nil
}

func (p *process) spawn() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return errors.New("it runs already")
	}
	log, err := os.OpenFile(p.spec.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	out, keep := log, func() {}
	if p.unread {
		if out, keep, err = unreadPipe(p.spec.logFile); err != nil {
			return err
		}
		defer out.Close()
	}
	binary, err := filepath.Abs(p.binary) // the process runs elsewhere
	if err != nil {
		return err
	}
	cmd := exec.Command(binary, p.args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, filepath.Dir(p.spec.logFile)
	// A demonstration that is killed itself must not leave controllers behind,
	// and Ctrl-C on it is not for them.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	p.cmd, p.done, p.err, p.paused = cmd, done, nil, false
	go func() {
		defer close(done)
		err := cmd.Wait()
		keep()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.cmd, p.err = nil, err
	}()
	return nil
}

// unreadPipe makes a pipe that is not read until keep is called: that appends what
// is in it to a file.
func unreadPipe(file string) (in *os.File, keep func(), err error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	return in, func() {
		defer out.Close()
		if log, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0o644); err == nil {
			_, _ = io.Copy(log, out)
			_ = log.Close()
		}
	}, nil
}

func (p *process) signal(s os.Signal) (done chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil, errors.New("it does not run")
	}
	return p.done, p.cmd.Process.Signal(s)
}

func (p *process) kill() error {
	done, err := p.signal(syscall.SIGKILL)
	if err == nil {
		<-done
	}
	return err
}

func (p *process) stop(ctx context.Context) error {
	done, err := p.signal(syscall.SIGTERM)
	if err != nil {
		return err
	}
	select {
	case <-done:
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), p.kill())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *process) pause() error {
	_, err := p.signal(syscall.SIGSTOP)
	p.setPaused(true)
	return err
}

func (p *process) resume() error {
	p.setPaused(false)
	_, err := p.signal(syscall.SIGCONT)
	return err
}

func (p *process) setPaused(v bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = v
}

func (p *process) hangDisk() error { return p.diskSignal("hang the disk", syscall.SIGUSR1) }
func (p *process) fillDisk() error { return p.diskSignal("fill the disk", syscall.SIGALRM) }
func (p *process) healDisk() error { return p.diskSignal("heal the disk", syscall.SIGUSR2) }

func (p *process) spoilState() error { return p.diskSignal("spoil the state", syscall.SIGWINCH) }

func (p *process) diskSignal(what string, s os.Signal) error {
	if !p.diskFaults {
		return fmt.Errorf("%s without DiskFaults: %w", what, ErrMode)
	}
	_, err := p.signal(s)
	return err
}

func (p *process) install(binary string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.binary = binary
	return nil
}

func (p *process) reflag(edit func(args []string) []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.args = edit(slices.Clone(p.args))
	return nil
}

func (p *process) state(context.Context) (*fsm.State, error) { return nil, ErrMode }

func (p *process) dataDir() string { return p.spec.dataDir }

func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

func (p *process) block(addresses ...string) error {
	switch {
	case p.wires != nil:
		p.wires.block(p.spec.id, addresses...)
	case len(addresses) > 0:
		return fmt.Errorf("partition without Wires: %w", ErrMode)
	}
	return nil
}

func (p *process) blockNodes(addresses ...string) error {
	if len(addresses) == 0 {
		return nil
	}
	return fmt.Errorf("cut off from pageservers: %w", ErrMode)
}

// leads asks the process itself; one that is frozen does not answer.
func (p *process) leads(ctx context.Context) bool {
	p.mu.Lock()
	paused := p.paused
	p.mu.Unlock()
	if paused {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	s, err := p.client.Cluster().Members(ctx)
	return err == nil && s.Leader == s.Server
}

func (p *process) running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil
}

func (p *process) raftAddr() string { return p.spec.raft }

func (p *process) httpAddr() string { return p.spec.http }

func (p *process) logs() []byte { return readTail(p.spec.logFile) }
