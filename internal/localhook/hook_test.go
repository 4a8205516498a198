package localhook

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"quorate/api/neon"
)

var (
	tenant   = neon.TenantID{0xaa, 15: 1}
	timeline = neon.TimelineID{0xbb, 15: 2}
)

// repo is a neon_local environment in a directory, with computes that can run.
type repo struct {
	t   *testing.T
	dir string
	key ed25519.PublicKey
	log bytes.Buffer
}

func newRepo(t *testing.T) *repo {
	r := &repo{t: t, dir: t.TempDir()}
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	r.key = pub
	r.write("auth_private_key.pem",
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	r.write("config", `
pg_distrib_dir = "/pg"
private_key_path = "auth_private_key.pem"
control_plane_api = "http://127.0.0.1:1234/upcall/v1/"
[broker]
listen_addr = "127.0.0.1:50051"
[[safekeepers]]
id = 1
pg_port = 5454
http_port = 7676
[[safekeepers]]
id = 2
pg_port = 5464
pg_tenant_only_port = 5465
http_port = 7677
[branch_name_mappings]
main = [["aa", "bb"]]
`)
	r.pageserver(1, `listen_pg_addr = '127.0.0.1:64000'`)
	r.pageserver(2, "listen_pg_addr = 'localhost'\nlisten_grpc_addr = '127.0.0.1:51052'")
	r.write("storage_controller_1/storage_controller.log", "")
	return r
}

func (r *repo) write(name, text string) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *repo) pageserver(id int, conf string) {
	dir := fmt.Sprintf("pageserver_%d/", id)
	r.write(dir+"identity.toml", fmt.Sprintf("id = %d\n", id))
	r.write(dir+"pageserver.toml",
		conf+"\nlisten_http_addr = '127.0.0.1:9898'\npg_auth_type = 'Trust'\n[remote_storage]\nlocal_path = 'x'\n")
}

func (r *repo) hook() *Hook {
	return New(Options{Dir: r.dir, Logger: slog.New(slog.NewTextHandler(&r.log, nil))})
}

// compute is an endpoint that runs: something listens on the port of its
// Postgres, and a compute_ctl takes configurations.
type compute struct {
	mu     sync.Mutex
	got    []map[string]json.RawMessage
	claims []jwt.MapClaims
	refuse string
	cut    bool // break off in the middle of the answer
}

func (r *repo) compute(name, mode string, grpc bool) *compute {
	r.t.Helper()
	c := &compute{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != "POST" || req.URL.Path != "/configure" ||
			!strings.HasPrefix(req.Host, "0.0.0.0:") {
			r.t.Errorf("%s %s at %s", req.Method, req.URL, req.Host)
		}
		claims := jwt.MapClaims{}
		_, err := jwt.NewParser(jwt.WithValidMethods([]string{"EdDSA"})).ParseWithClaims(
			strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer "), claims,
			func(*jwt.Token) (any, error) { return r.key, nil })
		if err != nil {
			r.t.Error(err)
		}
		body, _ := io.ReadAll(req.Body)
		var m map[string]json.RawMessage
		if err := json.Unmarshal(body, &m); err != nil {
			r.t.Error(err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.got, c.claims = append(c.got, m), append(c.claims, claims)
		if c.cut {
			w.Header().Set("Content-Length", "100")
		}
		if c.refuse != "" {
			http.Error(w, c.refuse, http.StatusPreconditionFailed)
		}
	}))
	r.t.Cleanup(srv.Close)
	pg, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = pg.Close() })
	dir := "endpoints/" + name + "/"
	r.write(dir+"endpoint.json",
		fmt.Sprintf(`{"endpoint_id":"%s","tenant_id":"%s","timeline_id":"%s","mode":%s,"pg_port":%d,"external_http_port":%d,"internal_http_port":1,"pg_version":16,"grpc":%t}`,
			name, tenant, timeline, mode, pg.Addr().(*net.TCPAddr).Port,
			srv.Listener.Addr().(*net.TCPAddr).Port, grpc))
	r.write(dir+"config.json",
		`{"spec":{"format_version":1.0,"suspend_timeout_seconds":-1,"big":12345678901234567890,"cluster":{"name":"x","postgresql_conf":"old"},"safekeeper_connstrings":["127.0.0.1:1"]},"compute_ctl_config":{"jwks":{"keys":[]}}}`)
	r.write(dir+"postgresql.conf", "port=1\n")
	r.write(dir+"pgdata/postmaster.pid", "1")
	return c
}

// last is the last configuration that was sent, or nothing.
func (c *compute) last() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.got) == 0 {
		return ""
	}
	b, _ := json.Marshal(c.got[len(c.got)-1])
	return string(b)
}

