package instance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/cluster"
	"quorate/internal/leadership"
	"quorate/internal/serve"
)

// directory is the lock on a data directory, and the turns that were had at it.
type directory struct {
	path string

	mu     sync.Mutex
	user   string   // the runner that uses it; empty: none
	events []string // in their order
}

// use takes the lock.
func (d *directory) use(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.user != "" {
		return cluster.ErrDataDirInUse
	}
	d.user = name
	d.events = append(d.events, name+" leads")
	return nil
}

func (d *directory) release(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.user == name {
		d.user = ""
		d.events = append(d.events, name+" retires")
	}
}

// turn is one use of a directory. It is the Instance and its Leader.
type turn struct {
	dir      *directory
	name     string
	stepDown func(context.Context) error
	failed   chan error

	mu   sync.Mutex
	next leadership.Successor // after it has retired
}

func (u *turn) Start(context.Context) <-chan error { return u.failed }

func (u *turn) Retire(_ context.Context, next leadership.Successor) error {
	u.mu.Lock()
	u.next = next
	u.mu.Unlock()
	u.dir.release(u.name)
	return nil
}

func (u *turn) Close(context.Context) error {
	u.dir.release(u.name)
	return nil
}

func (u *turn) successor() leadership.Successor {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.next
}

func (u *turn) IsLeader() bool { return u.successor() == nil }

func (u *turn) StepDown(ctx context.Context) (neon.GlobalObserved, error) {
	return nil, u.stepDown(ctx)
}

// ServeHTTP says who leads, and where a retired instance forwards to.
func (u *turn) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	text := u.name
	if next := u.successor(); next != nil {
		_, address := next.Current()
		text = fmt.Sprintf("%s forwards to %q, expected: %v", u.name, address, next.Expected())
	}
	_, _ = io.WriteString(w, text)
}

// process is one run of the program on a directory.
type process struct {
	t       *testing.T
	name    string
	address string
	cancel  context.CancelFunc
	ended   chan error

	mu  sync.Mutex
	now *turn
}

func (d *directory) start(t *testing.T, name string, entry Entry) *process {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	server, err := serve.Listen(serve.Config{Listen: "127.0.0.1:0"}, serve.TCP{}, log)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, name: name, address: server.URL(), ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	waiting := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, name+" waits")
	})
	open := func(_ context.Context, stepDown func(context.Context) error) (Opened, error) {
		if err := d.use(name); err != nil {
			return Opened{}, err
		}
		u := &turn{dir: d, name: name, stepDown: stepDown, failed: make(chan error, 1)}
		p.mu.Lock()
		p.now = u
		p.mu.Unlock()
		return Opened{Instance: u, Leader: u, Handler: u, Server: "server"}, nil
	}
	go func() {
		p.ended <- Run(ctx, Options{
			Dir: d.path, Address: p.address, Entry: entry, Server: server, Waiting: waiting,
			Open: open, Logger: log,
		})
	}()
	t.Cleanup(func() { p.stop() })
	return p
}

func (p *process) turn() *turn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

// stop ends the process. It returns nil again when it is called again.
func (p *process) stop() error {
	p.cancel()
	err := <-p.ended
	p.ended <- nil
	return err
}

// answers waits until the process answers requests with a text.
func (p *process) answers(text string) {
	p.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	last := ""
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		resp, err := client.Get(p.address)
		if err == nil {
			b, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if last = string(b); last == text {
				return
			}
		}
		<-time.After(5 * time.Millisecond)
	}
	p.t.Fatalf("%s answers %q, not %q", p.name, last, text)
}

func TestCandidateTakesOverAndTheOldInstanceForwardsAndComesBack(t *testing.T) {
	d := &directory{path: t.TempDir()}
	a := d.start(t, "a", EnterWhenFree)
	a.answers("a")
	b := d.start(t, "b", EnterAsCandidate)
	b.answers("b")
	a.answers(fmt.Sprintf("a forwards to %q, expected: true", b.address))
	if err := b.stop(); err != nil {
		t.Errorf("b ended with %v", err)
	}
	a.answers("a")
	if err := a.stop(); err != nil {
		t.Errorf("a ended with %v", err)
	}
	want := "a leads, a retires, b leads, b retires, a leads, a retires"
	if got := strings.Join(d.events, ", "); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestCandidateWaitsForItsTurn(t *testing.T) {
	d := &directory{path: t.TempDir()}
	if err := d.use("an instance of an older version"); err != nil {
		t.Fatal(err)
	}
	b := d.start(t, "b", EnterAsCandidate)
	b.answers("b waits")
	c := d.start(t, "c", EnterAsCandidate) // only one may ask
	c.answers("c waits")
	if err := b.stop(); err != nil {
		t.Errorf("b ended with %v", err)
	}
	d.release("an instance of an older version")
	c.answers("c")
}

func TestInstanceThatEntersWhenFreeWaitsForOneThatIsJustEnding(t *testing.T) {
	d := &directory{path: t.TempDir()}
	if err := d.use("x"); err != nil {
		t.Fatal(err)
	}
	a := d.start(t, "a", EnterWhenFree)
	a.answers("a waits")
	d.release("x")
	a.answers("a")
}

func TestStepDownWithoutASuccessorEndsTheTurn(t *testing.T) {
	d := &directory{path: t.TempDir()}
	a := d.start(t, "a", EnterWhenFree)
	a.answers("a")
	if _, err := a.turn().StepDown(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.answers(`a forwards to "", expected: false`)
	if err := a.turn().stepDown(t.Context()); err != nil {
		t.Errorf("a step down that comes after the turn: %v", err)
	}
	if err := a.stop(); err != nil {
		t.Error(err)
	}
	if err := a.turn().stepDown(t.Context()); !errors.Is(err, cluster.ErrClosed) {
		t.Errorf("a step down that comes after the end: %v", err)
	}
}

func TestInstanceThatCannotGoOnEndsTheProcess(t *testing.T) {
	d := &directory{path: t.TempDir()}
	a := d.start(t, "a", EnterWhenFree)
	a.answers("a")
	broken := errors.New("the disk is broken")
	a.turn().failed <- broken
	if err := <-a.ended; !errors.Is(err, broken) {
		t.Errorf("it ended with %v", err)
	}
	a.ended <- nil
	if d.user != "" {
		t.Error("it still uses the directory")
	}
}

func TestDirectoryThatCannotBeMadeEndsTheStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a := (&directory{path: filepath.Join(file, "data")}).start(t, "a", EnterWhenFree)
	if err := <-a.ended; err == nil {
		t.Error("it started")
	}
	a.ended <- nil
}
