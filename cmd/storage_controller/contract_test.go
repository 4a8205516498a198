package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"quorate/internal/contract"
)

// process is the program, started with flags and environment of a test.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	url  string
	mu   sync.Mutex
	text bytes.Buffer
	done chan struct{} // closed when it has ended
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// launch starts the program in an empty directory. The word PORT in arguments
// stands for a free port.
func launch(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(freePort(t))
	p := &process{t: t, url: "http://127.0.0.1:" + port, done: make(chan struct{})}
	given := slices.Clone(args)
	for i := range given {
		given[i] = strings.ReplaceAll(given[i], "PORT", port)
	}
	p.cmd = exec.Command(self, given...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = t.TempDir(), p, p
	p.cmd.Env = append([]string{asController + "=1", "HOME=" + p.cmd.Dir}, env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); <-p.done })
	return p
}

// until waits for a condition, or for the end of the process.
func (p *process) until(what string, ok func() bool) {
	p.t.Helper()
	deadline, tick := time.After(20*time.Second), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-p.done:
			p.t.Fatalf("ended before it was %s\n%s", what, p.output())
		case <-deadline:
			p.t.Fatalf("not %s in time\n%s", what, p.output())
		case <-tick.C:
		}
	}
}

func (p *process) ready() *process {
	p.t.Helper()
	p.until("ready", func() bool {
		resp, err := http.Get(p.url + "/ready")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return p
}

// put sends a request and does not mind when there is no answer.
func (p *process) put(path, body string) { p.t.Helper(); p.send(http.MethodPut, path, body) }

func (p *process) send(method, path, body string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path,
		strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if resp, err := http.DefaultClient.Do(req); err == nil {
		_ = resp.Body.Close()
	}
}

// exits waits for the end and returns the exit code.
func (p *process) exits() string {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		p.t.Fatalf("does not end\n%s", p.output())
	}
	return strconv.Itoa(p.cmd.ProcessState.ExitCode())
}

var devFlags = []string{"--dev", "--listen=127.0.0.1:PORT"}

// TestContractExitCodes ends the program in every way that has a code.
func TestContractExitCodes(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sent := func(s syscall.Signal) func(p *process) {
		return func(p *process) { _ = p.ready().cmd.Process.Signal(s) }
	}
	failing := func(action string) func(p *process) {
		return func(p *process) {
			p.ready().put("/debug/v1/failpoints",
				`[{"name":"sleep-on-step-down-handling","actions":"`+action+`"}]`)
			p.put("/control/v1/step_down", "")
		}
	}
	nothing := func(*process) {}
	for _, c := range []struct {
		name string
		args []string
		do   func(*process)
		says string
	}{
		{"SIGINT", devFlags, sent(syscall.SIGINT), ""},
		{"SIGTERM", devFlags, sent(syscall.SIGTERM), ""},
		{"SIGQUIT", devFlags, sent(syscall.SIGQUIT), ""},
		{"--help", []string{"--help"}, nothing, "--heartbeat-interval"},
		{"--version", []string{"--version"}, nothing, "storage_controller"},
		{
			"error at the start", append(slices.Clone(devFlags), "--data-dir", file), nothing,
			"Error: ",
		},
		{"port is taken", []string{"--dev", "--listen", taken.Addr().String()}, nothing, "Error: "},
		{"strict mode without a secret", devFlags[1:], nothing, "Error: "},
		{"failpoint with exit", devFlags, failing("exit"), ""},
		{"failpoint with panic", devFlags, failing("panic"), ""},
		{"no arguments", nil, nothing, "--listen"},
		{"unknown flag", append(slices.Clone(devFlags), "--lissen"), nothing, "error: "},
		{
			"malformed value", append(slices.Clone(devFlags), "--heartbeat-interval", "soon"),
			nothing, "error: ",
		},
		{"nothing to listen on", []string{"--dev"}, nothing, "error: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			row := contract.Find(contract.Exit, "storage_controller: "+c.name)
			p := launch(t, nil, c.args...)
			c.do(p)
			if code := p.exits(); code != row.Cell("code") ||
				!strings.Contains(p.output(), c.says) {
				t.Errorf("exits with %s, want %s\n%s", code, row.Cell("code"), p.output())
			}
			for flag, says := range map[string][]string{
				"--dev": {"SIGTERM"}, "--help": {"--help"}, "--version": {"--version"},
			} {
				if slices.Contains(says, c.name) {
					contract.Find(contract.Flag, flag).Tick(t)
				}
			}
			row.Tick(t)
		})
	}
	for short, long := range map[string]string{"-h": "--help", "-V": "--version"} {
		t.Run(short, func(t *testing.T) {
			a, b := launch(t, nil, short), launch(t, nil, long)
			if a.exits() != "0" || b.exits() != "0" || a.output() != b.output() {
				t.Errorf("%s prints\n%s", short, a.output())
			}
			contract.Find(contract.Flag, short).Tick(t)
		})
	}
}

