package testcluster_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/fsm"
	"quorate/internal/controlsocket"
	"quorate/testcluster"
)

// program is the package of the storage controller.
const program = "quorate/cmd/storage_controller"

// build makes a program. The flags of go build come before its package.
func build(t *testing.T, flagsAndPackage ...string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "storage_controller")
	args := append([]string{"build", "-o", binary}, flagsAndPackage...)
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}

// buildNextVersion makes the version after this one, which knows a command more: the
// files below testdata/nextversion take the place of those of the module.
func buildNextVersion(t *testing.T) string {
	t.Helper()
	const files = "testdata/nextversion"
	var overlay struct{ Replace map[string]string }
	overlay.Replace = make(map[string]string)
	if err := filepath.WalkDir(files, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		file, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		replaced, err := filepath.Abs(filepath.Join("..",
			strings.TrimSuffix(strings.TrimPrefix(path, files), ".txt")))
		overlay.Replace[replaced] = file
		return err
	}); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "overlay.json")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return build(t, "-overlay", name, "./testcontroller")
}

// rolling is a cluster of three processes under load.
type rolling struct {
	*testing.T
	*testcluster.Cluster
	ctx     context.Context
	load    sync.WaitGroup
	stop    context.CancelFunc
	mu      sync.Mutex
	writes  int
	slowest time.Duration
	failed  []error
}

const rollingTenants = 6

func startRolling(t *testing.T, b testcluster.Builder) *rolling {
	b.Mode, b.Controllers, b.Pageservers, b.Zones = testcluster.Processes, 3, 4, 2
	r := &rolling{T: t, ctx: within(t, 2*time.Minute)}
	r.Cluster = testcluster.Run(t, b)
	create(t, r.ctx, r.Cluster, rollingTenants, 4, 1)
	var writing context.Context
	writing, r.stop = context.WithCancel(r.ctx)
	for n := range rollingTenants {
		r.load.Go(func() { r.write(writing, n) })
	}
	t.Cleanup(func() { r.stop(); r.load.Wait() })
	return r
}

// write configures a tenant again and again; the ledger remembers what was
// acknowledged.
func (r *rolling) write(ctx context.Context, n int) {
	client := r.Client()
	for value := 1; ctx.Err() == nil; value++ {
		begun := time.Now()
		err := client.Tenants().PutConfig(r.ctx, tenantID(n),
			conf(fmt.Sprintf(`{"gc_horizon":%d}`, value)))
		r.mu.Lock()
		r.writes++
		r.slowest = max(r.slowest, time.Since(begun))
		if err != nil {
			r.failed = append(r.failed, err)
		}
		r.mu.Unlock()
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// finish ends the load and checks everything.
func (r *rolling) finish() {
	r.Helper()
	r.stop()
	r.load.Wait()
	r.Logf("%d writes, the slowest took %v", r.writes, r.slowest)
	for _, err := range r.failed {
		r.Error("failed: ", err)
	}
	atRest(r.T, r.ctx, r.Cluster)
}

// replace stops a controller in order and starts it again, perhaps as another
// program.
func (r *rolling) replace(i int, binary string) {
	r.Helper()
	if err := r.StopController(r.ctx, i); err != nil {
		r.Fatal(err)
	}
	if err := r.Install(i, binary); err != nil {
		r.Fatal(err)
	}
	if err := r.Restart(r.ctx, i); err != nil {
		r.Fatal(err)
	}
	r.await("caught up", func() bool { return r.ClientOf(i).Cluster().Ready(r.ctx) == nil })
	if _, err := r.WaitLeader(r.ctx); err != nil {
		r.Fatal(err)
	}
}

func (r *rolling) await(what string, ok func() bool) {
	r.Helper()
	for !ok() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-r.ctx.Done():
			r.Fatalf("not %s in time", what)
		}
	}
}

// suspicious are the lines that an operator would look at, and that existing test
// suites do not expect. Others say how, and on what machine, the test runs.
var (
	suspicious = regexp.MustCompile(`\s(ERROR|WARN)`)
	expected   = regexp.MustCompile(`Starting in dev mode|The data directory may end with`)
)

func (r *rolling) checkLogs() {
	r.Helper()
	for i := range r.Controllers() {
		for line := range strings.Lines(r.Log(i)) {
			if suspicious.MatchString(line) && !expected.MatchString(line) {
				r.Errorf("controller %d: %s", i, line)
			}
		}
	}
}

