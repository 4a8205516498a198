package demo

import (
	"context"
	"fmt"

	"quorate/api/neon"
	"quorate/testcluster"
	"quorate/testcluster/simpageserver"
)

// servers are the pageservers of the show, simulated or real.
type servers interface {
	kind() string
	start(ctx context.Context, id neon.NodeID, zone neon.AZ) error
	kill(id neon.NodeID) error
	restart(ctx context.Context, id neon.NodeID) error

	// look asks every running pageserver what it holds.
	look(ctx context.Context) (map[neon.NodeID]holding, error)

	// postgres is the version that timelines are made for; nil leaves it open.
	postgres() *neon.PgVersion

	// check adds what only this kind of pageserver can verify at the end.
	check(shards []neon.ShardID) error
	close() error
}

// holding is what one running pageserver holds.
type holding struct {
	attached  map[neon.ShardID]neon.Generation // AttachedSingle
	others    int                              // attached in another mode, or being changed
	secondary int
}

// simulated are pageservers in this process.
type simulated struct{ cluster *testcluster.Cluster }

func (s *simulated) kind() string { return "simulated pageservers" }

func (s *simulated) postgres() *neon.PgVersion { return nil }

func (s *simulated) start(ctx context.Context, id neon.NodeID, zone neon.AZ) error {
	n, err := s.cluster.AddPageserver(id, zone)
	if err != nil {
		return err
	}
	return n.Start(ctx)
}

func (s *simulated) kill(id neon.NodeID) error {
	s.cluster.KillPageserver(id)
	return nil
}

func (s *simulated) restart(ctx context.Context, id neon.NodeID) error {
	return s.cluster.Fleet().Node(id).Start(ctx)
}

func (s *simulated) look(context.Context) (map[neon.NodeID]holding, error) {
	out := make(map[neon.NodeID]holding)
	for _, n := range s.cluster.Fleet().Nodes() {
		if !n.Running() {
			continue
		}
		h := holding{attached: make(map[neon.ShardID]neon.Generation)}
		for id, v := range n.Locations() {
			switch {
			case v.State == simpageserver.InProgress:
				h.others++
			case v.Mode == neon.AttachedSingle:
				h.attached[id] = v.Generation
			case v.Mode == neon.Secondary:
				h.secondary++
			default:
				h.others++
			}
		}
		out[n.ID()] = h
	}
	return out, nil
}

func (s *simulated) check(shards []neon.ShardID) error {
	if err := s.cluster.Oracle().Err(); err != nil {
		return fmt.Errorf("the pageservers saw a broken rule: %w", err)
	}
	return s.cluster.Fleet().AttachedExactlyOnce(shards)
}

func (s *simulated) close() error { return nil } // the cluster stops them
