package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"quorate/api/neon"
	"quorate/internal/freeport"
	"quorate/internal/storconcli"
	"quorate/testcluster/simpageserver"
)

// asController makes this test binary be the program. It is one of the few
// variables that neon_local lets through.
const asController = "NEON_TEST_BE_THE_CONTROLLER"

// asClient makes it be storcon_cli.
const asClient = "QUORATE_TEST_BE_THE_CLIENT"

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(asController) != "":
		main()
	case os.Getenv(asClient) != "":
		os.Exit(storconcli.Run(context.Background(), storconcli.Env{
			Args: os.Args[1:], Stdout: os.Stdout, Stderr: os.Stderr,
		}))
	}
	os.Exit(m.Run())
}

// environment is a neon_local environment as far as the controller meets it.
type environment struct {
	t       *testing.T
	dir     string
	key     ed25519.PrivateKey
	port    int
	number  int           // of the instance
	extra   []string      // arguments
	started time.Duration // until the last start was ready
}

func newEnvironment(t *testing.T) *environment {
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	e := &environment{t: t, dir: t.TempDir(), key: priv, port: freePort(t), number: 1}
	der, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	e.write("auth_private_key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if der, err = x509.MarshalPKIXPublicKey(pub); err != nil {
		t.Fatal(err)
	}
	e.write("auth_public_key.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	e.write("config", []byte(
		"private_key_path = \"auth_private_key.pem\"\npublic_key_path = \"auth_public_key.pem\"\n"))
	e.write("endpoints/.keep/x", nil)
	e.write(e.own("storage_controller.log"), nil)
	return e
}

// another is a further instance of the same environment.
func (e *environment) another() *environment {
	second := *e
	for second.number++; second.port == e.port; { // nobody listens there yet
		second.port = freePort(e.t)
	}
	second.write(second.own("storage_controller.log"), nil)
	return &second
}

// own is the name of a file in the directory of the instance.
func (e *environment) own(name string) string {
	return "storage_controller_" + strconv.Itoa(e.number) + "/" + name
}

func freePort(t *testing.T) int {
	t.Helper()
	addr, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(addr, ":")
	n, _ := strconv.Atoi(port)
	return n
}

func (e *environment) path(name string) string { return filepath.Join(e.dir, name) }

func (e *environment) write(name string, text []byte) {
	e.t.Helper()
	if err := os.MkdirAll(filepath.Dir(e.path(name)), 0o755); err != nil {
		e.t.Fatal(err)
	}
	if err := os.WriteFile(e.path(name), text, 0o600); err != nil {
		e.t.Fatal(err)
	}
}

func (e *environment) token(scope string) string {
	text, err := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{"scope": scope}).
		SignedString(e.key)
	if err != nil {
		e.t.Fatal(err)
	}
	return text
}

func (e *environment) url() string { return "http://127.0.0.1:" + strconv.Itoa(e.port) + "/" }

// args is the command line that neon_local makes, in its order.
func (e *environment) args() []string {
	public, err := os.ReadFile(e.path("auth_public_key.pem"))
	if err != nil {
		e.t.Fatal(err)
	}
	return append([]string{
		"--dev", "--database-url", "postgresql://localhost:1235/storage_controller",
		"--max-offline-interval", "10s", "--max-warming-up-interval", "30s", "--heartbeat-interval",
		"1s",
		"--address-for-peers", e.url(), "--listen", "127.0.0.1:" + strconv.Itoa(e.port),
		"--use-local-compute-notifications", "--kick-secondary-downloads=true",
		"--jwt-token=" + e.token("pageserverapi"), "--peer-jwt-token=" + e.token("admin"),
		"--safekeeper-jwt-token=" + e.token("safekeeperdata"),
		`--public-key="` + strings.ReplaceAll(string(public), "\n", "\r\n") + `"`,
		"--long-reconcile-threshold=1m 30s", "--neon-local-repo-dir=" + e.dir,
		"--timelines-onto-safekeepers", "--timeline-safekeeper-count=1",
	}, e.extra...)
}

