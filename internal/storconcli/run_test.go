package storconcli

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"quorate/internal/contract"
)

// invoke runs the program and returns its output on both streams.
func invoke(t *testing.T, env Env, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err strings.Builder
	env.Args, env.Stdout, env.Stderr = args, &out, &err
	code = Run(t.Context(), env)
	return code, out.String(), err.String()
}

// answering is a server that says the same to everything.
func answering(t *testing.T, text string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(
		w http.ResponseWriter, _ *http.Request,
	) {
		fmt.Fprint(w, text)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

const oneNode = `[{"id":1,"availability":"Offline","scheduling":"Pause","availability_zone_id":"a","listen_http_addr":"h",
	"listen_http_port":1,"listen_https_port":null,"listen_pg_addr":"h","listen_pg_port":2,"listen_grpc_addr":null,"listen_grpc_port":null}]`

func TestNothingIsHelpAndAMistake(t *testing.T) {
	code, stdout, stderr := invoke(t, Env{})
	if code != ExitUsage || stdout != "" {
		t.Errorf("exit %d, printed %q", code, stdout)
	}
	for _, want := range []string{"tenant-describe", "completion", "--ssl-ca-file"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("the help does not tell of %s", want)
		}
	}
	if code, stdout, _ = invoke(t, Env{}, "--help"); code != ExitDone || stdout != stderr {
		t.Errorf("--help exits with %d and prints %q", code, stdout)
	}
}

func TestColoursOnlyWhereTheyAreWanted(t *testing.T) {
	url := answering(t, oneNode)
	_, plain, _ := invoke(t, Env{}, "--api", url, "nodes")
	_, coloured, _ := invoke(t, Env{ColourStdout: true}, "--api", url, "nodes")
	if strings.Contains(plain, "\x1b") {
		t.Errorf("colours in %q", plain)
	}
	if !strings.Contains(coloured, "\x1b[31mOffline\x1b[0m") ||
		!strings.Contains(coloured, "\x1b[33mPause\x1b[0m") {
		t.Errorf("no colours in %q", coloured)
	}
	bare := strings.NewReplacer("\x1b[31m", "", "\x1b[33m", "", "\x1b[1m", "", "\x1b[0m", "").
		Replace(coloured)
	if bare != plain {
		t.Errorf("colours move the columns:\n%s\n%s", bare, plain)
	}
	for _, format := range []string{"json", "yaml"} {
		if _, doc, _ := invoke(t, Env{ColourStdout: true}, "--api", url, "-o", format,
			"nodes"); strings.Contains(doc, "\x1b") {
			t.Errorf("colours in %s: %q", format, doc)
		}
	}
	_, _, stderr := invoke(t, Env{ColourStderr: true}, "nodes")
	if !strings.HasPrefix(stderr, "\x1b[31merror:\x1b[0m ") {
		t.Errorf("no colours in %q", stderr)
	}
}

// Ids are hex digits: some look like numbers, in many notations.
func TestYAMLSaysTheSameAsJSON(t *testing.T) {
	for _, text := range []string{
		"00000000000000000000000000000012", "000000000000000000000000000012e4", "1e5", "0x10",
		"0104", "1_000", "12:30",
		"true", "no", "null", "~", "", " a ", "- a", "a: b", "a #b", "line\nline", "é", "'", `"`,
		"{", "[", "!x", "&x", "*x", "%x", "@x", "|", ">",
	} {
		var yamlText, jsonText strings.Builder
		doc := map[string]any{"id": text, "all": []any{text, map[string]any{"id": text}}}
		for format, into := range map[format]io.Writer{
			formatYAML: &yamlText, formatJSON: &jsonText,
		} {
			if err := (&printer{out: into, format: format}).result(doc, nil); err != nil {
				t.Fatal(err)
			}
		}
		var fromYAML, fromJSON any
		if err := yaml.Unmarshal([]byte(yamlText.String()), &fromYAML); err != nil {
			t.Errorf("%q: %v in\n%s", text, err, yamlText.String())
			continue
		}
		if err := json.Unmarshal([]byte(jsonText.String()), &fromJSON); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(fromYAML, fromJSON) {
			t.Errorf("%q comes back as %v from\n%s", text, fromYAML, yamlText.String())
		}
	}
}

func TestContractCertificatesAreVerified(t *testing.T) {
	contract.Find(contract.Subcommand, "--ssl-ca-file").Tick(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(
		w http.ResponseWriter, _ *http.Request,
	) {
		fmt.Fprint(w, oneNode)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	if code, _, stderr := invoke(t, Env{}, "--api", server.URL, "nodes"); code != ExitError ||
		!strings.Contains(stderr, "certificate") {
		t.Errorf("an unknown certificate: exit %d, %s", code, stderr)
	}
	file := filepath.Join(t.TempDir(), "ca.crt")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := invoke(t, Env{}, "--api", server.URL, "--ssl-ca-file", file,
		"nodes"); code != ExitDone {
		t.Errorf("a certificate in the file: exit %d, %s", code, stderr)
	}
}

func TestAnAddressMayHaveAPath(t *testing.T) {
	var path atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path.Store(r.URL.Path)
		fmt.Fprint(w, oneNode)
	}))
	t.Cleanup(server.Close)
	for base, want := range map[string]string{
		"": "/control/v1/node", "/": "/control/v1/node", "/cell-1/": "/cell-1/control/v1/node",
	} {
		if code, _, stderr := invoke(t, Env{}, "--api", server.URL+base,
			"nodes"); code != ExitDone || path.Load() != want {
			t.Errorf("%q leads to %v: exit %d, %s", base, path.Load(), code, stderr)
		}
	}
}

