// Package realpostgres runs a real PostgreSQL for tests, with a database for each of them.
package realpostgres

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
	"github.com/jackc/pgx/v5"

	"quorate/internal/freeport"
)

// Wanted is the variable of the environment that has all tests run that need a Postgres.
const Wanted = "QUORATE_E2E"

// serverDir makes this program the parent of a Postgres whose files are there.
const serverDir = "QUORATE_TEST_POSTGRES_DIR"

// Main must be called first in TestMain, with os.Exit around it: in a process that Start has
// made it runs the Postgres, otherwise it runs the tests.
func Main(tests func() int) int {
	dir := os.Getenv(serverDir)
	if dir == "" {
		return tests()
	}
	if err := run(dir); err != nil {
		fmt.Fprintln(os.Stderr, "postgres:", err)
		return 1
	}
	return 0
}

// run runs a Postgres until standard input ends, and says its port.
func run(dir string) error {
	addr, err := freeport.Address()
	if err != nil {
		return err
	}
	_, text, _ := net.SplitHostPort(addr)
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return err
	}
	db := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Port(uint32(port)).Version(embeddedpostgres.V16).
		RuntimePath(filepath.Join(dir, "run")).DataPath(filepath.Join(dir, "data")).
		CachePath(filepath.Join(dir, "cache")).Logger(os.Stderr))
	if err := db.Start(); err != nil {
		return err
	}
	fmt.Println("port", port)
	_, _ = io.Copy(io.Discard, os.Stdin)
	return db.Stop()
}

// Server is a Postgres that runs.
type Server struct {
	url  string // with one %s for the database
	made atomic.Int64
	stop func()
}

// Start starts one. It does not run as root, so its parent is this program as another user
// then.
func Start() (_ *Server, err error) {
	dir, err := os.MkdirTemp("", "postgres-")
	if err != nil {
		return nil, err
	}
	s := &Server{stop: func() { _ = os.RemoveAll(dir) }}
	defer func() {
		if err != nil {
			s.Stop()
		}
	}()
	said := &tail{}
	cmd := exec.Command("/proc/self/exe")
	cmd.Dir, cmd.Stderr = dir, said
	cmd.Env = append(os.Environ(), serverDir+"="+dir, "HOME="+dir)
	if os.Getuid() == 0 {
		const nobody = 65534
		if err := os.Chown(dir, nobody, nobody); err != nil {
			return nil, err
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: nobody, Gid: nobody},
		}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.stop = func() {
		_ = in.Close()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if port, ok := strings.CutPrefix(lines.Text(), "port "); ok {
			s.url = "postgres://postgres:postgres@127.0.0.1:" + port + "/%s?sslmode=disable"
			return s, nil
		}
	}
	return nil, fmt.Errorf("postgres does not run, its binaries come from Maven Central: %s",
		said.text)
}

// Stop ends it, and removes its files.
func (s *Server) Stop() { s.stop() }

// Database makes an empty database and returns its URL.
func (s *Server) Database(ctx context.Context) (string, error) {
	admin, err := pgx.Connect(ctx, fmt.Sprintf(s.url, "postgres"))
	if err != nil {
		return "", err
	}
	defer func() { _ = admin.Close(context.WithoutCancel(ctx)) }()
	name := fmt.Sprintf("test%d", s.made.Add(1))
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return "", err
	}
	return fmt.Sprintf(s.url, name), nil
}

// tail keeps what a process says.
type tail struct{ text []byte }

func (l *tail) Write(b []byte) (int, error) {
	l.text = append(l.text, b...)
	return len(b), nil
}