// All controllers are restarted one after the other, two times over, under load:
// no request fails, nothing is lost, and no operator has to look at a log.
func TestRollingRestartLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs the real program")
	}
	binary := build(t, program)
	r := startRolling(t, testcluster.Builder{Binary: binary, Hook: true, Auth: true})
	for round := range 2 {
		for i := range r.Controllers() {
			r.replace((i+round)%r.Controllers(), binary)
		}
	}
	leader, err := r.WaitLeader(r.ctx)
	if err != nil {
		t.Fatal(err)
	}
	r.replace(leader, binary)
	r.finish()
	r.checkLogs()
}

// setScheduling asks a controller on its control socket for the command that only
// the later version knows.
func (r *rolling) setScheduling(i int, policy neon.NodeScheduling) string {
	r.Helper()
	status, text := r.control(i, "/scheduling?policy="+url.QueryEscape(string(policy)))
	if status == http.StatusOK {
		return ""
	}
	return text
}

func (r *rolling) control(i int, path string) (int, string) {
	r.Helper()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(r.DataDir(i), "control.sock"))
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	resp, err := client.Post("http://replica"+path, "", bytes.NewReader(nil))
	if err != nil {
		r.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func (r *rolling) level() uint64 {
	i, err := r.WaitLeader(r.ctx)
	if err != nil {
		r.Fatal(err)
	}
	m, err := r.ClientOf(i).Cluster().Members(r.ctx)
	if err != nil {
		return 0
	}
	return m.Level
}

// lead makes a controller the leader.
func (r *rolling) lead(i int) {
	r.Helper()
	r.await("the leader", func() bool {
		leader, err := r.WaitLeader(r.ctx)
		if err != nil {
			r.Fatal(err)
		}
		if leader == i {
			return true
		}
		_ = controlsocket.Dial(r.DataDir(leader)).TransferLeadership(r.ctx, fmt.Sprintf("c%d", i+1))
		return false
	})
}

// A cluster is upgraded one by one, under load, to a version with a command that
// the old one does not know. None can use it before all have it; then all
// can; and the old version refuses to come back.
func TestUpgradeOneByOne(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs the real program")
	}
	old, later := build(t, program), buildNextVersion(t)
	r := startRolling(t, testcluster.Builder{Binary: old})
	for i := range r.Controllers() {
		r.replace(i, later)
		r.lead(i)
		if i == r.Controllers()-1 {
			break
		}
		if got := r.level(); got > fsm.Level {
			t.Fatalf("the level is %d with an old member", got)
		}
		needs := fmt.Sprintf("needs feature level %d and the cluster is at ", fsm.Level+1)
		if text := r.setScheduling(i, neon.SchedulingPause); !strings.Contains(text, needs) {
			t.Fatalf("after %d upgrades the command is answered %q", i+1, text)
		}
		// A member that is away could come back as it was.
		last := r.Controllers() - 1
		if i == last-1 {
			if err := r.StopController(r.ctx, last); err != nil {
				t.Fatal(err)
			}
			<-time.After(2 * time.Second) // the leader looks every second
			if got := r.level(); got != fsm.Level {
				t.Fatalf("the level is %d with an old member away", got)
			}
			if err := r.Restart(r.ctx, last); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.await("raised", func() bool { return r.level() == fsm.Level+1 })
	r.await("commanded", func() bool {
		leader, err := r.WaitLeader(r.ctx)
		return err == nil && r.setScheduling(leader, neon.SchedulingPause) == ""
	})
	for i := range r.Controllers() {
		nodes, err := r.ClientOf(i).Nodes().List(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			if n.Scheduling != neon.SchedulingPause {
				t.Errorf("controller %d has node %s %s", i, n.ID, n.Scheduling)
			}
		}
	}
	r.await("commanded back", func() bool {
		leader, err := r.WaitLeader(r.ctx)
		return err == nil && r.setScheduling(leader, neon.SchedulingActive) == ""
	})
	r.finish()
	r.checkLogs()

	if err := r.StopController(r.ctx, 0); err != nil {
		t.Fatal(err)
	}
	if err := r.Install(0, old); err != nil {
		t.Fatal(err)
	}
	_ = r.Restart(r.ctx, 0) // it may live for a moment
	r.await("refused", func() bool { return !r.Running(0) })
	want := fmt.Sprintf("the cluster has been upgraded beyond this version: it is at feature level %d, and this version knows up to %d; install the version of the other members",
		fsm.Level+1, fsm.Level)
	if !strings.Contains(r.Log(0), want) {
		t.Errorf("the old version ended with\n%s", r.Log(0))
	}
	if err := r.Client().Tenants().PutConfig(r.ctx, tenantID(0),
		conf(`{"gc_horizon":7}`)); err != nil {
		t.Errorf("the others: %v", err)
	}
}