func TestNobodyWaitsForEver(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(
		http.ResponseWriter, *http.Request,
	) {
		<-release
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(release) })
	code, _, stderr := invoke(t, Env{}, "--api", server.URL, "--request-timeout", "50ms", "nodes")
	if code != ExitError || !strings.Contains(stderr, server.URL) {
		t.Errorf("a silent controller: exit %d, %s", code, stderr)
	}
	quiet := httptest.NewServer(nil)
	quiet.Close()
	code, _, stderr = invoke(t, Env{}, "--api", quiet.URL, "nodes")
	if code != ExitError || !strings.HasPrefix(stderr,
		"Error: receive body: error sending request for url ("+quiet.URL+"/control/v1/node): ") {
		t.Errorf("no controller: exit %d, %s", code, stderr)
	}
}

func TestACancelledOperationIsWaitedForOnlySoLong(t *testing.T) {
	url := answering(t, strings.Trim(strings.Replace(oneNode, "Pause", "Draining", 1), "[]"))
	code, _, stderr := invoke(t, Env{PollEvery: time.Millisecond}, "--api", url, "cancel-drain",
		"--node-id", "1", "--timeout", "30ms")
	if code != ExitError || stderr != "Error: deadline has elapsed\n" {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

// A list of more than one page shows that it goes on.
func TestLongListsArePaged(t *testing.T) {
	const total = 2500
	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		first := 0
		if after := r.URL.Query().Get("start_after"); after != "" {
			if _, err := fmt.Sscanf(after, "%x", &first); err != nil {
				t.Error(err)
			}
		}
		var page []string
		for n := first + 1; n <= min(total, first+pageSize); n++ {
			page = append(page, fmt.Sprintf(
				`{"tenant_id":"%032x","shards":[],"stripe_size":1,"policy":"Detached","config":{}}`,
				n))
		}
		fmt.Fprintf(w, "[%s]", strings.Join(page, ","))
	}))
	t.Cleanup(server.Close)
	code, stdout, stderr := invoke(t, Env{}, "--api", server.URL, "tenants")
	if lines := strings.Count(stdout, "\n"); code != ExitDone || lines != 3+2*total {
		t.Errorf("exit %d, %d lines of %d tenants", code, lines, total)
	}
	if stderr != "..\n" || requests.Load() != 4 {
		t.Errorf("%d requests show %q", requests.Load(), stderr)
	}
}

// Migrations run so many at a time and not more, and are told of in their order.
func TestBulkMigrationIsBounded(t *testing.T) {
	const shards, wide = 45, 3
	nodes := `[` + strings.Trim(strings.Replace(strings.Replace(oneNode, "Pause", "Active", 1),
		"Offline", "Active", 1), "[]")
	nodes += "," + strings.Replace(nodes[1:], `"id":1`, `"id":2`, 1) + "]"
	var running, most, total atomic.Int32
	full := make(chan struct{}, wide)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/control/v1/node":
			fmt.Fprint(w, nodes)
		case r.URL.Path == "/control/v1/tenant":
			var all []string
			for n := range shards {
				all = append(all, fmt.Sprintf(
					`{"tenant_id":"%032x","shards":[{"tenant_shard_id":"%032x","node_attached":1,"node_secondary":[],"scheduling_policy":"Active"}],"stripe_size":1,"policy":"Detached","config":{}}`,
					n, n))
			}
			fmt.Fprintf(w, "[%s]", strings.Join(all, ","))
		case strings.HasSuffix(r.URL.Path, "/migrate"):
			now := running.Add(1)
			for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
			}
			if total.Add(1) <= wide { // the first ones wait for each other
				full <- struct{}{}
				for len(full) < wide {
					select {
					case <-r.Context().Done():
						return
					case <-time.After(time.Millisecond):
					}
				}
			}
			running.Add(-1)
			fmt.Fprint(w, "{}")
		}
	}))
	t.Cleanup(server.Close)
	code, stdout, stderr := invoke(t, Env{}, "--api", server.URL, "bulk-migrate", "--nodes", "1",
		"--concurrency", "3")
	want := ""
	for _, done := range []int{20, 40, 45} {
		want += fmt.Sprintf("Processed %d/45 shards: %d succeeded, 0 failed\n", done, done)
	}
	if code != ExitDone || stdout != want || most.Load() != wide {
		t.Errorf("exit %d, %d at a time\n%s%s", code, most.Load(), stdout, stderr)
	}
}
