package demo

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"quorate/api/neon"
	"quorate/internal/wait"
)

// creators is how many tenants are created at once.
const creators = 16

// tenantID numbers the tenants of the show; 0 is the probe's.
func tenantID(n int) (id neon.TenantID) {
	binary.BigEndian.PutUint32(id[:], 0x0b0e7a7e)
	binary.BigEndian.PutUint32(id[12:], uint32(n))
	return id
}

func timelineID(n int) (id neon.TimelineID) {
	binary.BigEndian.PutUint32(id[:], 0x71e11e00)
	binary.BigEndian.PutUint32(id[12:], uint32(n))
	return id
}

// create makes the tenants, and waits until all is where it should be.
func (s *show) create(ctx context.Context) error {
	s.screen.say("creating %d tenants of %d shards, each attached once and kept warm once",
		s.opt.Tenants, s.opt.Shards)
	began := time.Now()
	client := s.cluster.Client()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(creators)
	for n := 0; n <= s.opt.Tenants; n++ {
		g.Go(func() error { return s.createTenant(gctx, n) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := s.cluster.WaitQuiescent(ctx); err != nil {
		return err
	}
	s.figures.created, s.figures.creation = s.opt.Tenants*s.opt.Shards, time.Since(began)
	s.screen.say("%d shards are attached after %s", s.figures.created, round(s.figures.creation))
	s.probe = startProbe(client, tenantID(0))
	return nil
}

func (s *show) createTenant(ctx context.Context, n int) error {
	client := s.cluster.Client()
	policy := neon.Attached(1)
	req := neon.TenantCreateRequest{Tenant: neon.ShardID{Tenant: tenantID(n)}, Placement: &policy}
	if n == 0 {
		policy = neon.Attached(0)
	} else {
		req.ShardParameters = &neon.ShardParameters{
			Count: neon.ShardCount(s.opt.Shards), StripeSize: 2048,
		}
	}
	if _, err := client.Tenants().Create(ctx, req); err != nil {
		return err
	}
	if n == 0 || n > s.opt.Timelines {
		return nil
	}
	_, err := client.Timelines().Create(ctx, tenantID(n), neon.TimelineCreateRequest{
		Timeline:  timelineID(n),
		Bootstrap: &neon.TimelineBootstrap{PgVersion: s.servers.postgres()},
	})
	return err
}

// killPageserver kills the victim and waits until a third of its shards moved.
func (s *show) killPageserver(ctx context.Context) error {
	held, err := s.servers.look(ctx)
	if err != nil {
		return err
	}
	s.setOrigin(held[victim].attached)
	s.screen.say("killing pageserver %s, which holds %d attached shards", victim,
		len(held[victim].attached))
	if err := s.servers.kill(victim); err != nil {
		return err
	}
	killed := time.Now()
	for {
		n, err := s.cluster.Client().Nodes().Get(ctx, victim)
		if err != nil {
			return err
		}
		if n.Availability == neon.NodeOffline {
			break
		}
		if err := wait.Sleep(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("wait for the offline verdict: %w", err)
		}
	}
	s.verdictAt = time.Now()
	s.figures.verdict = s.verdictAt.Sub(killed)
	s.screen.say("pageserver %s is judged offline %s after its death", victim,
		round(s.figures.verdict))
	return s.await(ctx, "a third of the shards to move", func(st *status) bool {
		s.figures.moved, s.figures.killedAt = st.toMove, st.moved
		return 3*st.moved >= st.toMove
	})
}

// killLeader kills the leader in the middle of the evacuation.
func (s *show) killLeader(ctx context.Context) error {
	leader, err := s.cluster.WaitLeader(ctx)
	if err != nil {
		return err
	}
	s.screen.say("%d of %d shards have moved: kill -9 for the leader, c%d", s.figures.killedAt,
		s.figures.moved, leader+1)
	began := time.Now()
	if err := s.cluster.Kill(leader); err != nil {
		return err
	}
	s.killed, s.leaderDied = leader, began
	for {
		if i, ok := s.cluster.Leader(ctx); ok {
			s.figures.newLeader = time.Since(began)
			s.screen.say("c%d leads %s after the kill", i+1, round(s.figures.newLeader))
			return nil
		}
		if err := wait.Sleep(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("wait for the next leader: %w", err)
		}
	}
}

// finish waits for the last shard.
func (s *show) finish(ctx context.Context) error {
	err := s.await(ctx, "the last shard to move",
		func(st *status) bool { return st.moved == st.toMove })
	if err != nil {
		return err
	}
	s.figures.lastMoved = time.Since(s.verdictAt)
	s.screen.say("the last shard has moved, %s after the verdict", round(s.figures.lastMoved))
	if err := s.cluster.WaitQuiescent(ctx); err != nil {
		return err
	}
	s.figures.writeGap = s.probe.gap(s.leaderDied)
	s.screen.say("nothing is left to do")
	return nil
}

// setOrigin notes what the victim held, before others begin to read it.
func (s *show) setOrigin(held map[neon.ShardID]neon.Generation) {
	origin := make(map[neon.ShardID]neon.Generation, len(held))
	for id, g := range held {
		origin[id] = g
	}
	s.origin.Store(&origin)
}

func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(10 * time.Millisecond)
}
