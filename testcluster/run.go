package testcluster

import (
	"bytes"
	"context"
	"testing"
	"time"
)

// Run starts a cluster for a test and stops it at the end. A test that failed
// logs what the controllers and the oracle said last; an invariant that the
// oracle found violated fails the test.
func Run(t testing.TB, b Builder) *Cluster {
	t.Helper()
	if b.Mode != Virtual && b.Dir == "" {
		b.Dir = t.TempDir()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*startTimeout)
	defer cancel()
	c, err := b.Start(ctx)
	if err != nil {
		t.Fatalf("start a cluster (%s): %v", b.Mode, err)
	}
	t.Cleanup(func() {
		if err := c.Oracle().Err(); err != nil {
			t.Errorf("seed %d: %v", b.Seed, err)
		}
		if t.Failed() {
			var out bytes.Buffer
			c.Dump(&out)
			t.Logf("seed %d\n%s", b.Seed, out.Bytes())
		}
		if err := c.Stop(); err != nil {
			t.Errorf("stop the cluster: %v", err)
		}
		if b.Mode == Virtual {
			// Time stands still when the bubble's root ends; let what waits for a
			// timer go first.
			<-time.After(time.Minute)
		}
	})
	return c
}
