package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"quorate/internal/wait"
)

// program is one of Neon's programs. Its output goes to a file in its directory.
type program struct {
	path    string
	args    []string
	dir     string
	install install

	mu   sync.Mutex
	cmd  *exec.Cmd // nil while it does not run
	done chan struct{}
}

func (p *program) log() string { return filepath.Join(p.dir, filepath.Base(p.path)+".log") }

func (p *program) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return errors.New(filepath.Base(p.path) + " runs already")
	}
	log, err := os.OpenFile(p.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.path, p.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, log, log
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+p.install.libraries())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL, Setpgid: true, Credential: p.install.user,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.path, err)
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() {
		defer close(done)
		_ = cmd.Wait() // how it ended is in its log
		p.mu.Lock()
		defer p.mu.Unlock()
		p.cmd = nil
	}()
	return nil
}

func (p *program) running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil
}

// kill ends the program as kill -9 does, and waits until it is gone.
func (p *program) kill() {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Kill()
		<-done
	}
}

// await waits until the program answers, and fails early when it ends.
func (p *program) await(ctx context.Context, answers func() bool) error {
	for !answers() {
		if !p.running() {
			return fmt.Errorf("%s ended at once:\n%s", filepath.Base(p.path), p.tail())
		}
		if wait.Sleep(ctx, 50*time.Millisecond) != nil {
			return fmt.Errorf("%s does not answer:\n%s", filepath.Base(p.path), p.tail())
		}
	}
	return nil
}

func (p *program) tail() []byte {
	b, err := os.ReadFile(p.log())
	if err != nil {
		return []byte(err.Error())
	}
	return b[max(0, len(b)-4096):]
}
