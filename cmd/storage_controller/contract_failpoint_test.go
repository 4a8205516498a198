package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"quorate/api/neon"
	"quorate/internal/contract"
)

// send sends a request, and leaves it alone when it is held.
func (e *environment) send(method, path string, in any) int {
	e.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(e.t.Context(), 10*time.Second)
	defer cancel()
	scope := "admin"
	if strings.HasPrefix(path, "v1/") {
		scope = "pageserverapi"
	}
	req, err := http.NewRequestWithContext(ctx, method, e.url()+path, bytes.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+e.token(scope))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// seenInLog waits until the deadline for what a failpoint says when it is passed.
func (e *environment) seenInLog(row contract.Row, deadline time.Time) bool {
	want := "at failpoint " + row.Name + "\n"
	if row.Cell("style") == "sleep" {
		want = `failpoint "` + row.Name + `": sleeping for `
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		for line := range strings.Lines(e.log()) {
			if strings.Contains(line, want) ||
				strings.Contains(line, strings.TrimSuffix(want, "\n")+" ") {
				return true
			}
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// TestContractFailpointsAreToldWhenPassed does what passes the failpoints that can
// hold the process or make it sleep, and ticks those of which the log tells.
func TestContractFailpointsAreToldWhenPassed(t *testing.T) {
	e := newEnvironment(t)
	cmd := e.start()
	var sleeps []map[string]string
	for _, row := range contract.Rows(contract.Failpoint) {
		if row.Cell("style") == "sleep" {
			sleeps = append(sleeps, map[string]string{"name": row.Name, "actions": "return(1)"})
		}
	}
	e.send("PUT", "debug/v1/failpoints", sleeps)
	e.addPageservers(3)
	tenant := neon.TenantID{0xaa, 15: 1}
	var created neon.TenantCreateResponse
	e.call("POST", "v1/tenant", "pageserverapi", map[string]any{"new_tenant_id": tenant}, &created)
	at := created.Shards[0].Node
	next := func() neon.NodeID { at = at%3 + 1; return at }
	path := "control/v1/tenant/" + tenant.String()
	now := map[string]any{"prewarm": false, "override_scheduler": true}
	e.send("POST", "v1/tenant/"+tenant.String()+"/timeline",
		map[string]any{"new_timeline_id": neon.TimelineID{1}, "pg_version": 16})
	e.send("PUT", path+"/migrate", map[string]any{"node_id": next(), "migration_config": now})
	e.send("PUT", path+"/policy", map[string]any{"placement": map[string]int{"Attached": 1}})
	e.send("PUT", path+"/shard_split", map[string]any{"new_shard_count": 2})
	drained := "control/v1/node/" + at.String()
	e.send("PUT", drained+"/drain", nil)
	e.idle()
	e.send("PUT", drained+"/config", map[string]any{"node_id": at, "scheduling": "Active"})
	e.send("PUT", "control/v1/node/"+next().String()+"/delete", nil)
	e.idle()
	e.send("PUT", "control/v1/step_down", nil)
	deadline := time.Now().Add(5 * time.Second)
	for _, row := range contract.Rows(contract.Failpoint) {
		if row.Cell("style") == "return" || row.Name == "timeline-import-pre-cplane-notification" {
			continue // these have tests of their own
		}
		t.Run(row.Name, func(t *testing.T) {
			if !e.seenInLog(row, deadline) {
				t.Fatal("is not passed")
			}
			row.Tick(t)
		})
	}
	e.stop(cmd, syscall.SIGTERM)
}

// idle waits until no operation on a node is under way.
func (e *environment) idle() {
	e.t.Helper()
	e.poll(50*time.Millisecond, "done with the operation", func() bool {
		var running []json.RawMessage
		e.call("GET", "debug/v1/operation", "admin", nil, &running)
		return len(running) == 0
	})
}
