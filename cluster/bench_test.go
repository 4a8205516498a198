package cluster

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// spread runs f b.N times from some goroutines and reports operations per second.
func spread(b *testing.B, workers int, f func() error) {
	b.Helper()
	jobs := make(chan struct{}, workers)
	var wg sync.WaitGroup
	b.ResetTimer()
	began := time.Now()
	for range workers {
		wg.Go(func() {
			for range jobs {
				if err := f(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for range b.N {
		jobs <- struct{}{}
	}
	close(jobs)
	wg.Wait()
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "ops/s")
}

func BenchmarkPropose(b *testing.B) {
	for _, nodes := range []int{1, 3} {
		for _, workers := range []int{1, 16, 256, 1024} {
			b.Run(fmt.Sprintf("nodes=%d/callers=%d", nodes, workers), func(b *testing.B) {
				tr := startTCP(b, nodes, Timeouts{})
				lead := tr.leader()
				command := make([]byte, 200)
				spread(b, workers, func() error {
					_, err := lead.Propose(context.Background(), command)
					return err
				})
			})
		}
	}
}

func BenchmarkReadBarrier(b *testing.B) {
	for _, where := range []string{"leader", "follower"} {
		for _, workers := range []int{1, 16, 256} {
			b.Run(fmt.Sprintf("on=%s/callers=%d", where, workers), func(b *testing.B) {
				tr := startTCP(b, 3, Timeouts{})
				nd := tr.leader()
				if where == "follower" {
					nd = tr.follower()
				}
				spread(b, workers, func() error { return nd.ReadBarrier(context.Background()) })
			})
		}
	}
}

// BenchmarkIdleVirtualHour is the real time that an hour of three idle servers takes.
func BenchmarkIdleVirtualHour(b *testing.B) {
	for range b.N {
		idleHour(b)
	}
}

func idleHour(b *testing.B) {
	b.Helper()
	t := &testing.T{}
	synctest.Test(t, func(t *testing.T) {
		tr := startMemory(t, 3)
		tr.leader()
		time.Sleep(time.Hour)
		if n := tr.leader().Status().TermsLed; n != 1 {
			t.Errorf("%d terms", n)
		}
	})
}