func attach(nodes ...neon.NodeID) *neon.NotifyAttach {
	n := &neon.NotifyAttach{Tenant: tenant}
	if len(nodes) > 1 {
		n.StripeSize = new(neon.StripeSize(2048))
	}
	for i, id := range nodes {
		n.Shards = append(n.Shards, neon.NotifyShard{Node: id, Number: neon.ShardNumber(i)})
	}
	return n
}

func TestRunningComputesOfTheTenantAreConfigured(t *testing.T) {
	r := newRepo(t)
	libpq, grpc := r.compute("ep-1", `"Primary"`,
		false), r.compute("ep-2", `{"Static":"0/10"}`, true)
	if err := r.hook().NotifyAttach(t.Context(), attach(1)); err != nil {
		t.Fatal(err)
	}
	const rest = `"big":12345678901234567890,"cluster":{"name":"x","postgresql_conf":"port=1\n"},"format_version":1.0,`
	want := `{"compute_ctl_config":{"jwks":{"keys":[]}},"spec":{` + rest +
		`"pageserver_connection_info":{"shard_count":0,"stripe_size":null,"shards":{"0000":{"pageservers":[{"id":1,"libpq_url":"postgres://no_user@127.0.0.1:64000","grpc_url":null}]}},"prefer_protocol":"libpq"},` +
		`"safekeeper_connstrings":["127.0.0.1:1"],"shard_stripe_size":null,"suspend_timeout_seconds":-1}}`
	if got := libpq.last(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if err := r.hook().NotifyAttach(t.Context(), attach(2, 1)); err != nil {
		t.Fatal(err)
	}
	want = `"pageserver_connection_info":{"shard_count":2,"stripe_size":2048,"shards":{` +
		`"0002":{"pageservers":[{"id":2,"libpq_url":"postgres://no_user@localhost:5432","grpc_url":"grpc://no_user@127.0.0.1:51052"}]},` +
		`"0102":{"pageservers":[{"id":1,"libpq_url":"postgres://no_user@127.0.0.1:64000","grpc_url":null}]}},"prefer_protocol":"grpc"},`
	if got := grpc.last(); !strings.Contains(got, want) ||
		!strings.Contains(got, `"shard_stripe_size":2048`) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	c := grpc.claims[0]
	scope, hasScope := c["scope"]
	aud, hasAud := c["aud"]
	if c["compute_id"] != "ep-2" || !hasScope || scope != nil || !hasAud || aud != nil ||
		len(c) != 3 {
		t.Errorf("claims %v", c)
	}
	if text, _ := os.ReadFile(filepath.Join(r.dir,
		"endpoints/ep-1/config.json")); !strings.Contains(string(text), `"postgresql_conf":"old"`) {
		t.Error("config.json was changed")
	}
}

func TestSafekeepersAreForThePrimariesOfTheTimeline(t *testing.T) {
	r := newRepo(t)
	primary, replica := r.compute("ep-1", `"Primary"`, false), r.compute("ep-2", `"Replica"`, false)
	n := neon.NotifySafekeepers{
		Tenant: tenant, Timeline: timeline, Generation: 7,
		Safekeepers: neon.List[neon.NotifySafekeeper]{{ID: 2}, {ID: 1}},
	}
	if err := r.hook().NotifySafekeepers(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if got := primary.last(); !strings.Contains(got,
		`"safekeeper_connstrings":["127.0.0.1:5465","127.0.0.1:5454"],"safekeepers_generation":7`) {
		t.Error(got)
	}
	if got := replica.last(); !strings.Contains(got,
		`"safekeeper_connstrings":[],"safekeepers_generation":7`) {
		t.Error(got)
	}
	n.Timeline = neon.TimelineID{1}
	n.Safekeepers = neon.List[neon.NotifySafekeeper]{{ID: 9}}
	if err := r.hook().NotifySafekeepers(t.Context(), n); err != nil || len(primary.got) != 1 {
		t.Errorf("another timeline: %v, %d calls", err, len(primary.got))
	}
	n.Timeline = timeline
	if err := r.hook().NotifySafekeepers(t.Context(), n); err == nil {
		t.Error("an unknown safekeeper is no error")
	}
}

func TestComputesThatDoNotRunAreLeftAlone(t *testing.T) {
	r := newRepo(t)
	c := r.compute("ep-1", `"Primary"`, false)
	other := attach(1)
	other.Tenant = neon.TenantID{1}
	if err := r.hook().NotifyAttach(t.Context(), other); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(r.dir, "endpoints/ep-1/pgdata/postmaster.pid")); err != nil {
		t.Fatal(err)
	}
	r.write("endpoints/ep-half/pgdata/x", "") // is being made or removed
	if err := r.hook().NotifyAttach(t.Context(), attach(9)); err != nil {
		t.Error(err)
	}
	if len(c.got) != 0 {
		t.Errorf("%d calls", len(c.got))
	}
	if strings.Contains(r.log.String(), "WARN") || strings.Contains(r.log.String(), "ERROR") {
		t.Error(r.log.String())
	}
}

func TestWithoutAnEnvironmentThereIsNobodyToTell(t *testing.T) {
	var log bytes.Buffer
	for _, dir := range []string{"", filepath.Join(t.TempDir(), "none"), t.TempDir()} {
		log.Reset()
		h := New(Options{Dir: dir, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err := h.NotifyAttach(t.Context(), attach(1)); err != nil {
			t.Errorf("%q: %v", dir, err)
		}
		if !strings.Contains(log.String(), "skipping compute update") {
			t.Errorf("%q: log %s", dir, log.String())
		}
	}
	r := newRepo(t) // and no endpoint in it
	if err := r.hook().NotifyAttach(t.Context(), attach(1)); err != nil || r.log.Len() > 0 {
		t.Errorf("%v, log %s", err, r.log.String())
	}
}

func TestRefusalsAreErrorsUnlessTheComputeHelpsItself(t *testing.T) {
	r := newRepo(t)
	c := r.compute("ep-1", `"Primary"`, false)
	c.refuse = `{"error":"invalid compute status: refresh-configuration-pending"}`
	if err := r.hook().NotifyAttach(t.Context(), attach(1)); err != nil ||
		strings.Contains(r.log.String(), "ERROR") {
		t.Errorf("%v, log %s", err, r.log.String())
	}
	c.refuse = "no"
	if err := r.hook().NotifyAttach(t.Context(), attach(1)); err == nil {
		t.Error("a refusal is no error")
	}
	if !strings.Contains(r.log.String(), "reconciler: neon_local notification hook failed") {
		t.Error(r.log.String())
	}
	c.refuse = ""
	if err := r.hook().NotifyAttach(t.Context(), attach(9)); err == nil {
		t.Error("an unknown pageserver is no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.log.Reset()
	if err := r.hook().NotifyAttach(ctx, attach(1)); err == nil ||
		strings.Contains(r.log.String(), "ERROR") {
		t.Errorf("cancelled: %v, log %s", err, r.log.String())
	}
}

// The compute may have died while it configured itself.
func TestAnswerThatBreaksOffIsAnError(t *testing.T) {
	r := newRepo(t)
	c := r.compute("ep-1", `"Primary"`, false)
	c.cut = true
	if err := r.hook().NotifyAttach(t.Context(), attach(1)); err == nil {
		t.Error("half an answer is taken for a success")
	}
	c.refuse = `{"error":"invalid compute status: refresh-configuration-pending"}`
	if err := r.hook().NotifyAttach(t.Context(), attach(1)); err != nil {
		t.Errorf("a refusal that breaks off: %v", err)
	}
}

func TestAddressesOfPageservers(t *testing.T) {
	for in, want := range map[string]string{
		"h": "h:5432", "h:1": "h:1", "[::1]:7": "[::1]:7", "[::1]": "[::1]:5432", "": "", ":1": "",
		"h:x": "", "h:99999": "", "a:b:c": "",
	} {
		got, err := splitAddress(in, defaultPgPort)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

func FuzzFilesOfAnEnvironment(f *testing.F) {
	f.Add("private_key_path = 'k'\n[[safekeepers]]\nid = 1\npg_port = 2\n", `{"tenant_id":"aa"}`,
		`{"spec":{"cluster":null}}`, "listen_pg_addr = '[::]'")
	f.Add("safekeepers = 1", `null`, `{"spec":{"cluster":7},"compute_ctl_config":null}`, "")
	f.Fuzz(func(t *testing.T, config, endpointJSON, configJSON, pageserver string) {
		r := &repo{t: t, dir: t.TempDir()}
		r.write("config", config)
		r.pageserver(1, pageserver)
		r.write("endpoints/e/endpoint.json", endpointJSON)
		r.write("endpoints/e/config.json", configJSON)
		env, err := loadEnvironment(r.dir)
		if err != nil {
			return
		}
		all, err := env.endpoints()
		if err != nil {
			return
		}
		for _, e := range all {
			info, err := env.connection(attach(1), &e)
			if err != nil {
				continue
			}
			body, err := e.request(func(
				o object,
			) error {
				return o.set("pageserver_connection_info", info)
			})
			if err == nil && !json.Valid(body) {
				t.Errorf("%q is not JSON", body)
			}
		}
	})
}
