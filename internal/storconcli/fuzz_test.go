package storconcli

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"quorate/internal/contract"
)

// FuzzAnswers prints whatever a controller may answer, in every format: no answer
// crashes the program, none keeps it forever.
func FuzzAnswers(f *testing.F) {
	f.Add(200, oneNode)
	f.Add(200, strings.Trim(oneNode, "[]"))
	f.Add(200,
		`[{"tenant_id":"11111111111111111111111111111111","shards":[],"stripe_size":1,"policy":"Detached","config":{}}]`)
	f.Add(200,
		`{"tenant_id":"11111111111111111111111111111111","shards":[{"tenant_shard_id":"11111111111111111111111111111111","node_attached":7,"last_error":"\n\t"}],"policy":{"Attached":1}}`)
	f.Add(200, `{"node_id":1,"shards":[{}],"generation":1e3,"sk_set":[1],"new_sk_set":[]}`)
	f.Add(200, `[{"id":1,"version":-1,"scheduling_policy":"Active"}]`)
	f.Add(404, `{"msg":null}`)
	f.Add(500, `{"msg":"no"}`)
	f.Add(200, `null`)
	type reply struct {
		status int
		body   string
	}
	var next atomic.Pointer[reply]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(next.Load().status)
		_, _ = io.WriteString(w, next.Load().body)
	}))
	f.Cleanup(server.Close)
	const id = "11111111111111111111111111111111"
	commands := [][]string{
		{"nodes"}, {"tenants"}, {"tenants", "1"}, {"tenant-describe", "--tenant-id", id},
		{"safekeepers"},
		{"timeline-locate", "--tenant-id", id, "--timeline-id", id},
		{"tenant-shard-split", "--tenant-id", id, "--shard-count", "2"},
		{"tenant-create", "--tenant-id", id},
		{"cancel-drain", "--node-id", "1", "--timeout", "5ms"},
	}
	f.Fuzz(func(t *testing.T, status int, body string) {
		if status < 200 || status > 599 || status == 204 || status == 304 || status/100 == 3 {
			t.Skip("no body, or sent elsewhere")
		}
		next.Store(&reply{status, body})
		for i, command := range commands {
			format := formats[i%len(formats)]
			env := Env{PollEvery: time.Millisecond}
			code, _, stderr := invoke(t, env,
				append([]string{"--api", server.URL, "-o", format}, command...)...)
			if code == ExitUsage || (code == ExitDone && status >= 400) ||
				(code == ExitError && stderr == "") {
				t.Errorf("%v: exit %d, %q", command, code, stderr)
			}
		}
	})
}

// FuzzArguments takes any command line: mistakes are told, nothing crashes.
func FuzzArguments(f *testing.F) {
	server := httptest.NewServer(http.HandlerFunc(func(
		w http.ResponseWriter, _ *http.Request,
	) {
		fmt.Fprint(w, "null")
	}))
	f.Cleanup(server.Close)
	for _, row := range contract.Rows(contract.Subcommand) {
		f.Add(strings.ReplaceAll(row.Name+" "+row.Cell("flags"), "!", " 1"))
	}
	f.Add("set-tenant-config --tenant-id 11111111111111111111111111111111 --config {}")
	f.Add(
		"patch-tenant-config --tenant-id 11111111111111111111111111111111 --config {\"gc_period\":null}")
	f.Add("-V --output=yaml -- nodes")
	f.Fuzz(func(t *testing.T, line string) {
		if strings.Contains(line, "watch") || strings.Contains(line, "migrate") ||
			strings.Contains(line, "--api") || strings.Contains(line, "cancel-") {
			t.Skip("may wait for what never comes")
		}
		code, stdout, stderr := invoke(t, Env{},
			append([]string{"--api", server.URL}, strings.Fields(line)...)...)
		if code != ExitDone && stderr == "" || code == ExitUsage && stdout != "" {
			t.Errorf("%q: exit %d, %q, %q", line, code, stdout, stderr)
		}
	})
}
