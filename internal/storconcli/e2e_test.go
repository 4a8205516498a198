package storconcli_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"quorate/internal/storconcli"
	"quorate/testcluster"
)

const tenant = "c0ffee00000000000000000000000001"

// operator runs the program against replicas of a real cluster, another one each
// time: any of them answers.
type operator struct {
	t       *testing.T
	cluster *testcluster.Cluster
	runs    int
}

// try returns the exit code and what was printed on both streams.
func (o *operator) try(args ...string) (int, string) {
	o.t.Helper()
	var out, err strings.Builder
	ctx, cancel := context.WithTimeout(o.t.Context(), 30*time.Second)
	defer cancel()
	replica := o.runs % o.cluster.Controllers()
	o.runs++
	code := storconcli.Run(ctx, storconcli.Env{
		Args: append([]string{"--api", o.cluster.URL(replica), "--jwt", o.cluster.Token("admin")},
			args...),
		Stdout: &out, Stderr: &err, WatchEvery: 20 * time.Millisecond,
	})
	return code, out.String() + err.String()
}

func (o *operator) does(args ...string) string {
	o.t.Helper()
	code, out := o.try(args...)
	if code != storconcli.ExitDone {
		o.t.Fatalf("%v exits with %d: %s", args, code, out)
	}
	return out
}

// sees waits until the output holds all the words.
func (o *operator) sees(words []string, args ...string) {
	o.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		out := o.does(args...)
		missing := ""
		for _, w := range words {
			if !strings.Contains(out, w) {
				missing = w
			}
		}
		if missing == "" {
			return
		}
		select {
		case <-deadline:
			o.t.Fatalf("%v does not show %q:\n%s", args, missing, out)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestAnOperatorRunsAClusterWithIt(t *testing.T) {
	for name, controllers := range map[string]int{"one controller": 1, "three controllers": 3} {
		t.Run(name, func(t *testing.T) {
			o := &operator{t: t, cluster: testcluster.Run(t, testcluster.Builder{
				Controllers: controllers, Pageservers: 3, Zones: 3, Auth: true, Hook: true,
			})}
			o.nodes()
			o.tenants()
			o.shards()
			o.mistakes()
			o.does("tenant-delete", "--tenant-id", tenant)
			o.does("tenant-delete", "--tenant-id", tenant)
		})
	}
}

func (o *operator) nodes() {
	// The frame, the names of the columns, the rule, and three rows with two lines between.
	if lines := strings.Count(o.does("nodes"), "\n"); lines != 9 {
		o.t.Errorf("three nodes in %d lines", lines)
	}
	o.does("node-configure", "--node-id", "1", "--scheduling", "pause")
	o.sees([]string{"Pause"}, "nodes")
	o.does("node-configure", "--node-id", "1", "--scheduling", "active")
}

func (o *operator) tenants() {
	if out := o.does("tenant-create", "--tenant-id", tenant); !strings.Contains(out, tenant) {
		o.t.Errorf("created\n%s", out)
	}
	o.sees([]string{tenant, "ShardStripeSize(2048)", "Attached(1)", "Active"}, "tenants")
	o.does("set-tenant-config", "--tenant-id", tenant, "--config",
		`{"gc_period":"3600s","pitr_interval":"1m"}`)
	o.does("patch-tenant-config", "--tenant-id", tenant, "--config",
		`{"pitr_interval":null,"gc_horizon":7}`)
	o.sees([]string{"Tenant " + tenant, `"gc_period": "1h"`, `"gc_horizon": 7`}, "tenant-describe",
		"--tenant-id", tenant)
	o.does("tenant-set-time-based-eviction", "--tenant-id", tenant, "--period", "10m",
		"--threshold", "24h")
	o.sees([]string{"LayerAccessThreshold", "threshold: 1day"}, "tenant-describe", "--tenant-id",
		tenant, "--output", "yaml")
}

func (o *operator) shards() {
	if err := o.cluster.WaitQuiescent(o.t.Context()); err != nil {
		o.t.Fatal(err)
	}
	to, from := "2", "3"
	if strings.Contains(o.does("tenants", "2"), "Primary") {
		to, from = from, to
	}
	out := o.does("tenant-shard-migrate", "--tenant-shard-id", tenant, "--node", to, "--prewarm",
		"false", "--override-scheduler", "true")
	if !strings.HasSuffix(out, "Tenant shard "+tenant+" is now on node "+to+"\n") {
		o.t.Errorf("migrated\n%s", out)
	}
	o.does("tenant-shard-migrate-secondary", "--tenant-shard-id", tenant, "--node", from)
	o.sees([]string{"Secondary    "}, "tenants", from)
	o.does("tenant-policy", "--tenant-id", tenant, "--scheduling", "stop")
	o.sees([]string{"Stop"}, "tenants")
	o.does("tenant-policy", "--tenant-id", tenant, "--placement", "secondary")
	o.sees([]string{"| Secondary", "Active"}, "tenants")
}

func (o *operator) mistakes() {
	if code, out := o.try("tenant-describe", "--tenant-id", strings.Repeat("0",
		32)); code != storconcli.ExitError || !strings.Contains(out, "NotFound: ") {
		o.t.Errorf("an unknown tenant: exit %d, %s", code, out)
	}
	if code, out := o.try("--jwt", "nonsense", "nodes"); code != storconcli.ExitUsage {
		o.t.Errorf("two tokens: exit %d, %s", code, out)
	}
}
