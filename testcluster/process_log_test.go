package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"quorate/testcluster"
)

// flood makes a controller write lines to its log until some of them are lost.
func flood(t *testing.T, ctx context.Context, f *faulty, i int) {
	t.Helper()
	url := strings.TrimSuffix(f.URL(i), "/")
	client := &http.Client{Timeout: 5 * time.Second}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for worker := range 8 {
		wg.Go(func() {
			for n := range 1500 {
				err := refused(ctx, client,
					fmt.Sprintf("%s/v1/tenant/no-tenant-%d-%d", url, worker, n))
				mu.Lock()
				if failed = errors.Join(failed, err); failed != nil {
					mu.Unlock()
					return
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if failed != nil {
		t.Fatalf("a request is not answered: %v", failed)
	}
}

// refused sends a request that is refused, which stands in the log.
func refused(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.Body.Close()
}

// linesLost reads how many lines of its log a controller says it has lost.
func linesLost(ctx context.Context, url string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	found := regexp.MustCompile(`(?m)^storage_controller_log_lines_dropped (\d+)$`).
		FindSubmatch(text)
	if err != nil || found == nil {
		return 0, errors.Join(err, errors.New("there is no such series"))
	}
	return strconv.Atoi(string(found[1]))
}

// TestALogThatNobodyReadsHoldsNothingUp: the output of the controllers are pipes whose
// reader hangs. They go on: verdicts, moves, re-attach, writes, and an end in order.
//
// Before, a leader stopped at the 65,536th byte, and kept the lead. To see it:
//
//	QUORATE_STORAGE_CONTROLLER=OLD go test ./testcluster -run ALogThatNobodyReads
//
// fails in the flood, where a storage_controller of before answers nothing any more.
func TestALogThatNobodyReadsHoldsNothingUp(t *testing.T) {
	f := &faulty{T: t, ctx: within(t, 3*time.Minute)}
	f.Cluster = testcluster.Run(t, testcluster.Builder{
		Mode: testcluster.Processes, Controllers: 3, Pageservers: 4, Zones: 2, Hook: true,
		UnreadLogs: true,
	})
	create(t, f.ctx, f.Cluster, 4, 2, 1)
	leader, others := f.leader()
	flood(t, f.ctx, f, leader)
	lost, err := linesLost(f.ctx, f.URL(leader))
	f.must("metrics", err)
	if lost == 0 {
		t.Error("no line was lost: the flood is too small to show anything")
	}
	t.Logf("%d lines were lost", lost)

	f.KillPageserver(1)
	f.must("verdicts", f.WaitNodes(f.ctx))
	f.write(f.ClientOf(leader), 1)
	f.must("start", f.Fleet().Node(1).Start(f.ctx)) // it re-attaches
	f.must("verdicts", f.WaitNodes(f.ctx))
	atRest(t, f.ctx, f.Cluster)
	if m, err := f.ClientOf(leader).Cluster().Members(f.ctx); err != nil || m.Leader != m.Server {
		t.Errorf("it does not lead any more: %v", err)
	}
	for _, i := range others {
		flood(t, f.ctx, f, i)
	}
	begun := time.Now()
	f.must("stop", f.StopController(f.ctx, leader))
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("took %v to stop", took)
	}
	next := f.otherLeads(leader, others)
	f.write(f.ClientOf(next), 2)
	f.must("kill", f.Kill(others[0]))
	f.must("restart", f.Restart(f.ctx, others[0]))
	f.must("restart", f.Restart(f.ctx, leader))
	f.write(f.ClientOf(leader), 3)
	atRest(t, f.ctx, f.Cluster)
	if text := f.Log(leader); !strings.Contains(text, "Starting storage controller") {
		t.Errorf("the first lines are not whole: %.200q", text)
	}
}