// start does what neon_local does: the pid file is locked on a descriptor that
// the child inherits, the environment is cleared, and /ready is asked for every
// 100 ms.
func (e *environment) start() *exec.Cmd {
	e.t.Helper()
	begun := time.Now()
	cmd := e.spawn()
	e.poll(100*time.Millisecond, "ready", e.ready)
	e.started = time.Since(begun)
	if !e.pidFileLocked() {
		e.t.Fatal("the process has let go of the inherited pid file")
	}
	return cmd
}

func (e *environment) ready() bool {
	resp, err := http.Get(e.url() + "ready")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode == 200 && string(body) == "null"
}

func (e *environment) spawn() *exec.Cmd {
	e.t.Helper()
	dir := e.path(e.own(""))
	log, err := os.OpenFile(filepath.Join(dir, "storage_controller.log"), os.O_APPEND|os.O_WRONLY,
		0)
	if err != nil {
		e.t.Fatal(err)
	}
	defer log.Close()
	pid, err := os.OpenFile(filepath.Join(dir, "storage_controller.pid"), os.O_RDWR|os.O_CREATE,
		0o600)
	if err != nil {
		e.t.Fatal(err)
	}
	if err := syscall.Flock(int(pid.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		e.t.Fatal("the pid file is still locked: ", err)
	}
	self, err := os.Executable()
	if err != nil {
		e.t.Fatal(err)
	}
	cmd := exec.Command(self, e.args()...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.Env = []string{
		"RUST_BACKTRACE=1", "HOME=" + e.dir, "LD_LIBRARY_PATH=/nowhere/lib", asController + "=1",
	}
	cmd.ExtraFiles = []*os.File{pid}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = cmd.Process.Kill() })
	_, err = pid.WriteString(strconv.Itoa(cmd.Process.Pid))
	if err = errors.Join(err, pid.Close()); err != nil {
		e.t.Fatal(err)
	}
	return cmd
}

func (e *environment) pidFileLocked() bool {
	f, err := os.Open(e.path(e.own("storage_controller.pid")))
	if err != nil {
		e.t.Fatal(err)
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil
}

// stop signals the process and waits as long as neon_local does.
func (e *environment) stop(cmd *exec.Cmd, s syscall.Signal) {
	e.t.Helper()
	if err := cmd.Process.Signal(s); err != nil {
		e.t.Fatal(err)
	}
	late := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	if err := cmd.Wait(); err != nil {
		e.t.Fatalf("after %v: %v\n%s", s, err, e.log())
	}
	if e.pidFileLocked() {
		e.t.Fatal("something of the process is left")
	}
}

func (e *environment) poll(every time.Duration, what string, ok func() bool) {
	e.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			e.t.Fatalf("not %s in time\n%s", what, e.log())
		}
		<-tick.C
	}
}

func (e *environment) log() string {
	text, _ := os.ReadFile(e.path(e.own("storage_controller.log")))
	return string(text)
}

// allowedLines are what a run may say that an operator would look at.
var allowedLines = regexp.MustCompile(
	`.*(Starting in dev mode|The data directory may end with its container)`)

func (e *environment) checkLog() {
	e.t.Helper()
	suspicious := regexp.MustCompile(`\s(ERROR|WARN)`)
	for line := range strings.Lines(e.log()) {
		if suspicious.MatchString(line) && !allowedLines.MatchString(line) {
			e.t.Error(line)
		}
	}
}

func (e *environment) call(method, path, scope string, in, out any) {
	e.t.Helper()
	status, text, err := e.try(method, path, scope, in)
	if err != nil {
		e.t.Fatal(err)
	}
	if status/100 != 2 {
		e.t.Fatalf("%s %s: %d %s", method, path, status, text)
	}
	if err := json.Unmarshal(text, out); err != nil {
		e.t.Fatalf("%s %s: %v in %s", method, path, err, text)
	}
}

// try makes one request and takes any answer.
func (e *environment) try(method, path, scope string, in any) (status int, text []byte, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequest(method, e.url()+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+e.token(scope))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	text, err = io.ReadAll(resp.Body)
	return resp.StatusCode, text, err
}

