package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"quorate/api/neon"
	"quorate/testcluster"
)

// activation is the longest that a shard may take to serve after it was attached.
const activation = 10 * time.Second

// verify asks a follower, and compares what it says with the pageservers and
// with what was acknowledged.
func (s *show) verify(ctx context.Context) error {
	s.probe.stop()
	s.figures.writes, s.figures.writesUnknown = s.probe.counts()
	follower, err := s.cluster.Follower(ctx)
	if err != nil {
		return err
	}
	client := s.cluster.ClientOf(follower)
	want, err := testcluster.Shards(ctx, client)
	if err != nil {
		return err
	}
	if n := s.figures.created + 1; len(want) != n {
		return fmt.Errorf("the follower knows %d shards, %d were created", len(want), n)
	}
	if err := s.compare(ctx, client, want); err != nil {
		return err
	}
	ids := make([]neon.ShardID, 0, len(want))
	for id := range want {
		ids = append(ids, id)
	}
	// A pageserver answers before the shard serves; give the last ones a moment.
	incomplete := s.servers.check(ids)
	for deadline := time.Now().Add(activation); incomplete != nil &&
		time.Now().Before(deadline); incomplete = s.servers.check(ids) {
		time.Sleep(20 * time.Millisecond)
	}
	err = errors.Join(incomplete, client.Debug().ConsistencyCheck(ctx),
		s.cluster.Ledger().Verify(ctx, client), s.probe.verify(ctx, client))
	if err != nil {
		return err
	}
	s.screen.say(
		"verified through the follower c%d: each of %d shards is attached exactly once, in its newest generation",
		follower+1, len(want))
	s.screen.say("verified through the follower c%d: none of %d acknowledged writes is missing",
		follower+1,
		s.cluster.Ledger().Acknowledged()+s.figures.writes)
	return nil
}

// compare demands that each shard is attached on the pageserver that the
// follower names, in the generation that it calls the newest, and nowhere else.
func (s *show) compare(
	ctx context.Context, client *testcluster.Client, want map[neon.ShardID]neon.NodeID,
) error {
	dump, err := client.Debug().Shards(ctx)
	if err != nil {
		return err
	}
	newest := make(map[neon.ShardID]neon.Generation, len(dump))
	for _, d := range dump {
		if d.Generation != nil {
			newest[d.Shard] = *d.Generation
		}
	}
	held, err := s.servers.look(ctx)
	if err != nil {
		return err
	}
	found := make(map[neon.ShardID]int)
	var wrong []error
	for node, h := range held {
		if h.others > 0 {
			wrong = append(wrong,
				fmt.Errorf("pageserver %s has %d locations in passing", node, h.others))
		}
		for id, g := range h.attached {
			found[id]++
			if want[id] != node || newest[id] != g {
				wrong = append(wrong, fmt.Errorf(
					"shard %s is attached on %s in generation %d; it should be on %s in %d", id,
					node, g, want[id], newest[id]))
			}
		}
	}
	for id := range want {
		if found[id] != 1 {
			wrong = append(wrong, fmt.Errorf("shard %s is attached %d times", id, found[id]))
		}
	}
	return errors.Join(wrong[:min(10, len(wrong))]...)
}

// report prints the figures.
func (s *show) report() {
	f := &s.figures
	row := func(name string, value any) string { return fmt.Sprintf("  %-58s %v", name, value) }
	s.screen.print("",
		row("shards created and attached", fmt.Sprintf("%d in %s", f.created, round(f.creation))),
		row("from the pageserver's death to the offline verdict",
			fmt.Sprintf("%s (set to %s)", round(f.verdict), maxOffline)),
		row("shards to move; moved when the leader was killed",
			fmt.Sprintf("%d; %d", f.moved, f.killedAt)),
		row("from kill -9 of the leader to the next leader", round(f.newLeader)),
		row("longest pause between acknowledged writes around it", round(f.writeGap)),
		row("from the verdict to the last shard moved", round(f.lastMoved)),
		row("writes acknowledged by the probe; failed",
			fmt.Sprintf("%d; %d", f.writes, f.writesUnknown)),
		"")
}

// stay leaves everything running, whole again, until the user ends it.
func (s *show) stay(ctx context.Context) error {
	restarted, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	if err := s.cluster.Restart(restarted, s.killed); err != nil {
		return err
	}
	if err := s.servers.restart(restarted, victim); err != nil {
		return err
	}
	s.screen.say("c%d and pageserver %s run again", s.killed+1, victim)
	url := strings.TrimSuffix(s.cluster.URL(0), "/")
	lines := []string{"", "The cluster stays up until Ctrl-C. Any controller answers:", ""}
	for i := range s.cluster.Controllers() {
		lines = append(lines,
			fmt.Sprintf("  c%d  %s  data in %s/c%d", i+1, s.cluster.URL(i), s.opt.Dir, i+1))
	}
	lines = append(lines, "", "Try:", "",
		"  curl -s "+url+"/control/v1/node | jq",
		"  curl -s "+url+"/control/v1/tenant/"+tenantID(1).String()+" | jq",
		"  curl -s "+url+"/debug/v1/tenant/"+tenantID(1).String()+"/locate | jq",
		"  curl -s "+url+"/debug/v1/cluster | jq",
		"  curl -s "+url+"/metrics | grep storage_controller_raft",
		"  curl -s -X PUT "+url+"/control/v1/step_down                       # hand leadership over, if c1 leads",
		fmt.Sprintf("  %s members list --data-dir %s/c1/data", s.opt.Binary, s.opt.Dir),
		fmt.Sprintf("  %s snapshot save /tmp/quorate.snapshot --data-dir %s/c1/data", s.opt.Binary,
			s.opt.Dir), "")
	s.screen.print(lines...)
	select {
	case <-s.opt.Stay:
	case <-ctx.Done():
	}
	return nil
}
