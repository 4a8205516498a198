package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"quorate/internal/freeport"
)

// The tests here run one server in a process of its own and end it with SIGKILL.
const childEnv = "CLUSTER_TEST_CHILD"

type childConfig struct {
	ID, Dir string
	Members []Member
}

func childMain() int {
	var cc childConfig
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &cc); err != nil {
		fmt.Println(err)
		return 1
	}
	cfg := Config{ID: cc.ID, DataDir: cc.Dir, Members: cc.Members}
	for _, m := range cc.Members {
		if m.ID == cc.ID {
			cfg.RaftListen = m.RaftAddr
		}
	}
	c, err := Open(context.Background(), cfg, &ledger{})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("open")
	_ = c.RunWhileLeader(context.Background(), func(ctx context.Context, term uint64) error {
		fmt.Println("leads", term)
		<-ctx.Done()
		return nil
	})
	return 0
}

func TestKilledLeaderIsReplacedFarBelowTheTimeout(t *testing.T) {
	const rounds = 8
	members := make([]Member, 3)
	for i := range members {
		addr, err := freeport.Address()
		if err != nil {
			t.Fatal(err)
		}
		members[i] = Member{ID: fmt.Sprintf("n%d", i), RaftAddr: addr}
	}
	tr := &trio{t: t}
	for i := range 2 {
		tr.nodes = append(tr.nodes, &node{cfg: Config{
			ID: members[i].ID, DataDir: t.TempDir(), RaftListen: members[i].RaftAddr,
			Members: members,
		}})
		tr.start(i)
	}
	t.Cleanup(tr.close)
	env, err := json.Marshal(childConfig{ID: "n2", Dir: t.TempDir(), Members: members})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	var gaps []time.Duration
	for round := range rounds {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), childEnv+"="+string(env))
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		lines.Scan()
		eventually(t, "the child leads", func() bool {
			for _, nd := range tr.nodes {
				if nd.IsLeader() {
					_ = nd.TransferLeadership(ctx, "n2")
				}
			}
			info, ok := tr.nodes[0].Leader()
			return ok && info.ID == "n2"
		})
		lines.Scan() // it says so itself
		eventually(t, "both read through the child", func() bool {
			return tr.nodes[0].ReadBarrier(ctx) == nil && tr.nodes[1].ReadBarrier(ctx) == nil
		})
		began := time.Now()
		_ = child.Process.Kill()
		row := seqRow(9, round)
		eventually(t, "a write", func() bool {
			for _, nd := range tr.nodes {
				if _, err := nd.Propose(ctx, []byte(row)); err == nil {
					return true
				}
			}
			return false
		})
		gaps = append(gaps, time.Since(began))
		_ = child.Wait()
	}
	slices.Sort(gaps)
	t.Logf("kill -9 to the next write: %v", gaps)
	if median := gaps[rounds/2]; median > 250*time.Millisecond {
		t.Errorf("median %v with timeouts of 500 ms", median)
	}
}