func TestStartsAndStopsAsNeonLocalDoesIt(t *testing.T) {
	fastest := time.Hour
	for range 3 { // other tests may have the machine for a while
		e := newEnvironment(t)
		e.stop(e.start(), syscall.SIGTERM)
		fastest = min(fastest, e.started)
		if fastest > time.Second {
			continue
		}
		e.stop(e.start(), syscall.SIGQUIT)
		e.stop(e.start(), syscall.SIGTERM)
		e.checkLog()
		if strings.Count(e.log(), "Starting in dev mode") != 3 {
			t.Errorf("the log of three starts:\n%s", e.log())
		}
		break
	}
	t.Logf("ready after %v", fastest)
	if fastest > time.Second {
		t.Errorf("ready on an empty repository after %v at best", fastest)
	}
}

// addCompute makes an endpoint of a tenant that runs, and returns where what it
// is told comes out.
func (e *environment) addCompute(tenant neon.TenantID) <-chan string {
	told := make(chan string, 100)
	ctl := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body struct {
			Spec struct {
				Info json.RawMessage `json:"pageserver_connection_info"`
			} `json:"spec"`
		}
		_ = json.NewDecoder(r.Body).Decode(&body)
		told <- string(body.Spec.Info)
	}))
	e.t.Cleanup(ctl.Close)
	e.write("endpoints/ep-1/endpoint.json", fmt.Appendf(nil,
		`{"endpoint_id":"ep-1","tenant_id":"%s","timeline_id":"%s","mode":"Primary","pg_port":%d,"external_http_port":%d,"grpc":false}`,
		tenant, neon.TimelineID{1}, ctl.Listener.Addr().(*net.TCPAddr).Port,
		ctl.Listener.Addr().(*net.TCPAddr).Port))
	e.write("endpoints/ep-1/config.json", []byte(`{"spec":{"cluster":{}},"compute_ctl_config":{}}`))
	e.write("endpoints/ep-1/pgdata/postmaster.pid", []byte("1"))
	return told
}

// addPageservers starts n pageservers that make their upcalls to the instances.
func (e *environment) addPageservers(n int, others ...*environment) *simpageserver.Fleet {
	upcalls := []string{e.url() + "upcall/v1/"}
	for _, o := range others {
		upcalls = append(upcalls, o.url()+"upcall/v1/")
	}
	fleet := simpageserver.NewFleet(simpageserver.Options{})
	e.t.Cleanup(fleet.Close)
	for i := range n {
		id := neon.NodeID(i + 1)
		node, err := fleet.AddNode(simpageserver.NodeOptions{
			ID: id, AZ: neon.MakeAZ("az"), Upcalls: upcalls, Token: e.token("generations_api"),
			Register: true,
		})
		if err != nil {
			e.t.Fatal(err)
		}
		dir := "pageserver_" + id.String() + "/"
		e.write(dir+"pageserver.toml",
			[]byte("listen_pg_addr = '127.0.0.1:"+strconv.Itoa(64000+i+1)+"'\n"))
		e.write(dir+"identity.toml", []byte("id = "+id.String()+"\n"))
		if err := node.Start(context.WithoutCancel(e.t.Context())); err != nil {
			e.t.Fatal(err)
		}
	}
	e.poll(20*time.Millisecond, "active", func() bool {
		var nodes []neon.NodeDescribe
		e.call("GET", "control/v1/node", "admin", nil, &nodes)
		active := 0
		for _, n := range nodes {
			if n.Availability == neon.NodeActive {
				active++
			}
		}
		return active == n
	})
	return fleet
}

