package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// issuer signs tokens, as a control plane does.
type issuer struct {
	t       *testing.T
	private ed25519.PrivateKey
	pem     string
}

func newIssuer(t *testing.T) *issuer {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return &issuer{t, private, string(text)}
}

func (i *issuer) token() string {
	text, err := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{"scope": "admin"}).
		SignedString(i.private)
	if err != nil {
		i.t.Fatal(err)
	}
	return text
}

// answers asks for the nodes, with a token or without, and returns the status.
func (p *process) answers(token string) int {
	p.t.Helper()
	status, _ := p.fetch("/control/v1/node", token)
	return status
}

func (p *process) fetch(path, token string) (status int, text string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.url+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

// launcher is how somebody starts the existing controller: what its sources print, with
// all values set, in their order.
type launcher struct {
	source string
	args   []string // PORT: that of the service
	env    []string
	peers  []string // what more is needed for three replicas, beside their ids and addresses
	unused []string // what it passes and is not used here
}

// toJSON is what the templates of charts make of a string.
func toJSON(t *testing.T, text string) string {
	out, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// neonChart is the chart of Neon. POD_IP is that of this machine.
func neonChart(t *testing.T, key string) launcher {
	flags := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"flags":[]}`)
	}))
	t.Cleanup(flags.Close)
	const migration = "--pageserver-auto-migration-"
	return launcher{
		source: "neondatabase/helm-charts, charts/neon-storage-controller/templates/deployment.yaml " +
			"and secrets.yaml at 25243f8ae6, chart 1.19.0",
		args: []string{
			"-l", "0.0.0.0:PORT", "--public-key=" + toJSON(t, key),
			"--control-plane-url", "http://127.0.0.1:1/storage/api/v1/",
			"--lbm-management-url", "http://127.0.0.1:1000/",
			"--lbm-storage-url", "http://127.0.0.1:1002/storage/api/v1/",
			"--anti-entropy-job-interval", "1day", "--anti-entropy-job-delay", "100ms",
			"--anti-entropy-job-enact", "--heartbeat-interval", "5s",
			"--max-offline-interval", "30s", "--max-warming-up-interval", "5min",
			"--initial-split-threshold", "68719476736", "--initial-split-shards", "8",
			"--split-threshold", "274877906944", "--max-split-shards", "16",
			"--consistency-check-interval", "1s", "--lazy-drains-fills", "true",
			"--chaos-interval", "1h", "--chaos-exit-crontab", "0 0 0 1 1 *",
			"--chaos-safekeeper-interval", "1h", "--address-for-peers", "http://127.0.0.1:PORT/",
			"--long-reconcile-threshold", "30min", "--timelines-onto-safekeepers",
			"--check-timeline-digest-across-small-shard-splits", "--enable-location-updates",
			migration + "enabled", migration + "max-migrations-per-destination", "2",
			migration + "disk-utilization-source-min", "80",
			migration + "disk-actual-usage-source-min", "60",
			migration + "disk-utilization-source-target", "70",
			migration + "disk-utilization-destination-max", "65",
			migration + "max-shard-size-limit", "68719476736",
			"--neon-region", "aws-eu-central-1", "--neon-cloud", "aws",
		},
		env: []string{
			"RUST_LOG=INFO", "RUST_BACKTRACE=1", "POD_IP=127.0.0.1",
			"SENTRY_DSN=http://key@127.0.0.1:1/1", "SENTRY_ENVIRONMENT=development",
			`POSTHOG_CONFIG={"project_id":"7","server_api_key":"k","client_api_key":"c",` +
				`"private_api_url":"` + flags.URL + `","public_api_url":"` + flags.URL + `"}`,
			"DATABASE_URL=postgresql://u:p@127.0.0.1:1/storage_controller",
			"CONTROL_PLANE_JWT_TOKEN=a", "PAGESERVER_JWT_TOKEN=b", "SAFEKEEPER_JWT_TOKEN=c",
			"PEER_JWT_TOKEN=d",
		},
		unused: []string{
			"DATABASE_URL", "--peer-jwt-token", "SENTRY_DSN", "--lbm-management-url",
			"--lbm-storage-url", "--anti-entropy-job-interval", "--anti-entropy-job-delay",
			"--anti-entropy-job-enact", "--chaos-safekeeper-interval",
			"--check-timeline-digest-across-small-shard-splits", "--enable-location-updates",
		},
	}
}

// operator is a deployment for development. Its replicas need an address that others can
// use, since it has them listen everywhere.
func operator() launcher {
	return launcher{
		source: "molnett/neon-operator, specs/storagecontroller/deployment.go at 13cd375c75",
		args: []string{
			"--dev", "-l", "0.0.0.0:PORT", "--control-plane-url",
			"http://neon-controlplane:8080", "--initial-split-shards", "0",
		},
		env:    []string{"DATABASE_URL=postgresql://u:p@127.0.0.1:1/storage_controller"},
		peers:  []string{"--address-for-peers", "http://127.0.0.1:PORT/"},
		unused: []string{"DATABASE_URL"},
	}
}

// serving waits until the probes of Neon's chart agree, and requests are answered.
func (p *process) serving(token string) {
	p.t.Helper()
	for _, probe := range []string{"/status", "/ready", "/live"} {
		p.until(probe+" answers", func() bool {
			status, _ := p.fetch(probe, "")
			return status == http.StatusOK
		})
	}
	p.until("serving", func() bool { return p.answers(token) == http.StatusOK })
}

// toldOnce checks that all that is not used was told, once and as a warning, and that
// nothing else is a warning.
func (l *launcher) toldOnce(p *process) {
	p.t.Helper()
	var told []string
	for line := range strings.Lines(p.output()) {
		_, text, warned := strings.Cut(line, " WARN ")
		what, unused := strings.CutPrefix(text, "Not used: ")
		switch {
		case !warned || strings.HasPrefix(text, "Starting in dev mode"),
			strings.HasPrefix(text, "The data directory may end"): // of the machine that tests
		case unused:
			told = append(told, strings.Fields(what)[0])
		default:
			p.t.Errorf("a warning: %s", line)
		}
	}
	want := slices.Sorted(slices.Values(l.unused))
	if slices.Sort(told); !slices.Equal(told, want) {
		p.t.Errorf("told are %v\nwant %v", told, want)
	}
}

// The command lines of others work as they are, on one replica and, with what makes a
// cluster, on three.
func TestLaunchersOfOthersWorkUnchanged(t *testing.T) {
	issuer := newIssuer(t)
	for _, l := range []launcher{neonChart(t, issuer.pem), operator()} {
		name := strings.TrimSuffix(strings.ReplaceAll(strings.Fields(l.source)[0], "/", " "), ",")
		t.Run(name+" one", func(t *testing.T) {
			p := launch(t, l.env, l.args...)
			p.serving(issuer.token())
			l.toldOnce(p)
			if !slices.Contains(l.args, "--dev") {
				l.inUse(p, issuer)
			}
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
			if code := p.exits(); code != "0" {
				t.Errorf("ends with %s\n%s", code, p.output())
			}
		})
		t.Run(name+" three", func(t *testing.T) {
			var members []string
			for i := range 3 {
				members = append(members, fmt.Sprintf("c%d=127.0.0.1:%d", i, freePort(t)))
			}
			var all []*process
			for i := range 3 {
				args := slices.Concat(l.args, l.peers, []string{
					"--server-id", "c" + strconv.Itoa(i), "--members", strings.Join(members, ","),
				})
				all = append(all, launch(t, l.env, args...))
			}
			for _, p := range all {
				p.serving(issuer.token())
				status, text := p.fetch("/control/v1/cluster/members", issuer.token())
				if status != http.StatusOK || strings.Count(text, `"raft_addr"`) != 3 {
					t.Errorf("the members are %d %s", status, text)
				}
			}
		})
	}
}

// inUse checks that what is used has an effect.
func (l *launcher) inUse(p *process, by *issuer) {
	p.t.Helper()
	if got := p.answers(""); got != http.StatusUnauthorized {
		p.t.Errorf("without a token: %d", got)
	}
	if got := p.answers(newIssuer(p.t).token()); got != http.StatusForbidden {
		p.t.Errorf("with the token of another issuer: %d", got)
	}
	for _, series := range []string{
		`neon_cloud="aws",neon_region="aws-eu-central-1"`,
		`storage_controller_consistency_checks{outcome="ok"} 1`,
	} {
		p.until("in the metrics: "+series, func() bool {
			_, text := p.fetch("/metrics", "")
			return strings.Contains(text, series)
		})
	}
}

// Neon's chart with startAsCandidate starts a second pod beside the first one. Without a way
// to the state of that one it must not serve.
func TestNeonsChartWithACandidateIsRefusedWithAWayOut(t *testing.T) {
	l := neonChart(t, newIssuer(t).pem)
	p := launch(t, l.env, append(l.args, "--start-as-candidate")...)
	if code := p.exits(); code != "2" || !strings.Contains(p.output(), "startAsCandidate") ||
		!strings.Contains(p.output(), "--members") {
		t.Errorf("ends with %s\n%s", code, p.output())
	}
	if left, _ := os.ReadDir(filepath.Join(p.cmd.Dir, "storage_controller_data")); len(left) > 0 {
		t.Errorf("it has made %v", left)
	}
}

// Keys are exchanged without a restart, as Kubernetes exchanges a secret. What is no key
// leaves the old ones.
func TestKeysOfARunningReplicaRotate(t *testing.T) {
	old, fresh := newIssuer(t), newIssuer(t)
	dir := t.TempDir()
	turn := func(files ...string) {
		t.Helper()
		at, err := os.MkdirTemp(dir, "..version")
		if err != nil {
			t.Fatal(err)
		}
		for i, text := range files {
			name := filepath.Join(at, strconv.Itoa(i)+".pem")
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		link := filepath.Join(dir, "..fresh")
		if err := os.Symlink(filepath.Base(at), link); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link, filepath.Join(dir, "keys")); err != nil {
			t.Fatal(err)
		}
	}
	turn(old.pem)
	p := launch(t, nil, append(slices.Clone(devFlags), "--public-key", filepath.Join(dir, "keys"),
		"--ssl-cert-reload-period=20ms")...).ready()
	open := func(oldStatus, freshStatus int) {
		t.Helper()
		p.until(fmt.Sprintf("%d to the old key and %d to the new one", oldStatus, freshStatus),
			func() bool {
				return p.answers(old.token()) == oldStatus &&
					p.answers(fresh.token()) == freshStatus
			})
	}
	metric := func(series string) {
		t.Helper()
		p.until(series, func() bool {
			_, text := p.fetch("/metrics", "")
			return strings.Contains(text, series)
		})
	}
	open(http.StatusOK, http.StatusForbidden)
	turn(old.pem, fresh.pem)
	open(http.StatusOK, http.StatusOK)
	turn("-----BEGIN RUBBISH-----")
	metric(`storage_controller_secret_stale{secret="public-key"} 1`)
	open(http.StatusOK, http.StatusOK)
	turn(fresh.pem)
	open(http.StatusForbidden, http.StatusOK)
	metric(`storage_controller_secret_stale{secret="public-key"} 0`)
	metric(`storage_controller_secret_reloads{secret="public-key"} 2`)
	if n := strings.Count(p.output(), "Keeping the old secret"); n != 1 {
		t.Errorf("it is told %d times\n%s", n, p.output())
	}
}
