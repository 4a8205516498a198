package resultsdb

import (
	"bufio"
	"database/sql"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// The variables of the environment of these tests.
const (
	// e2e has all tests run that need a Postgres; one that cannot be had fails them.
	e2e = "QUORATE_E2E"

	// serverDir makes the test binary the parent of a Postgres whose files are there.
	serverDir = "QUORATE_TEST_POSTGRES_DIR"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(serverDir); dir != "" {
		if err := runPostgres(dir); err != nil {
			fmt.Fprintln(os.Stderr, "postgres:", err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	if server.stop != nil {
		server.stop()
	}
	os.Exit(code)
}

// server is the Postgres of all tests of this package. Each has a database of its own there.
var server postgres

type postgres struct {
	once sync.Once
	url  string // with one %s for the database
	err  error
	stop func()
	n    int
}

// startPostgres returns the URL of an empty database.
func startPostgres(t *testing.T) string {
	if os.Getenv(e2e) == "" {
		t.Skipf("NOT TESTED WITH POSTGRES: %s is not set, `make e2e` sets it", e2e)
	}
	server.once.Do(server.start)
	if server.err != nil {
		t.Fatalf("POSTGRES DOES NOT RUN (its binaries come from Maven Central): %v", server.err)
	}
	server.n++
	name := fmt.Sprintf("test%d", server.n)
	admin, err := sql.Open("pgx", fmt.Sprintf(server.url, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if _, err := admin.ExecContext(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(server.url, name)
}

// runPostgres runs a Postgres until standard input ends, and says its port.
func runPostgres(dir string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
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

// start starts a Postgres. It does not run as root, so its parent is this binary as another
// user then.
func (p *postgres) start() {
	dir, err := os.MkdirTemp("", "postgres-")
	if err != nil {
		p.err = err
		return
	}
	p.stop = func() { _ = os.RemoveAll(dir) }
	said := &tail{}
	cmd := exec.Command("/proc/self/exe")
	cmd.Dir, cmd.Stderr = dir, said
	cmd.Env = append(os.Environ(), serverDir+"="+dir, "HOME="+dir)
	if os.Getuid() == 0 {
		const nobody = 65534
		if p.err = os.Chown(dir, nobody, nobody); p.err != nil {
			return
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: nobody, Gid: nobody},
		}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		p.err = err
		return
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.err = err
		return
	}
	if p.err = cmd.Start(); p.err != nil {
		return
	}
	p.stop = func() {
		_ = in.Close()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if port, ok := strings.CutPrefix(lines.Text(), "port "); ok {
			p.url = "postgres://postgres:postgres@127.0.0.1:" + port + "/%s?sslmode=disable"
			return
		}
	}
	p.err = fmt.Errorf("%s", said)
}

// tail keeps what a process says.
type tail struct{ text []byte }

func (l *tail) Write(b []byte) (int, error) {
	l.text = append(l.text, b...)
	return len(b), nil
}

func (l *tail) String() string { return string(l.text) }