func TestComputesOfNeonLocalFollowTheirTenant(t *testing.T) {
	e := newEnvironment(t)
	cmd := e.start()
	e.addPageservers(2)
	tenant := neon.TenantID{0xaa, 15: 1}
	told := e.addCompute(tenant)
	var created neon.TenantCreateResponse
	e.call("POST", "v1/tenant", "pageserverapi", map[string]any{"new_tenant_id": tenant}, &created)
	expect := func(node neon.NodeID) {
		t.Helper()
		want := fmt.Sprintf("127.0.0.1:%d", 64000+int(node))
		select {
		case got := <-told:
			if !strings.Contains(got, want) {
				t.Errorf("told %s, not %s", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("the compute was not told of pageserver %d\n%s", node, e.log())
		}
	}
	at := created.Shards[0].Node
	expect(at)
	move := func() {
		at = 3 - at
		var nothing struct{}
		e.call("PUT", "control/v1/tenant/"+tenant.String()+"/migrate", "admin",
			map[string]any{
				"node_id":          at,
				"migration_config": map[string]any{"prewarm": false, "override_scheduler": true},
			}, &nothing)
		expect(at)
	}
	move()
	e.stop(cmd, syscall.SIGQUIT)
	cmd = e.start()
	expect(at) // again: whoever restarts a controller that is alone counts on it
	move()
	var healthy any
	e.call("POST", "debug/v1/consistency_check", "admin", nil, &healthy)
	e.stop(cmd, syscall.SIGTERM)
	e.checkLog()
}

// waitLog waits for a line of the log.
func (e *environment) waitLog(text string) {
	e.t.Helper()
	e.poll(10*time.Millisecond, "in the log: "+text,
		func() bool { return strings.Contains(e.log(), text) })
}

func TestMigrationIsHeldAtEachFailpoint(t *testing.T) {
	e := newEnvironment(t)
	cmd := e.start()
	e.addPageservers(2)
	tenant := neon.TenantID{0xaa, 15: 1}
	e.addCompute(tenant)
	var created neon.TenantCreateResponse
	e.call("POST", "v1/tenant", "pageserverapi", map[string]any{"new_tenant_id": tenant}, &created)
	set := func(name, actions string) {
		t.Helper()
		var nothing any
		e.call("PUT", "debug/v1/failpoints", "infra",
			[]map[string]string{{"name": name, "actions": actions}}, &nothing)
	}
	points := []string{
		"reconciler-live-migrate-pre-generation-inc", "reconciler-live-migrate-post-generation-inc",
		"reconciler-live-migrate-pre-await-lsn",
		"reconciler-live-migrate-post-notify", "reconciler-live-migrate-post-detach",
		"reconciler-epilogue",
	}
	for _, name := range points {
		set(name, "pause")
	}
	seen := strings.Count(e.log(), "at failpoint reconciler-epilogue")
	done := make(chan struct{})
	go func() {
		defer close(done)
		var nothing any
		e.call("PUT", "control/v1/tenant/"+tenant.String()+"/migrate", "admin", map[string]any{
			"node_id": 3 - created.Shards[0].Node, "migration_config": map[string]any{
				"prewarm": false, "override_scheduler": true,
			}}, &nothing)
	}()
	for i, name := range points {
		if i < len(points)-1 {
			e.waitLog("at failpoint " + name)
			if strings.Contains(e.log(), "at failpoint "+points[i+1]) &&
				points[i+1] != "reconciler-epilogue" {
				t.Errorf("did not stop at %s", name)
			}
		} else {
			e.poll(10*time.Millisecond, "at the end",
				func() bool { return strings.Count(e.log(), "at failpoint "+name) > seen })
		}
		select {
		case <-done:
			t.Fatalf("the migration ended before %s", name)
		default:
		}
		set(name, "off")
	}
	<-done
	var nothing any
	set("tenant-update-policy-exclusive-lock", "return(20)")
	e.call("PUT", "control/v1/tenant/"+tenant.String()+"/policy", "admin",
		map[string]any{"placement": map[string]int{"Attached": 1}}, &nothing)
	e.waitLog(`failpoint "tenant-update-policy-exclusive-lock": sleeping for 20ms`)
	e.stop(cmd, syscall.SIGTERM)
	e.checkLog()
}

func TestFailpointThatPanicsEndsTheProcess(t *testing.T) {
	e := newEnvironment(t)
	cmd := e.start()
	var nothing any
	e.call("PUT", "debug/v1/failpoints", "infra", []map[string]string{
		{"name": "heartbeat-pre-node-state-configure", "actions": "panic(failpoint)"},
	}, &nothing)
	fleet := simpageserver.NewFleet(simpageserver.Options{})
	t.Cleanup(fleet.Close)
	node, err := fleet.AddNode(simpageserver.NodeOptions{
		ID: 1, AZ: neon.MakeAZ("az"), Upcalls: []string{e.url() + "upcall/v1/"},
		Token: e.token("generations_api"), Register: true,
	})
	if err == nil {
		err = node.Start(context.WithoutCancel(t.Context()))
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d\n%s", code, e.log())
	}
	e.stop(e.start(), syscall.SIGTERM)
}
