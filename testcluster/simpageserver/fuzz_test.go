package simpageserver

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"quorate/api/neon"
)

// FuzzRequests sends any request to a node: it must answer with JSON, never
// panic, and keep its counters right.
func FuzzRequests(f *testing.F) {
	shard := shardOf(0).String()
	for _, s := range [][3]string{
		{
			"PUT", "/v1/tenant/" + shard + "/location_config?lazy=true&flush_ms=5",
			conf(neon.AttachedSingle, 1),
		},
		{"PUT", "/v1/tenant/" + shard + "/location_config", conf(neon.Secondary, 0)},
		{"GET", "/v1/location_config", "null"},
		{"GET", "/v1/location_config/" + shard, ""},
		{"DELETE", "/v1/tenant/" + shard, ""},
		{
			"POST", "/v1/tenant/" + shard + "/timeline",
			`{"new_timeline_id":"` + timelineOf(1).String() + `"}`,
		},
		{"DELETE", "/v1/tenant/" + shard + "/timeline/" + timelineOf(1).String(), ""},
		{
			"POST", "/v1/tenant/" + shard + "/wait_lsn",
			`{"` + timelineOf(1).String() + `":"0/1","timeout":{"secs":0,"nanos":1}}`,
		},
		{"POST", "/v1/tenant/" + shard + "/secondary/download?wait_ms=0", ""},
		{"GET", "/v1/utilization", ""},
		{"PUT", "/v1/deletion_queue/flush", ""},
	} {
		f.Add(s[0], s[1], []byte(s[2]))
	}
	f.Fuzz(func(t *testing.T, method, target string, body []byte) {
		req, err := http.NewRequestWithContext(context.Background(), method, "http://node"+target,
			bytes.NewReader(body))
		if err != nil {
			t.Skip()
		}
		fleet := NewFleet(Options{Oracle: NewOracle(OracleOptions{History: -1})})
		n, err := fleet.AddNode(NodeOptions{ID: 1})
		if err != nil {
			t.Fatal(err)
		}
		p := newProcess(n, nil, 1)
		n.setProcess(p)
		n.host.serving = true
		close(p.ready)
		defer p.cancel()
		c, fail := p.decode(req)
		out := aborted
		if fail != nil {
			out = fail.reply()
		} else {
			if c.route == RouteWaitLsn || c.route == RouteSecondaryDownload {
				gone, cancel := context.WithCancel(context.Background())
				cancel()
				c.caller = gone // the answer is not waited for
			}
			out = p.handle(c)
		}
		if out.abort || out.status < 200 || out.status > 599 || !json.Valid(out.body) {
			t.Fatalf("%s %s: %+v: %s", method, target, out, out.body)
		}
		attached, secondary := 0, 0
		for _, v := range n.Locations() {
			if v.Mode.Attached() {
				attached++
			} else {
				secondary++
			}
		}
		if n.host.core.attached != attached || n.host.core.secondary != secondary {
			t.Fatalf("counts %d and %d, has %d and %d", n.host.core.attached, n.host.core.secondary, attached,
				secondary)
		}
	})
}

// FuzzHook sends any notification.
func FuzzHook(f *testing.F) {
	f.Add([]byte(`{"tenant_id":"` + shardOf(0).Tenant.String() +
		`","preferred_az":null,"stripe_size":null,"shards":[{"node_id":1,"shard_number":0}]}`))
	f.Add([]byte(`{"shards":[{"shard_number":255}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		hook := NewHook(HookOptions{Oracle: NewOracle(OracleOptions{History: -1})})
		defer hook.Close()
		rec := httptest.NewRecorder()
		req, err := http.NewRequestWithContext(context.Background(), http.MethodPut,
			"/notify-attach", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		hook.ServeHTTP(rec, req)
		if rec.Code != 200 && rec.Code != 400 || !json.Valid(rec.Body.Bytes()) {
			t.Fatalf("status %d: %s", rec.Code, rec.Body)
		}
	})
}
