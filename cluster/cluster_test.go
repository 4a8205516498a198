package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/gob"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quorate/cluster/clustertest"
	"quorate/internal/freeport"
	"quorate/internal/wait"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(childMain())
	}
	goleak.VerifyTestMain(m)
}

// ledger is the machine of the tests: it keeps every command in order.
type ledger struct {
	mu   sync.Mutex
	rows []string
	sum  uint64 // of rows in their order
}

func (l *ledger) add(row string) {
	l.rows = append(l.rows, row)
	for _, b := range []byte(row) {
		l.sum = (l.sum ^ uint64(b)) * 1099511628211
	}
	l.sum++
}

func (l *ledger) Digest() (scheme, hash uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return 1, l.sum
}

// slowRow is a row that takes its time, as a short command does that changes many records.
const slowRow = "slow"

func (l *ledger) Apply(batch []Entry) []any {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]any, len(batch))
	for i, e := range batch {
		if l.add(string(e.Data)); string(e.Data) == slowRow {
			_ = wait.Sleep(context.Background(), 100*time.Millisecond)
		}
		out[i] = len(l.rows)
	}
	return out
}

type ledgerState []string

func (s ledgerState) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode([]string(s)); err != nil {
		return 0, err
	}
	return b.WriteTo(w)
}

func (l *ledger) Snapshot() (io.WriterTo, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return ledgerState(l.rows[:len(l.rows):len(l.rows)]), nil
}

func (l *ledger) Restore(r io.Reader) error {
	var rows []string
	if err := gob.NewDecoder(r).Decode(&rows); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows, l.sum = nil, 0
	for _, r := range rows {
		l.add(r)
	}
	return nil
}

func (l *ledger) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.rows...)
}

func (l *ledger) count(row string) int {
	n := 0
	for _, r := range l.all() {
		if r == row {
			n++
		}
	}
	return n
}

// node is one server of a test cluster, with what it needs to start again.
type node struct {
	*Cluster
	cfg     Config
	machine *ledger
	disk    *clustertest.Disk
}

// trio is a test cluster on an in-memory network with in-memory disks.
type trio struct {
	t     testing.TB
	net   *clustertest.Network
	nodes []*node
}

func memoryConfig(net *clustertest.Network, n, i int) Config {
	var members []Member
	for k := range n {
		members = append(members,
			Member{ID: fmt.Sprintf("n%d", k), RaftAddr: fmt.Sprintf("h%d:1", k)})
	}
	return Config{
		ID: members[i].ID, RaftListen: members[i].RaftAddr, Members: members,
		HTTPAddr: fmt.Sprintf("http://h%d", i), Network: net.Host(fmt.Sprintf("h%d", i)),
	}
}

func startMemory(t testing.TB, n int) *trio {
	tr := &trio{t: t, net: clustertest.NewNetwork()}
	for i := range n {
		nd := &node{cfg: memoryConfig(tr.net, n, i), disk: clustertest.NewMemoryDisk()}
		nd.cfg.Disk = nd.disk
		tr.nodes = append(tr.nodes, nd)
		tr.start(i)
	}
	t.Cleanup(tr.close)
	return tr
}

// start opens node i with an empty machine and its old disk.
func (tr *trio) start(i int) *node {
	nd := tr.nodes[i]
	nd.machine = &ledger{}
	if os.Getenv("CLUSTER_TEST_LOG") != "" {
		nd.cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr,
			&slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	c, err := Open(context.Background(), nd.cfg, nd.machine)
	if err != nil {
		tr.t.Fatalf("open %s: %v", nd.cfg.ID, err)
	}
	nd.Cluster = c
	return nd
}

func (tr *trio) close() {
	for _, nd := range tr.nodes {
		if nd.Cluster != nil {
			_ = nd.kill()
		}
	}
}

// kill stops a node without a hand-over.
func (nd *node) kill() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := nd.Close(ctx)
	nd.Cluster = nil
	return err
}

// eventually polls a condition until it holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	limit := time.After(15 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("never happened: %s", what)
		}
	}
}

// leader waits until exactly one live node can prove that it leads.
func (tr *trio) leader() *node {
	tr.t.Helper()
	var found *node
	eventually(tr.t, "a leader", func() bool {
		for _, nd := range tr.nodes {
			if nd.Cluster != nil && nd.IsLeader() &&
				nd.reads.verifyLead(context.Background()) == nil {
				found = nd
				return true
			}
		}
		return false
	})
	return found
}

func (tr *trio) follower() *node {
	tr.t.Helper()
	lead := tr.leader()
	for _, nd := range tr.nodes {
		if nd.Cluster != nil && nd != lead {
			return nd
		}
	}
	tr.t.Fatal("no follower")
	return nil
}

func (nd *node) mustPropose(t testing.TB, row string) {
	t.Helper()
	if _, err := nd.Propose(context.Background(), []byte(row)); err != nil {
		t.Fatalf("propose %q: %v", row, err)
	}
}

// startTCP starts n nodes on loopback with bolt on disk.
func startTCP(t testing.TB, n int, timeouts Timeouts) *trio {
	if timeouts.Store == 0 {
		timeouts.Store = 5 * time.Second // others use this disk too
	}
	tr := &trio{t: t}
	var members []Member
	for i := range n {
		addr, err := freeport.Address()
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, Member{ID: fmt.Sprintf("n%d", i), RaftAddr: addr})
	}
	for i := range n {
		nd := &node{cfg: Config{
			ID: members[i].ID, DataDir: t.TempDir(), RaftListen: members[i].RaftAddr,
			Members:  members,
			HTTPAddr: "http://" + members[i].ID, Timeouts: timeouts,
		}}
		tr.nodes = append(tr.nodes, nd)
		tr.start(i)
	}
	t.Cleanup(tr.close)
	return tr
}

func seqRow(writer, seq int) string { return fmt.Sprintf("w%d-%d", writer, seq) }

func bigCommand(size int, tag uint64) []byte {
	b := make([]byte, size)
	binary.BigEndian.PutUint64(b, tag)
	return b
}

func repeated(rows []string) []string {
	seen := make(map[string]bool)
	var twice []string
	for _, r := range rows {
		if seen[r] && !strings.HasPrefix(r, "again") {
			twice = append(twice, r)
		}
		seen[r] = true
	}
	return twice
}

func discardLogger() *slog.Logger { return slog.New(slog.DiscardHandler) }
