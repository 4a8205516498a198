package simpageserver

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"

	"quorate/api/neon"
)

func TestHistoryIsBoundedJSONLines(t *testing.T) {
	o := NewOracle(OracleOptions{History: 4})
	for gen := range neon.Generation(10) {
		o.Granted(shardOf(0), gen+1, 1)
	}
	var b bytes.Buffer
	if err := o.Dump(&b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 4 {
		t.Fatalf("%d lines", len(lines))
	}
	var e struct {
		Kind       string
		Generation int
		Shard      string
	}
	if err := json.Unmarshal([]byte(lines[3]), &e); err != nil || e.Kind != "granted" ||
		e.Generation != 10 || e.Shard != shardOf(0).String() {
		t.Fatalf("last line %s: %v", lines[3], err)
	}
}

func TestGenerationsOfAShardAreBounded(t *testing.T) {
	r := newOracleRun()
	for gen := range neon.Generation(500) {
		r.grant(gen+1, 1)
		r.put(r.a, modeSingle, gen+1)
	}
	r.grant(3, 1) // a replica that replays its log
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	if n := len(r.shards.facts[shardOf(0)].gens); n > keptGenerations {
		t.Fatalf("%d generations kept", n)
	}
	s, _ := r.Shard(shardOf(0))
	if s.Committed != 500 || s.Attached != 500 || len(s.Holders) != 1 || s.Holders[0].Node != 1 {
		t.Fatalf("facts %+v", s)
	}
}

func TestLyingReattachIsReported(t *testing.T) {
	w := newWorld(t, Options{})
	n := w.node(1)
	w.attach(n, shardOf(0))
	w.auth.mu.Lock()
	w.auth.reattach = func(_ neon.ReAttachRequest, resp *neon.ReAttachResponse) {
		high := neon.Generation(40)
		resp.Tenants[0].Gen = &high
	}
	w.auth.mu.Unlock()
	if err := n.Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	w.ready(n)
	w.reported(1, 5)
}