// A terminal that is closed, or a supervisor that says so, ends a replica in order.
func TestAHangUpIsAStopInOrder(t *testing.T) {
	if signal.Ignored(syscall.SIGHUP) {
		t.Skip("the tests run under nohup")
	}
	p := launch(t, nil, devFlags...)
	_ = p.ready().cmd.Process.Signal(syscall.SIGHUP)
	if code := p.exits(); code != "0" || !strings.Contains(p.output(), "Stopping") {
		t.Errorf("exits with %s\n%s", code, p.output())
	}
}

// TestContractEnvironmentOfAProcess starts with variables that are not flags.
func TestContractEnvironmentOfAProcess(t *testing.T) {
	var harmless []string
	for _, row := range contract.Rows(contract.Environment) {
		if row.Cell("effect") == "accepted" {
			harmless = append(harmless, row.Name+"=%:whatever")
		}
	}
	p := launch(t, harmless, devFlags...).ready()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	code, dev := p.exits(), launcher{unused: []string{"SENTRY_DSN", "STORCON_DB_CERT_CHECKS"}}
	if code != "0" || strings.Contains(p.output(), " ERROR ") {
		t.Errorf("exits with %s\n%s", code, p.output())
	}
	dev.toldOnce(p)
	for _, v := range harmless {
		name, _, _ := strings.Cut(v, "=")
		contract.Find(contract.Environment, name).Tick(t)
	}
	quiet := launch(t, []string{"RUST_LOG=warn"}, devFlags...).ready()
	_ = quiet.cmd.Process.Signal(syscall.SIGTERM)
	if code := quiet.exits(); code != "0" || !strings.Contains(quiet.output(), " WARN ") ||
		strings.Contains(quiet.output(), " INFO ") || !strings.Contains(p.output(), " INFO ") {
		t.Errorf("with RUST_LOG=warn: exit %s\n%s", code, quiet.output())
	}
	contract.Find(contract.Environment, "RUST_LOG").Tick(t)
}

// TestContractFeatureFlagsReachPageservers has a source of flags, and a pageserver
// that takes them; an invalid configuration is told and ignored.
func TestContractFeatureFlagsReachPageservers(t *testing.T) {
	given := make(chan string, 100)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.Method + " " + r.URL.Path {
		case "GET /api/projects/7/feature_flags/local_evaluation":
			_, _ = io.WriteString(w, `{"flags":["`+r.Header.Get("Authorization")+`"]}`)
		case "GET /v1/location_config":
			_, _ = io.WriteString(w, `{"tenant_shards":[]}`)
		case "POST /v1/feature_flag_spec":
			given <- string(body)
		}
	}))
	t.Cleanup(other.Close)
	config := `{"project_id":"7","server_api_key":"key","client_api_key":"c","private_api_url":"` +
		other.URL + `","public_api_url":"p","refresh_interval":"50ms"}`
	p := launch(t, []string{"POSTHOG_CONFIG=" + config}, devFlags...).ready()
	port := strings.TrimPrefix(other.URL, "http://127.0.0.1:")
	p.send("POST", "/control/v1/node",
		`{"node_id":1,"listen_pg_addr":"127.0.0.1","listen_pg_port":1,"listen_http_addr":"127.0.0.1","listen_http_port":`+port+`,"availability_zone_id":"a"}`)
	p.put("/control/v1/node/1/config", `{"node_id":1,"availability":"Active"}`)
	select {
	case got := <-given:
		if want := `"{\"flags\":[\"Bearer key\"]}"`; got != want {
			t.Errorf("given %s, want %s", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Errorf("nothing was given\n%s", p.output())
	}
	for _, bad := range []string{"{", "{}"} {
		p := launch(t, []string{"POSTHOG_CONFIG=" + bad}, devFlags...).ready()
		if !strings.Contains(p.output(), " WARN Invalid POSTHOG_CONFIG") {
			t.Errorf("%s is not told:\n%s", bad, p.output())
		}
	}
	contract.Find(contract.Environment, "POSTHOG_CONFIG").Tick(t)
}
